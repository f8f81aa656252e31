// Fuzz target: the C API as a program of calls that the input spells: two objects, a few runs, callbacks that call
// back, threads beside it. What the header promises is checked after each call.
#include <atomic>
#include <chrono>
#include <climits>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "fuzz.h"

namespace {

constexpr int64_t kMostSamples = 16000;
constexpr int kObjects = 2, kRuns = 4;

const std::vector<float> &sound() {
  static const auto *const pcm = new std::vector<float>(test::sound(static_cast<double>(kMostSamples) / 16000));
  return *pcm;
}

void nap() {
  std::this_thread::sleep_for(std::chrono::microseconds(200));
}

class Program;

// One submitted utterance and what its events said.
struct Run {
  Program *program = nullptr;
  struct chatllm_obj *obj = nullptr;
  std::mutex mutex;
  chatllm_asr_run_t *handle = nullptr;
  bool given_back = false;  // chatllm_asr_release has returned
  int begins = 0, ends = 0;
  uint8_t action = 0;  // what its callback does, and at which event
  int events = 0;
};

class Program {
 public:
  Program(const uint8_t *data, size_t size) : choices_(data, size) {}

  void run() {
    for (int calls = 0; calls < 40 && !choices_.done(); ++calls) call();
    join();
    for (Run *&run : slots_) {
      if (run != nullptr && choices_.below(2) == 0) release(run);
      run = nullptr;
    }
    for (int i = 0; i < kObjects; ++i) destroy(i);
    for (Run &run : runs_) {  // handles outlive the objects
      if (run.handle == nullptr) continue;
      EXPECT(run.ends == 1);
      chatllm_asr_cancel(run.handle);
      EXPECT(chatllm_asr_feed(run.handle, sound().data(), 100, 0) != CHATLLM_ASR_OK);
      release(&run);
    }
  }

  void on_event(Run *run, const chatllm_asr_event *event) {
    chatllm_asr_run_t *handle = nullptr;
    int count = 0;
    {
      std::lock_guard<std::mutex> lock(run->mutex);
      EXPECT(!run->given_back);
      EXPECT(run->ends == 0);
      EXPECT(event->size == sizeof *event);
      count = run->events++;
      switch (event->kind) {
        case CHATLLM_ASR_EVENT_BEGIN:
          EXPECT(run->begins++ == 0);
          break;
        case CHATLLM_ASR_EVENT_TOKEN:
          EXPECT(run->begins == 1 && event->token != nullptr && event->token->text_len >= 0);
          break;
        case CHATLLM_ASR_EVENT_STEP:
          EXPECT(run->begins == 1 && event->timings != nullptr);
          break;
        default:
          EXPECT(event->kind == CHATLLM_ASR_EVENT_END);
          ++run->ends;
          EXPECT(event->timings != nullptr && event->message != nullptr);
          EXPECT((event->status == CHATLLM_ASR_OK) == (*event->message == '\0'));
          fuzz::told(event->message);
      }
      handle = run->handle;
    }
    if (count != run->action / 8 % 4) return;
    switch (run->action % 8) {
      case 1:
        chatllm_asr_cancel(handle);
        break;
      case 2:
        if (handle != nullptr) chatllm_asr_feed(handle, sound().data(), 800, run->action >= 128);
        break;
      case 3:
        with_first(run, [this](struct chatllm_obj *obj) { submit_from_callback(obj); });
        break;
      case 4:
        with_first(run, [](struct chatllm_obj *obj) { chatllm_abort_generation(obj); });
        break;
      default:
        break;
    }
  }

  void on_print(struct chatllm_obj *current, int type, const char *text) {
    fuzz::told(text);
    if (type != PRINT_CHAT_CHUNK) return;
    switch (print_action_ % 4) {  // of an object that is at work
      case 1:
        chatllm_abort_generation(current);
        break;
      case 2:
        EXPECT(chatllm_user_input(current, "x") == CHATLLM_ASR_BUSY);
        EXPECT(chatllm_destroy(current) == CHATLLM_ASR_BUSY);
        EXPECT(chatllm_start(current, nullptr, nullptr, nullptr) == CHATLLM_ASR_BUSY);
        break;
      default:
        break;
    }
  }

