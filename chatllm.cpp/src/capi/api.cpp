// The C functions: arguments are checked, everything else happens in Object.
#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include "asr/aligner.h"
#include "base/clock.h"
#include "base/error.h"
#include "capi/object.h"
#include "model/describe.h"
#include "model/ggmm.h"
#include "nn/peak.h"

using chatllm::fail;
using chatllm::Object;
using chatllm::Status;

struct chatllm_obj : Object {};

struct chatllm_asr_run_s {
  std::shared_ptr<chatllm::Utterance> utterance;
  const long process = chatllm::current_process();
  bool forked() const { return process != chatllm::current_process(); }
};

namespace {

struct InitWords {
  std::mutex mutex;
  std::vector<std::string> words;
};

InitWords &process_words() {
  static InitWords *const words = new InitWords;  // never destroyed: objects may outlive static destruction
  return *words;
}

int thread_failure(int status, const char *message) {
  try {
    chatllm::thread_error().status = status;
    chatllm::thread_error().message = message;
  } catch (...) {
  }
  return status;
}

int no_object() {
  return thread_failure(CHATLLM_ASR_BAD_ARGUMENT, "the object is NULL");
}

// Runs body() beside the object's call; a failure is the thread's.
template <class F>
int beside(bool forked, F &&body) noexcept {
  if (forked) return thread_failure(CHATLLM_ASR_FORKED, chatllm::kForked);
  try {
    body();
    return CHATLLM_ASR_OK;
  } catch (const chatllm::Error &e) {
    return thread_failure(chatllm::c_status(e.status()), e.what());
  } catch (const std::bad_alloc &) {
    return thread_failure(CHATLLM_ASR_NO_MEMORY, chatllm::kMemoryIsShort);
  } catch (const std::system_error &) {
    return thread_failure(CHATLLM_ASR_NO_MEMORY, chatllm::kThreadsAreShort);
  } catch (const std::exception &e) {
    return thread_failure(CHATLLM_ASR_ERROR, e.what());
  }
}

const char *require(const char *text, const char *what) {
  if (text == nullptr) fail(Status::BadArgument, chatllm::format("%s is NULL", what));
  return text;
}

template <class F>
int call(chatllm_obj *obj, F &&body) {
  return obj == nullptr ? no_object() : obj->call(body);
}

template <class F>
int call_async(chatllm_obj *obj, F &&body) {
  return obj == nullptr ? no_object() : obj->call_async(body);
}

int unsupported(chatllm_obj *obj, const char *what) {
  return call(obj, [&] { Object::unsupported(what); });
}

int unsupported_async(chatllm_obj *obj, const char *what) {
  return call_async(obj, [what] { Object::unsupported(what); });
}

int c_kind(chatllm::Event::Kind kind) {
  switch (kind) {
    case chatllm::Event::Kind::Begin:
      return CHATLLM_ASR_EVENT_BEGIN;
    case chatllm::Event::Kind::Token:
      return CHATLLM_ASR_EVENT_TOKEN;
    case chatllm::Event::Kind::Step:
      return CHATLLM_ASR_EVENT_STEP;
    case chatllm::Event::Kind::End:
      break;
  }
  return CHATLLM_ASR_EVENT_END;
}

// Tells an event of the engine as the C API has it.
void tell(f_chatllm_asr_event f_event, void *user_data, const chatllm::Event &event) {
  chatllm_asr_token token{};
  chatllm_asr_timings timings{};
  chatllm_asr_event c{};
  c.size = sizeof c;
  c.kind = c_kind(event.kind);
  c.time_ns = event.token != nullptr ? event.token->time_ns : chatllm::now_ns();
  if (event.token != nullptr) token = c_token(*event.token), c.token = &token;
  if (event.timings != nullptr) timings = c_timings(*event.timings), c.timings = &timings;
  c.status = event.error != nullptr ? c_status(event.error->status()) : CHATLLM_ASR_OK;
  c.message = event.error != nullptr ? event.error->what() : "";
  f_event(user_data, &c);
}

// Hands a vector of floats over to the caller.
void hand_over(const std::vector<float> &values, float **data) {
  *data = static_cast<float *>(std::malloc(values.empty() ? 1 : values.size() * sizeof(float)));
  if (*data == nullptr) throw std::bad_alloc();
  std::copy(values.begin(), values.end(), *data);
}

void require_outputs(float **data, const int64_t *shape) {
  if (data == nullptr || shape == nullptr) fail(Status::BadArgument, "the place for the result is NULL");
  *data = nullptr;
}

std::vector<std::string> unit_texts(const char *const *units, int64_t count) {
  constexpr int64_t kMost = 1 << 24;
  if (count < 0 || count > kMost) fail(Status::BadArgument, "the number of units is out of range");
  if (count > 0 && units == nullptr) fail(Status::BadArgument, "the units are NULL");
  std::vector<std::string> texts;
  for (int64_t i = 0; i < count; ++i) texts.emplace_back(require(units[i], "a unit"));
  return texts;
}

}  // namespace