 private:
  // What an object's callback is told.
  struct Place {
    Program *program;
    struct chatllm_obj *obj;
  };

  static void print(void *place, int type, const char *text) {
    const Place &at = *static_cast<Place *>(place);
    at.program->on_print(at.obj, type, text);
  }
  static void event(void *run, const chatllm_asr_event *event) {
    static_cast<Run *>(run)->program->on_event(static_cast<Run *>(run), event);
  }
  static void token(void *, const chatllm_asr_token *token) { EXPECT(token->text != nullptr); }

  int64_t samples() {
    static constexpr int64_t kCounts[] = {0, 1, 100, 159, 160, 399, 400, 1600, 7999, 8000, 12000, kMostSamples, -1};
    return choices_.of(kCounts);
  }
  // Sound, sound that is none, or no place at all.
  const float *pcm() {
    static const auto *const bad = new std::vector<float>(static_cast<size_t>(kMostSamples), NAN);
    const size_t kind = choices_.below(8);
    return kind == 0 ? nullptr : kind == 1 ? bad->data() : sound().data();
  }
  const char *text() {
    static const std::string &path = fuzz::kept_file(fuzz::wav(test::sound(0.1)), ".wav");
    static const std::string &tag = *new std::string("{{audio:" + path + "}}a b \xE4\xBD\xA0");
    static const char *const texts[] = {nullptr,
                                        "",
                                        "x",
                                        "English",
                                        "Chinese",
                                        "Klingon",
                                        "auto",
                                        tag.c_str(),
                                        "{{audio:/nowhere.wav}}",
                                        "{{",
                                        "{{image:x}}",
                                        "\xFF\xC3\x28",
                                        "text",
                                        "audio",
                                        "UklGRg==",
                                        "language=English",
                                        "delimiter=|",
                                        "format=json",
                                        "=",
                                        "ab\nab <asr_text>"};
    return choices_.of(texts);
  }
  const chatllm_asr_options *options() {
    const uint8_t kind = choices_.byte();
    if (kind % 4 == 0) return nullptr;
    options_ = {};
    options_.size = kind % 16 == 1 ? 0 : kind % 16 == 2 ? 8 : kind % 16 == 3 ? 4096 : sizeof options_;
    if (options_.size == 4096) options_.size = sizeof options_;  // a newer caller's has more behind it
    options_.max_new_tokens = static_cast<int32_t>(choices_.below(6)) - 1;
    options_.attention = choices_.below(3);
    options_.ignore_stop = kind & 16;
    options_.live = kind & 32 ? 1 : 0;
    if (kind & 64) options_.language = text();
    if (kind & 128) options_.context = text(), options_.prefix = text();
    return &options_;
  }

  void create(int i) {
    if (objects_[i] != nullptr) return;
    objects_[i] = chatllm_create();
    EXPECT(objects_[i] != nullptr);
    places_[i] = {this, objects_[i]};
  }

  // An object that is being destroyed may be used by the callbacks of its own runs alone.
  template <class F>
  void with_first(const Run *run, const F &use) {
    std::unique_lock<std::mutex> lock(first_, std::defer_lock);
    if (run->obj != objects_[0] && !lock.try_lock()) return;
    use(objects_[0]);
  }

  void destroy(int i) {
    struct chatllm_obj *const obj = objects_[i];
    if (obj == nullptr) return;
    join();
    std::unique_lock<std::mutex> lock(first_, std::defer_lock);
    if (i == 0) lock.lock();
    for (int waits = 0; chatllm_destroy(obj) == CHATLLM_ASR_BUSY; ++waits) {
      EXPECT(waits < 100000);
      nap();
    }
    objects_[i] = nullptr;
  }