namespace chatllm {

std::vector<std::string> init_words() {
  std::lock_guard<std::mutex> lock(process_words().mutex);
  return process_words().words;
}

}  // namespace chatllm

extern "C" {

void API_CALL chatllm_append_init_param(const char *utf8_str) {
  if (utf8_str == nullptr) return;
  try {
    std::lock_guard<std::mutex> lock(process_words().mutex);
    process_words().words.emplace_back(utf8_str);
  } catch (...) {
  }
}

int API_CALL chatllm_init(void) {
  return CHATLLM_ASR_OK;
}

struct chatllm_obj *API_CALL chatllm_create(void) {
  try {
    if (!chatllm::prepare_to_throw()) return nullptr;
    chatllm::thread_error();  // is memory of this thread's own, too
    return new chatllm_obj;
  } catch (...) {
    return nullptr;
  }
}

int API_CALL chatllm_destroy(struct chatllm_obj *obj) {
  if (obj == nullptr) return no_object();
  if (const int refused = obj->acquire_for_destroy()) return refused;
  delete obj;
  chatllm::trim_heap();
  return CHATLLM_ASR_OK;
}

void API_CALL chatllm_append_param(struct chatllm_obj *obj, const char *utf8_str) {
  call(obj, [&] { obj->words.emplace_back(require(utf8_str, "the word")); });
}

int API_CALL chatllm_start(struct chatllm_obj *obj, f_chatllm_print f_print, f_chatllm_end f_end, void *user_data) {
  return call(obj, [&] { obj->start({f_print, f_end, user_data}); });
}

void API_CALL chatllm_set_gen_max_tokens(struct chatllm_obj *obj, int gen_max_tokens) {
  call(obj, [&] { obj->set_limit(gen_max_tokens < 0 ? -1 : gen_max_tokens); });
}

void API_CALL chatllm_restart(struct chatllm_obj *obj, const char *utf8_sys_prompt) {
  call(obj, [&] { obj->restart(utf8_sys_prompt); });
}

void API_CALL chatllm_multimedia_msg_prepare(struct chatllm_obj *obj) {
  call(obj, [&] { obj->clear_message(); });
}

int API_CALL chatllm_multimedia_msg_append(struct chatllm_obj *obj, const char *type, const char *utf8_str) {
  return call(obj, [&] { obj->append_to_message(require(type, "the type"), require(utf8_str, "the data")); });
}

int API_CALL chatllm_user_input(struct chatllm_obj *obj, const char *utf8_str) {
  return call(obj, [&] { obj->run_text(require(utf8_str, "the text")); });
}

int API_CALL chatllm_user_input_multimedia_msg(struct chatllm_obj *obj) {
  return call(obj, [&] { obj->run_message(); });
}

void API_CALL chatllm_history_append(struct chatllm_obj *obj, int, const char *) {
  unsupported(obj, "a history");
}
int API_CALL chatllm_history_append_multimedia_msg(struct chatllm_obj *obj, int) {
  return unsupported(obj, "a history");
}

int API_CALL chatllm_get_cursor(struct chatllm_obj *obj) {
  int cursor = -1;
  call(obj, [&] { cursor = static_cast<int>(obj->session().cursor()); });
  return cursor;
}

int API_CALL chatllm_set_cursor(struct chatllm_obj *obj, int pos) {
  return call(obj, [&] { obj->session().set_cursor(pos); });
}

int API_CALL chatllm_history_get_cursor(struct chatllm_obj *obj) {
  int cursor = -1;
  call(obj, [&] { cursor = obj->history_cursor(); });
  return cursor;
}

int API_CALL chatllm_history_set_cursor(struct chatllm_obj *obj, int pos) {
  int cursor = -1;
  call(obj, [&] { cursor = obj->set_history_cursor(pos); });
  return cursor;
}

int API_CALL chatllm_set_additional_args(struct chatllm_obj *obj, const char *utf8_str) {
  return call(obj, [&] { obj->set_argument(require(utf8_str, "the argument")); });
}

int API_CALL chatllm_set_ai_prefix(struct chatllm_obj *obj, const char *utf8_str) {
  return call(obj, [&] { obj->set_prefix(require(utf8_str, "the prefix")); });
}

int API_CALL chatllm_ai_continue(struct chatllm_obj *obj, const char *utf8_str) {
  return call(obj, [&] { obj->continue_answer(require(utf8_str, "the suffix")); });
}

int API_CALL chatllm_tool_input(struct chatllm_obj *obj, const char *) {
  return unsupported(obj, "tool input");
}
int API_CALL chatllm_tool_completion(struct chatllm_obj *obj, const char *) {
  return unsupported(obj, "tool completion");
}

int API_CALL chatllm_text_tokenize(struct chatllm_obj *obj, const char *utf8_str) {
  int count = -1;
  const int status = call(obj, [&] { count = obj->tokenize(require(utf8_str, "the text")); });
  return status == CHATLLM_ASR_OK ? count : -1;
}

int API_CALL chatllm_embedding(struct chatllm_obj *obj, const char *, int) {
  return unsupported(obj, "embedding");
}
int API_CALL chatllm_qa_rank(struct chatllm_obj *obj, const char *, const char *) {
  return unsupported(obj, "ranking");
}
int API_CALL chatllm_rag_select_store(struct chatllm_obj *obj, const char *) {
  return unsupported(obj, "a vector store");
}

void API_CALL chatllm_abort_generation(struct chatllm_obj *obj) {
  if (obj != nullptr) obj->abort();
}

void API_CALL chatllm_show_statistics(struct chatllm_obj *obj) {
  call(obj, [&] { obj->show_statistics(); });
}

int API_CALL chatllm_save_session(struct chatllm_obj *obj, const char *) {
  return unsupported(obj, "saving a session");
}
int API_CALL chatllm_load_session(struct chatllm_obj *obj, const char *) {
  return unsupported(obj, "loading a session");
}

int API_CALL chatllm_async_start(struct chatllm_obj *obj, f_chatllm_print f_print, f_chatllm_end f_end,
                                 void *user_data) {
  return call_async(obj, [=] { obj->start({f_print, f_end, user_data}); });
}

int API_CALL chatllm_async_user_input(struct chatllm_obj *obj, const char *utf8_str) {
  if (utf8_str == nullptr) return chatllm_user_input(obj, nullptr);
  try {
    return call_async(obj, [obj, text = std::string(utf8_str)] { obj->run_text(text); });
  } catch (...) {
    return CHATLLM_ASR_NO_MEMORY;
  }
}

int API_CALL chatllm_async_user_input_multimedia_msg(struct chatllm_obj *obj) {
  return call_async(obj, [obj] { obj->run_message(); });
}

int API_CALL chatllm_async_ai_continue(struct chatllm_obj *obj, const char *utf8_str) {
  if (utf8_str == nullptr) return chatllm_ai_continue(obj, nullptr);
  try {
    return call_async(obj, [obj, text = std::string(utf8_str)] { obj->continue_answer(text); });
  } catch (...) {
    return CHATLLM_ASR_NO_MEMORY;
  }
}

int API_CALL chatllm_async_tool_input(struct chatllm_obj *obj, const char *) {
  return unsupported_async(obj, "tool input");
}
int API_CALL chatllm_async_tool_completion(struct chatllm_obj *obj, const char *) {
  return unsupported_async(obj, "tool completion");
}
int API_CALL chatllm_async_embedding(struct chatllm_obj *obj, const char *, int) {
  return unsupported_async(obj, "embedding");
}
int API_CALL chatllm_async_qa_rank(struct chatllm_obj *obj, const char *, const char *) {
  return unsupported_async(obj, "ranking");
}
int API_CALL chatllm_get_async_result_int(struct chatllm_obj *obj) {
  return obj == nullptr ? no_object() : obj->async_result();
}

const char *API_CALL chatllm_get_token_vocab(struct chatllm_obj *obj, int *n_vocab, int *width) {
  const char *table = nullptr;
  call(obj, [&] { table = obj->token_vocab(n_vocab, width); });
  return table;
}

void API_CALL chatllm_set_lens_callback(struct chatllm_obj *, f_chatllm_lens_callback, void *) {}

const char *API_CALL chatllm_inspect_model(const char *utf8_path) {
  static thread_local std::string text;
  try {
    try {
      const chatllm::GgmmFile file(require(utf8_path, "the path"), false);
      text = chatllm::describe_file(file);
    } catch (const std::exception &e) {
      text = "{\"error\": " + chatllm::json_quote(e.what()) + "}";
    }
  } catch (...) {
    return "{\"error\": \"memory is short\"}";
  }
  return text.c_str();
}

void API_CALL chatllm_asr_set_token_callback(struct chatllm_obj *obj, f_chatllm_asr_token f_token, void *user_data) {
  call(obj, [&] {
    obj->on_token = f_token;
    obj->on_token_data = user_data;
  });
}

int API_CALL chatllm_asr_run(struct chatllm_obj *obj, const float *pcm, int64_t n_samples,
                             const chatllm_asr_options *options) {
  return call(obj, [&] { obj->run(pcm, n_samples, obj->settings(options)); });
}

int API_CALL chatllm_asr_get_timings(struct chatllm_obj *obj, chatllm_asr_timings *timings) {
  return call(obj, [&] {
    // The first version ended before wait_ms.
    if (timings == nullptr || timings->size < offsetof(chatllm_asr_timings, wait_ms))
      fail(Status::BadArgument, "the timings' size is not set: they come from another version of the header");
    chatllm_asr_timings all = c_timings(obj->session().timings());
    all.size = std::min<uint32_t>(timings->size, sizeof all);
    std::memcpy(timings, &all, all.size);
  });
}

int API_CALL chatllm_asr_log_mel(struct chatllm_obj *obj, const float *pcm, int64_t n_samples, float **data,
                                 int64_t shape[2]) {
  return call(obj, [&] {
    require_outputs(data, shape);
    hand_over(obj->recognizer()->log_mel(pcm, n_samples, shape), data);
  });
}

int API_CALL chatllm_asr_encode(struct chatllm_obj *obj, const float *pcm, int64_t n_samples, int attention,
                                float **data, int64_t shape[2]) {
  return call(obj, [&] {
    require_outputs(data, shape);
    hand_over(
        obj->recognizer()->encode(pcm, n_samples, attention == CHATLLM_ASR_FULL, shape, obj->session().abort_flag()),
        data);
  });
}

int API_CALL chatllm_asr_prefill_logits(struct chatllm_obj *obj, const float *pcm, int64_t n_samples,
                                        const chatllm_asr_options *options, float **data, int64_t shape[2]) {
  return call(obj, [&] {
    require_outputs(data, shape);
    hand_over(
        obj->recognizer()->prefill_logits(pcm, n_samples, obj->settings(options), shape, obj->session().abort_flag()),
        data);
  });
}

chatllm_asr_run_t *API_CALL chatllm_asr_submit(struct chatllm_obj *obj, const float *pcm, int64_t n_samples,
                                               const chatllm_asr_options *options, f_chatllm_asr_event f_event,
                                               void *user_data) {
  if (obj == nullptr) return no_object(), nullptr;
  std::unique_ptr<chatllm_asr_run_s> run;
  const int status = beside(obj->forked(), [&] {
    if (f_event == nullptr) fail(Status::BadArgument, "the callback for the events is NULL");
    run.reset(new chatllm_asr_run_s);
    std::vector<float> audio;
    if (pcm != nullptr && n_samples > 0) audio.assign(pcm, pcm + n_samples);
    run->utterance =
        obj->submit(std::move(audio), options, [=](const chatllm::Event &event) { tell(f_event, user_data, event); });
  });
  return status == CHATLLM_ASR_OK ? run.release() : nullptr;
}

int API_CALL chatllm_asr_feed(chatllm_asr_run_t *run, const float *pcm, int64_t n_samples, int last) {
  if (run == nullptr) return thread_failure(CHATLLM_ASR_BAD_ARGUMENT, "the run is NULL");
  return beside(run->forked(), [&] { run->utterance->feed(pcm, n_samples, last != 0); });
}

void API_CALL chatllm_asr_cancel(chatllm_asr_run_t *run) {
  if (run != nullptr && !run->forked()) run->utterance->cancel();
}

void API_CALL chatllm_asr_release(chatllm_asr_run_t *run) {
  if (run == nullptr || run->forked()) return;  // in the child of a fork its memory is the parent's copy
  run->utterance->detach();
  delete run;
}

int API_CALL chatllm_asr_last_status(void) {
  return chatllm::thread_error().status;
}

void API_CALL chatllm_asr_free(void *data) {
  std::free(data);
}

int API_CALL chatllm_asr_align(struct chatllm_obj *obj, const float *pcm, int64_t n_samples, const char *const *units,
                               int64_t n_units, int attention, double *times) {
  return call(obj, [&] {
    if (n_units > 0 && times == nullptr) fail(Status::BadArgument, "an output pointer is NULL");
    const std::vector<std::string> texts = unit_texts(units, n_units);
    const std::vector<double> found =
        obj->recognizer()->align(pcm, n_samples, texts, attention == CHATLLM_ASR_FULL, obj->session().abort_flag());
    std::copy(found.begin(), found.end(), times);
  });
}

int API_CALL chatllm_asr_align_scores(struct chatllm_obj *obj, const float *pcm, int64_t n_samples,
                                      const char *const *units, int64_t n_units, int attention, float **data,
                                      int64_t shape[2]) {
  return call(obj, [&] {
    require_outputs(data, shape);
    const std::vector<std::string> texts = unit_texts(units, n_units);
    hand_over(obj->recognizer()->align_scores(pcm, n_samples, texts, attention == CHATLLM_ASR_FULL, shape,
                                              obj->session().abort_flag()),
              data);
  });
}

int API_CALL chatllm_asr_repair_times(double *times, int64_t n) {
  if (n < 0 || (n > 0 && times == nullptr)) return CHATLLM_ASR_BAD_ARGUMENT;
  try {
    std::vector<double> all(times, times + n);
    chatllm::repair_times(&all);
    std::copy(all.begin(), all.end(), times);
    return CHATLLM_ASR_OK;
  } catch (const std::bad_alloc &) {
    return CHATLLM_ASR_NO_MEMORY;
  }
}

int64_t API_CALL chatllm_asr_prompt_ids(struct chatllm_obj *obj, int64_t n_samples, const chatllm_asr_options *options,
                                        int32_t *ids, int64_t capacity) {
  int64_t count = 0;
  const int status = call(obj, [&] {
    const std::vector<int32_t> prompt = obj->recognizer()->prompt_ids(n_samples, obj->settings(options));
    count = static_cast<int64_t>(prompt.size());
    if (ids != nullptr && capacity > 0)
      std::memcpy(ids, prompt.data(), static_cast<size_t>(std::min(count, capacity)) * sizeof(int32_t));
  });
  return status == CHATLLM_ASR_OK ? count : status;
}

const char *API_CALL chatllm_asr_last_error(struct chatllm_obj *obj) {
  return obj == nullptr ? chatllm::thread_error().message.c_str() : obj->last_error().c_str();
}

const char *API_CALL chatllm_asr_model_info(struct chatllm_obj *obj) {
  return obj == nullptr ? nullptr : obj->model_info();
}

const char *API_CALL chatllm_asr_kernel_sets(void) {
  return chatllm::kernel_names();
}

int API_CALL chatllm_asr_measure_machine(const char *kernels, int threads, chatllm_asr_machine *machine) {
  try {
    try {
      if (machine == nullptr || machine->size < sizeof(chatllm_asr_machine))
        fail(Status::BadArgument, "the machine's size is not set: it comes from another version of the header");
      chatllm::ThreadPool pool(chatllm::thread_count(threads));
      const chatllm::Roofline r = chatllm::measure_roofline(chatllm::choose_kernels(kernels), pool);
      *machine = {sizeof(chatllm_asr_machine), pool.size(), r.int8_ops, r.bf16_ops, r.float_ops, r.read_bytes};
      return CHATLLM_ASR_OK;
    } catch (const chatllm::Error &e) {
      return thread_failure(chatllm::c_status(e.status()), e.what());
    } catch (const std::exception &) {
      return thread_failure(CHATLLM_ASR_NO_MEMORY, "memory or threads are short");
    }
  } catch (...) {
    return CHATLLM_ASR_NO_MEMORY;
  }
}

const char *API_CALL chatllm_asr_version(void) {
  return "0.1.0";
}

}  // extern "C"