  void words(struct chatllm_obj *obj) {
    static const char *const kWords[][3] = {{"-m", nullptr, nullptr},
                                            {"-n", "2", nullptr},
                                            {"--batch", "2", nullptr},
                                            {"--batch", "1", nullptr},
                                            {"-c", "64", nullptr},
                                            {"-c", "20", nullptr},
                                            {"--max_new_tokens", "2", nullptr},
                                            {"--kernels", "generic", nullptr},
                                            {"--attention", "full", nullptr},
                                            {"--set", "language", "English"},
                                            {"--set", "language", "x"},
                                            {"--ai_prefix", "a", nullptr},
                                            {"-s", "ab", nullptr},
                                            {"--nonsense", nullptr, nullptr},
                                            {"--batch", "0", nullptr},
                                            {"--multimedia_file_tags", "{{", "}}"},
                                            {"-m", "/nowhere", nullptr},
                                            {"--kernels", "none", nullptr}};
    const auto &chosen = choices_.of(kWords);
    for (const char *word : chosen)
      if (word != nullptr) chatllm_append_param(obj, word);
    if (chosen[0][1] == 'm' && chosen[1] == nullptr)
      chatllm_append_param(obj, (choices_.below(8) ? fuzz::small_recognizer() : fuzz::small_aligner()).c_str());
  }

  void start(int i, bool async) {
    static const char *const good[] = {"-n", "1", "--max_new_tokens", "3", "--multimedia_file_tags", "{{", "}}", "-m"};
    create(i);
    if (choices_.below(4) != 0) {
      for (const char *word : good) chatllm_append_param(objects_[i], word);
      chatllm_append_param(objects_[i], (choices_.below(8) ? fuzz::small_recognizer() : fuzz::small_aligner()).c_str());
    }
    if (async)
      fuzz::checked(chatllm_async_start(objects_[i], print, nullptr, &places_[i]), objects_[i]);
    else
      fuzz::checked(chatllm_start(objects_[i], print, nullptr, &places_[i]), objects_[i]);
  }

  void wait(struct chatllm_obj *obj) {
    for (int waits = 0; obj != nullptr && chatllm_get_async_result_int(obj) == INT_MIN; ++waits) {
      EXPECT(waits < 100000);
      nap();
    }
  }

  Run *submit(struct chatllm_obj *obj, const float *pcm, int64_t count, const chatllm_asr_options *options,
              uint8_t action) {
    Run *run = nullptr;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (runs_.size() >= 16) return nullptr;
      runs_.emplace_back();
      run = &runs_.back();
      run->program = this;
      run->obj = obj;
      run->action = action;
    }
    chatllm_asr_run_t *handle = chatllm_asr_submit(obj, pcm, count, options, event, run);
    if (handle == nullptr) {
      EXPECT(chatllm_asr_last_status() < 0 && *chatllm_asr_last_error(nullptr) != '\0');
      EXPECT(run->events == 0);
      return nullptr;
    }
    std::lock_guard<std::mutex> lock(run->mutex);
    run->handle = handle;
    return run;
  }

  void submit_from_callback(struct chatllm_obj *obj) {
    chatllm_asr_options options{};
    options.size = sizeof options;
    options.max_new_tokens = 1;
    submit(obj, sound().data(), 1600, &options, 0);
  }

  void release(Run *run) {
    chatllm_asr_run_t *handle = nullptr;
    {
      std::lock_guard<std::mutex> lock(run->mutex);
      handle = run->handle;
      run->handle = nullptr;
    }
    if (handle == nullptr) return;
    chatllm_asr_release(handle);
    std::lock_guard<std::mutex> lock(run->mutex);
    run->given_back = true;
  }

  void join() {
    for (std::thread &thread : threads_) thread.join();
    threads_.clear();
  }

  // Calls of another thread that may come at any time.
  void beside(struct chatllm_obj *obj, Run *run) {
    if (threads_.size() >= 3) return;
    chatllm_asr_run_t *handle = run == nullptr ? nullptr : run->handle;
    const uint8_t what = choices_.byte();
    threads_.emplace_back([=] {
      for (int i = 0; i < 3; ++i) {
        if (what & 1) chatllm_asr_cancel(handle);
        if (what & 2) chatllm_asr_feed(handle, sound().data(), 700, 0);
        if (what & 4) chatllm_abort_generation(obj);
        if (what & 8) chatllm_get_async_result_int(obj);
        if (what & 16) submit(obj, sound().data(), 1600, nullptr, what);
        if (what & 32) chatllm_asr_last_status();
        if (what & 64) nap();
      }
    });
  }

  void call() {
    const int i = static_cast<int>(choices_.below(2));
    const size_t which = choices_.below(48);
    struct chatllm_obj *const obj = choices_.below(16) == 0 ? nullptr : objects_[i].load();
    Run *&slot = slots_[choices_.below(kRuns)];
    chatllm_asr_run_t *const handle = slot == nullptr ? nullptr : slot->handle;
    float *data = nullptr;
    int64_t shape[2];
    switch (which) {
      case 0:
        destroy(i);
        break;
      case 1:
        create(i);
        break;
      case 2:
        words(obj);
        break;
      case 3:
      case 4:
      case 5:
        start(i, false);
        break;
      case 6:
        start(i, true);
        break;
      case 7:
        wait(obj);
        break;
      case 8:
        chatllm_set_gen_max_tokens(obj, static_cast<int>(choices_.below(6)) - 2);
        break;
      case 9:
        chatllm_restart(obj, text());
        break;
      case 10:
        chatllm_multimedia_msg_prepare(obj);
        break;
      case 11: {
        const char *type = text(), *content = text();
        fuzz::checked(chatllm_multimedia_msg_append(obj, type, content), obj);
        break;
      }
      case 12:
        fuzz::checked(chatllm_user_input(obj, text()), obj);
        break;
      case 13:
        fuzz::checked(chatllm_user_input_multimedia_msg(obj), obj);
        break;
      case 14:
        chatllm_async_user_input(obj, text());
        break;
      case 15:
        chatllm_async_user_input_multimedia_msg(obj);
        break;
      case 16:
        fuzz::checked(chatllm_ai_continue(obj, text()), obj);
        break;
      case 17:
        chatllm_async_ai_continue(obj, text());
        break;
      case 18:
        fuzz::checked(chatllm_set_additional_args(obj, text()), obj);
        break;
      case 19:
        chatllm_set_ai_prefix(obj, text());
        break;
      case 20:
        EXPECT(chatllm_text_tokenize(obj, text()) >= (obj == nullptr ? INT_MIN : -1));
        break;
      case 21:
        chatllm_set_cursor(obj, static_cast<int>(choices_.below(80)) - 1);
        break;
      case 22:
        chatllm_get_cursor(obj);
        chatllm_history_get_cursor(obj);
        break;
      case 23:
        chatllm_history_set_cursor(obj, static_cast<int>(choices_.below(4)) - 1);
        break;
      case 24:
        chatllm_abort_generation(obj);
        break;
      case 25:
        chatllm_show_statistics(obj);
        break;
      case 26: {
        int count = -1, width = -1;
        const bool told = choices_.below(2) != 0;
        if (chatllm_get_token_vocab(obj, told ? &count : nullptr, told ? &width : nullptr) != nullptr && told)
          EXPECT(count > 0 && width > 0);
        break;
      }
      case 27:
        chatllm_asr_set_token_callback(obj, choices_.below(2) ? token : nullptr, this);
        break;
      case 28:
      case 29: {
        const float *audio = pcm();
        const int64_t count = samples();
        fuzz::checked(chatllm_asr_run(obj, audio, count, options()), obj);
        break;
      }
      case 30: {
        chatllm_asr_timings timings{};
        static constexpr uint32_t kSizes[] = {0, 8, sizeof(chatllm_asr_timings) - 8, sizeof(chatllm_asr_timings), 4096};
        timings.size = choices_.of(kSizes);
        if (chatllm_asr_get_timings(obj, &timings) == CHATLLM_ASR_OK) EXPECT(timings.size <= sizeof timings);
        chatllm_asr_get_timings(obj, nullptr);
        break;
      }
      case 31:
      case 32:
      case 33:
      case 34: {
        if (slot != nullptr && slot->handle != nullptr) break;  // it stays until its turn at the end
        const float *audio = pcm();
        const int64_t count = samples();
        const chatllm_asr_options *chosen = options();
        slot = submit(obj, audio, count, chosen, choices_.byte());
        break;
      }
      case 35:
      case 36: {
        const float *audio = pcm();
        int64_t count = samples();
        const int status = chatllm_asr_feed(handle, audio, count, choices_.below(4) == 0);
        if (audio == nullptr && count != 0) EXPECT(status != CHATLLM_ASR_OK);
        break;
      }
      case 37:
        chatllm_asr_cancel(handle);
        break;
      case 38:
        join();
        if (slot != nullptr) release(slot);
        slot = nullptr;
        break;
      case 39: {
        const float *audio = pcm();
        const int64_t count = samples();
        fuzz::checked(chatllm_asr_log_mel(obj, audio, count, choices_.below(8) ? &data : nullptr, shape), obj);
        break;
      }
      case 40: {
        const float *audio = pcm();
        const int64_t count = samples();
        fuzz::checked(chatllm_asr_encode(obj, audio, count, static_cast<int>(choices_.below(3)), &data, shape), obj);
        break;
      }
      case 41: {
        const float *audio = pcm();
        const int64_t count = samples();
        fuzz::checked(chatllm_asr_prefill_logits(obj, audio, count, options(), &data, shape), obj);
        break;
      }
      case 42: {
        const char *const units[] = {text(), text(), "a"};
        double times[6] = {};
        const float *audio = pcm();
        const int64_t count = samples(), n = static_cast<int64_t>(choices_.below(5)) - 1;
        fuzz::checked(chatllm_asr_align(obj, audio, count, n == 3 ? nullptr : units, n, 0, times), obj);
        fuzz::checked(chatllm_asr_align_scores(obj, audio, count, units, n, 1, &data, shape), obj);
        break;
      }
      case 43: {
        int32_t ids[8];
        const int64_t count = samples();
        chatllm_asr_prompt_ids(obj, count, options(), choices_.below(2) ? ids : nullptr, 8);
        break;
      }
      case 44:  // the sentence is that of the last call, so none may be under way
        if (chatllm_get_async_result_int(obj) == INT_MIN) break;
        chatllm_asr_last_error(choices_.below(2) ? obj : nullptr);
        chatllm_asr_model_info(obj);
        break;
      case 45:
        print_action_ = choices_.byte();
        break;
      case 46:
        beside(obj, slot);
        break;
      default:  // what this engine has no use for
        chatllm_history_append(obj, 0, text());
        EXPECT(chatllm_history_append_multimedia_msg(obj, 0) != CHATLLM_ASR_OK);
        EXPECT(chatllm_tool_input(obj, text()) != CHATLLM_ASR_OK);
        EXPECT(chatllm_embedding(obj, text(), 0) != CHATLLM_ASR_OK);
        EXPECT(chatllm_save_session(obj, text()) != CHATLLM_ASR_OK);
        chatllm_async_embedding(obj, text(), 0);
        chatllm_set_lens_callback(obj, nullptr, nullptr);
        EXPECT(chatllm_asr_measure_machine(text(), 1, nullptr) != CHATLLM_ASR_OK);
        EXPECT(chatllm_asr_repair_times(nullptr, samples() > 0 ? 3 : -1) != CHATLLM_ASR_OK);
    }
    chatllm_asr_free(data);
  }

  fuzz::Choices choices_;
  chatllm_asr_options options_{};
  std::atomic<struct chatllm_obj *> objects_[kObjects]{};
  Run *slots_[kRuns] = {};
  std::mutex mutex_;  // of runs_
  std::mutex first_;  // of the first object's life
  std::deque<Run> runs_;
  std::vector<std::thread> threads_;
  Place places_[kObjects] = {};
  std::atomic<uint8_t> print_action_{0};
};

// Keeps the small models loaded: a start is then a matter of microseconds.
void keep(const std::string &path) {
  struct chatllm_obj *obj = chatllm_create();
  for (const char *word : {"-n", "1", "-m", path.c_str()}) chatllm_append_param(obj, word);
  EXPECT(chatllm_start(obj, nullptr, nullptr, nullptr) == CHATLLM_ASR_OK);
  static std::vector<struct chatllm_obj *> *const kept = new std::vector<struct chatllm_obj *>;
  kept->push_back(obj);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const bool kept = [] {
    keep(fuzz::small_recognizer());
    keep(fuzz::small_aligner());
    return true;
  }();
  EXPECT(kept);
  Program(data, size).run();
  return 0;
}
