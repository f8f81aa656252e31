#include "shim.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "platform.h"

namespace {

struct Run;

struct Record {
  q3a_event event{};
  std::string text;
};

Record record_of(int kind, int64_t time_ns, int32_t id, const char *text, size_t text_len) {
  Record record;
  record.event.kind = kind;
  record.event.time_ns = time_ns;
  record.event.id = id;
  if (text_len > 0) record.text.assign(text, text_len);
  return record;
}

// Hands a record out: the event points into `kept`, which lives until the next one is handed out.
int hand_out(Record record, Record &kept, q3a_event *event) {
  kept = std::move(record);
  *event = kept.event;
  event->text = kept.text.data();
  event->text_len = static_cast<int32_t>(kept.text.size());
  return event->kind;
}

// One chatllm object. Shared by its handle and by its runs.
struct Machine {
  explicit Machine(const q3a_api *table) : api(table), process(platform::process()) {}

  bool forked() const { return platform::process() != process; }
  bool plain() const { return api->asr_submit == nullptr; }

  const q3a_api *const api;
  const int64_t process;
  struct chatllm_obj *object = nullptr;

  std::mutex mutex;  // guards all below; held while the engine is called only where that neither waits nor calls back
  std::condition_variable changed;
  bool started = false;
  std::set<std::shared_ptr<Run>> runs;  // that have begun and are not freed
  int64_t ended = 0;                    // runs, since the start
  int submitting = 0;                   // threads inside chatllm_asr_submit
  std::deque<Record> lines;
  Record line_kept;

  // Of a library with upstream's API only.
  platform::BigThread worker;
  std::deque<std::shared_ptr<Run>> waiting;
  std::shared_ptr<Run> current;
  bool leaving = false;
};

// One utterance. Shared by its handle, and by the machine while it has begun.
struct Run {
  explicit Run(std::shared_ptr<Machine> m) : machine(std::move(m)) {}

  void push(Record record) noexcept;
  void end(int64_t time_ns, int status, const char *message, const chatllm_asr_timings *measured = nullptr) noexcept;
  bool wanted_to_stop() {
    std::lock_guard<std::mutex> lock(mutex);
    return cancelled;
  }

  const std::shared_ptr<Machine> machine;
  chatllm_asr_run_t *engine = nullptr;  // written by the thread that submits; released by free or destroy

  std::mutex mutex;  // guards all below
  std::condition_variable changed;
  std::deque<Record> events;
  Record last;  // the end
  Record kept;
  bool begun = false, ended = false, cancelled = false, lost = false;
  chatllm_asr_timings timings{};

  // For a library with upstream's API only.
  std::string input, context;
  bool has_context = false;
  int max_new_tokens = -1;
};

void Run::push(Record record) noexcept {
  std::lock_guard<std::mutex> lock(mutex);
  try {
    events.push_back(std::move(record));
  } catch (const std::bad_alloc &) {
    lost = true;
  }
  changed.notify_all();
}

void Run::end(int64_t time_ns, int status, const char *message, const chatllm_asr_timings *measured) noexcept {
  {
    std::lock_guard<std::mutex> lock(mutex);
    if (ended) return;
    timings = {};
    timings.size = sizeof timings;
    if (status == 0 && cancelled) timings.finish = CHATLLM_ASR_FINISH_ABORT;  // it may never have begun
    if (measured != nullptr) {
      std::memcpy(&timings, measured, std::min<size_t>(measured->size, sizeof timings));
    }
    if (lost && status == 0) status = CHATLLM_ASR_NO_MEMORY;
    try {
      last = record_of(Q3A_END, time_ns, status, message, message != nullptr ? std::strlen(message) : 0);
    } catch (const std::bad_alloc &) {  // without memory for its sentence, a run still ends
      last = {};
      last.event.kind = Q3A_END;
      last.event.time_ns = time_ns;
      last.event.id = status;
    }
    ended = true;
    changed.notify_all();
  }
  std::lock_guard<std::mutex> lock(machine->mutex);
  ++machine->ended;
  machine->changed.notify_all();
}

// ---- callbacks, in the engine's threads ----

Record record_of(const chatllm_asr_token &token) {
  Record record = record_of(Q3A_TOKEN, token.time_ns, token.id, token.text,
                            token.text_len > 0 ? static_cast<size_t>(token.text_len) : 0);
  record.event.logprob = token.logprob;
  record.event.special = token.special;
  return record;
}

void on_event(void *user_data, const chatllm_asr_event *event) {
  Run *run = static_cast<Run *>(user_data);
  try {
    if (event->kind == CHATLLM_ASR_EVENT_TOKEN) {
      run->push(record_of(*event->token));
    } else if (event->kind == CHATLLM_ASR_EVENT_STEP) {
      {
        std::lock_guard<std::mutex> lock(run->mutex);
        std::memcpy(&run->timings, event->timings, std::min<size_t>(event->timings->size, sizeof run->timings));
      }
      run->push(record_of(Q3A_STEP, event->time_ns, 0, nullptr, 0));
    } else if (event->kind == CHATLLM_ASR_EVENT_END) {
      run->end(event->time_ns, event->status, event->message, event->timings);
    }
  } catch (const std::bad_alloc &) {
    std::lock_guard<std::mutex> lock(run->mutex);
    run->lost = true;
  }
}

// What upstream's API prints: while a run goes on, its text and its lines; before, the lines of the start.
void on_print(void *user_data, int print_type, const char *utf8_str) {
  Machine *machine = static_cast<Machine *>(user_data);
  const int64_t now = platform::now_ns();
  const size_t length = utf8_str != nullptr ? std::strlen(utf8_str) : 0;
  std::shared_ptr<Run> run;
  try {
    std::unique_lock<std::mutex> lock(machine->mutex);
    run = machine->current;
    if (run == nullptr) {
      if (!machine->started) machine->lines.push_back(record_of(Q3A_LINE, now, print_type, utf8_str, length));
      return;
    }
    lock.unlock();
    if (print_type == PRINT_CHAT_CHUNK)
      run->push(record_of(Q3A_CHUNK, now, -1, utf8_str, length));
    else
      run->push(record_of(Q3A_LINE, now, print_type, utf8_str, length));
  } catch (const std::bad_alloc &) {
    if (run == nullptr) return;
    std::lock_guard<std::mutex> lock(run->mutex);
    run->lost = true;
    return;
  }
  // An abort that came before the library had begun the run would be forgotten: it is repeated at each sign of life.
  if (run->wanted_to_stop()) machine->api->abort_generation(machine->object);
}

void on_end(void *) {}  // the return of the blocking call is the end

// ---- runs of a library with upstream's API only: one after the other ----

void run_plain(Machine &machine, Run &run) {
  const q3a_api &api = *machine.api;
  run.push(record_of(Q3A_BEGIN, platform::now_ns(), 0, nullptr, 0));
  api.restart(machine.object, run.has_context ? run.context.c_str() : nullptr);
  api.set_gen_max_tokens(machine.object, run.max_new_tokens);
  const int status = run.wanted_to_stop() ? 0 : api.user_input(machine.object, run.input.c_str());
  {
    std::lock_guard<std::mutex> lock(machine.mutex);
    machine.current = nullptr;
  }
  run.end(platform::now_ns(), status, nullptr);
}

void work(Machine &machine) {
  for (;;) {
    std::shared_ptr<Run> run;
    {
      std::unique_lock<std::mutex> lock(machine.mutex);
      machine.changed.wait(lock, [&] { return machine.leaving || !machine.waiting.empty(); });
      if (machine.waiting.empty()) return;
      run = machine.current = machine.waiting.front();
      machine.waiting.pop_front();
    }
    try {
      run_plain(machine, *run);
    } catch (const std::bad_alloc &) {
      run->end(platform::now_ns(), CHATLLM_ASR_NO_MEMORY, nullptr);
    }
  }
}

void cancel(const std::shared_ptr<Run> &run) {
  Machine &machine = *run->machine;
  {
    std::lock_guard<std::mutex> lock(run->mutex);
    run->cancelled = true;
    if (!run->begun || run->ended) return;
  }
  if (!machine.plain()) {
    std::lock_guard<std::mutex> lock(machine.mutex);  // the engine's handle must not be released meanwhile
    if (run->engine != nullptr) machine.api->asr_cancel(run->engine);
    return;
  }
  bool waits = false, runs = false;
  {
    std::lock_guard<std::mutex> lock(machine.mutex);
    const auto place = std::find(machine.waiting.begin(), machine.waiting.end(), run);
    if ((waits = place != machine.waiting.end())) machine.waiting.erase(place);
    runs = machine.current == run;
  }
  if (waits) run->end(platform::now_ns(), 0, nullptr);
  if (runs) machine.api->abort_generation(machine.object);
}

bool wait_end(Run &run, int timeout_ms) {
  std::unique_lock<std::mutex> lock(run.mutex);
  return run.changed.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return run.ended || !run.begun; });
}

// The machine forgets a run: no event comes to it from then on.
void forget(const std::shared_ptr<Run> &run) {
  Machine &machine = *run->machine;
  chatllm_asr_run_t *engine = nullptr;
  {
    std::lock_guard<std::mutex> lock(machine.mutex);
    if (machine.runs.erase(run) > 0) std::swap(engine, run->engine);
  }
  if (engine == nullptr) return;
  machine.api->asr_release(engine);
  run->end(platform::now_ns(), 0, nullptr);  // for who waits: the engine says nothing more
}

// Ends what begin() has begun: the machine may be destroyed from then on.
struct Submission {
  Machine &machine;
  ~Submission() {
    std::lock_guard<std::mutex> lock(machine.mutex);
    --machine.submitting;
    machine.changed.notify_all();
  }
};

// Marks a run as begun; false when the machine takes none, which is then the run's end. Else a Submission must follow.
bool begin(const std::shared_ptr<Run> &run) {
  Machine &machine = *run->machine;
  bool open;
  {
    std::lock_guard<std::mutex> lock(run->mutex);
    run->begun = true;
  }
  {
    std::lock_guard<std::mutex> lock(machine.mutex);
    open = machine.started && !machine.leaving;
    if (open) {
      machine.runs.insert(run);
      ++machine.submitting;
    }
  }
  if (!open)
    run->end(platform::now_ns(), CHATLLM_ASR_NOT_STARTED, "the model was closed before this call could use it");
  return open;
}

}  // namespace

struct q3a_machine {
  std::shared_ptr<Machine> machine;
};

struct q3a_run {
  std::shared_ptr<Run> run;
};

q3a_machine *q3a_new(const q3a_api *api) {
  try {
    auto handle = std::make_unique<q3a_machine>();
    handle->machine = std::make_shared<Machine>(api);
    handle->machine->object = api->create();
    return handle->machine->object != nullptr ? handle.release() : nullptr;
  } catch (const std::bad_alloc &) {
    return nullptr;
  }
}

int q3a_start(q3a_machine *handle) {
  Machine &machine = *handle->machine;
  const int status = machine.api->start(machine.object, on_print, on_end, &machine);
  if (status != 0) return status;
  if (machine.plain() && !machine.worker.start([&machine] { work(machine); })) return CHATLLM_ASR_NO_MEMORY;
  std::lock_guard<std::mutex> lock(machine.mutex);
  machine.started = true;
  return 0;
}

int q3a_next_line(q3a_machine *handle, q3a_event *event) {
  Machine &machine = *handle->machine;
  std::memset(event, 0, sizeof *event);
  std::lock_guard<std::mutex> lock(machine.mutex);
  if (machine.lines.empty()) return Q3A_NONE;
  Record record = std::move(machine.lines.front());
  machine.lines.pop_front();
  return hand_out(std::move(record), machine.line_kept, event);
}

struct chatllm_obj *q3a_object(q3a_machine *handle) {
  return handle->machine->object;
}

int q3a_destroy_object(q3a_machine *handle) {
  Machine &machine = *handle->machine;
  if (machine.forked()) return CHATLLM_ASR_FORKED;
  if (machine.object == nullptr) return 0;
  {
    std::unique_lock<std::mutex> lock(machine.mutex);
    machine.leaving = true;
    machine.changed.notify_all();
    machine.changed.wait(lock, [&] { return machine.submitting == 0; });
  }
  std::set<std::shared_ptr<Run>> runs;
  {
    std::lock_guard<std::mutex> lock(machine.mutex);
    runs = machine.runs;
  }
  for (const auto &run : runs) cancel(run);
  for (const auto &run : runs) {
    while (!wait_end(*run, 100)) cancel(run);  // again: a library may have forgotten the first time
    forget(run);
  }
  machine.worker.join();
  const int status = machine.api->destroy(machine.object);
  if (status != 0) return status;
  machine.object = nullptr;
  platform::release_memory();
  return 0;
}

void q3a_free(q3a_machine *handle) {
  if (!handle->machine->forked()) delete handle;  // a condition that a fork has copied may seem to be waited for
}

q3a_run *q3a_new_run(q3a_machine *machine) {
  try {
    auto handle = std::make_unique<q3a_run>();
    handle->run = std::make_shared<Run>(machine->machine);
    return handle.release();
  } catch (const std::bad_alloc &) {
    return nullptr;
  }
}

void q3a_submit(q3a_run *handle, const float *pcm, int64_t n_samples, const chatllm_asr_options *options) {
  Run &run = *handle->run;
  Machine &machine = *run.machine;
  if (machine.forked() || !begin(handle->run)) return;
  const Submission submission{machine};
  try {
    run.push(record_of(Q3A_BEGIN, platform::now_ns(), 0, nullptr, 0));
    chatllm_asr_run_t *engine = machine.api->asr_submit(machine.object, pcm, n_samples, options, on_event, &run);
    if (engine == nullptr) {
      run.end(platform::now_ns(), machine.api->asr_last_status(), machine.api->asr_last_error(nullptr));
      return;
    }
    {
      std::lock_guard<std::mutex> lock(machine.mutex);
      run.engine = engine;
    }
    if (run.wanted_to_stop()) cancel(handle->run);  // it came before there was a handle to cancel
  } catch (const std::bad_alloc &) {
    run.end(platform::now_ns(), CHATLLM_ASR_NO_MEMORY, nullptr);
  }
}

void q3a_submit_text(q3a_run *handle, const char *input, const char *context, int max_new_tokens) {
  Run &run = *handle->run;
  Machine &machine = *run.machine;
  if (machine.forked() || !begin(handle->run)) return;
  const Submission submission{machine};
  try {
    run.input = input;
    run.has_context = context != nullptr;
    if (context != nullptr) run.context = context;
    run.max_new_tokens = max_new_tokens;
    std::lock_guard<std::mutex> lock(machine.mutex);
    machine.waiting.push_back(handle->run);
    machine.changed.notify_all();
  } catch (const std::bad_alloc &) {
    run.end(platform::now_ns(), CHATLLM_ASR_NO_MEMORY, nullptr);
  }
}

int q3a_feed(q3a_run *handle, const float *pcm, int64_t n_samples, int last) {
  Run &run = *handle->run;
  if (run.machine->forked()) return CHATLLM_ASR_FORKED;
  std::lock_guard<std::mutex> lock(run.machine->mutex);  // the engine's handle must not be released meanwhile
  return run.engine != nullptr ? run.machine->api->asr_feed(run.engine, pcm, n_samples, last) : CHATLLM_ASR_NOT_STARTED;
}

int q3a_next(q3a_run *handle, q3a_event *event, int timeout_ms) {
  Run &run = *handle->run;
  std::memset(event, 0, sizeof *event);
  if (run.machine->forked()) return CHATLLM_ASR_FORKED;
  std::unique_lock<std::mutex> lock(run.mutex);
  run.changed.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                       [&] { return !run.events.empty() || run.ended || !run.begun; });
  if (!run.events.empty()) {
    Record record = std::move(run.events.front());
    run.events.pop_front();
    return hand_out(std::move(record), run.kept, event);
  }
  if (!run.ended) return Q3A_NONE;
  *event = run.last.event;
  event->text = run.last.text.data();
  event->text_len = static_cast<int32_t>(run.last.text.size());
  return event->kind;
}

void q3a_cancel(q3a_run *handle) {
  if (!handle->run->machine->forked()) cancel(handle->run);
}

int q3a_wait_end(q3a_run *handle, int timeout_ms) {
  return handle->run->machine->forked() || wait_end(*handle->run, timeout_ms);
}

int64_t q3a_wait_any_end(q3a_machine *handle, int64_t known, int timeout_ms) {
  Machine &machine = *handle->machine;
  if (machine.forked()) return known;
  std::unique_lock<std::mutex> lock(machine.mutex);
  machine.changed.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return machine.ended != known; });
  return machine.ended;
}

void q3a_timings(q3a_run *handle, chatllm_asr_timings *timings) {
  std::lock_guard<std::mutex> lock(handle->run->mutex);
  *timings = handle->run->timings;
}

void q3a_free_run(q3a_run *handle) {
  Machine &machine = *handle->run->machine;
  if (machine.forked()) return;
  cancel(handle->run);
  forget(handle->run);
  delete handle;
}

int64_t q3a_now_ns(void) {
  return platform::now_ns();
}

// ---- function tables ----

namespace {

struct Symbol {
  const char *name;
  size_t offset;
};

#define UPSTREAM(name) {"chatllm_" #name, offsetof(q3a_api, name)}
constexpr Symbol kUpstream[] = {
    UPSTREAM(create),  UPSTREAM(destroy),    UPSTREAM(append_param),     UPSTREAM(start), UPSTREAM(set_gen_max_tokens),
    UPSTREAM(restart), UPSTREAM(user_input), UPSTREAM(abort_generation),
};
constexpr Symbol kAdditions[] = {
    UPSTREAM(asr_submit),     UPSTREAM(asr_feed),        UPSTREAM(asr_cancel),         UPSTREAM(asr_release),
    UPSTREAM(asr_log_mel),    UPSTREAM(asr_encode),      UPSTREAM(asr_prefill_logits), UPSTREAM(asr_free),
    UPSTREAM(asr_prompt_ids), UPSTREAM(asr_last_status), UPSTREAM(asr_last_error),     UPSTREAM(asr_model_info),
};
#undef UPSTREAM

// Fills entries of a table by name; returns the first name that the library lacks, or NULL.
template <size_t N>
const char *fill(q3a_api &api, void *library, const Symbol (&symbols)[N]) {
  for (const Symbol &symbol : symbols) {
    void *address = platform::library_symbol(library, symbol.name);
    if (address == nullptr) return symbol.name;
    std::memcpy(reinterpret_cast<char *>(&api) + symbol.offset, &address, sizeof address);
  }
  return nullptr;
}

}  // namespace

const q3a_api *q3a_embedded(void) {
  static const q3a_api api = [] {
    q3a_api a{};
    a.create = chatllm_create;
    a.destroy = chatllm_destroy;
    a.append_param = chatllm_append_param;
    a.start = chatllm_start;
    a.set_gen_max_tokens = chatllm_set_gen_max_tokens;
    a.restart = chatllm_restart;
    a.user_input = chatllm_user_input;
    a.abort_generation = chatllm_abort_generation;
    a.asr_submit = chatllm_asr_submit;
    a.asr_feed = chatllm_asr_feed;
    a.asr_cancel = chatllm_asr_cancel;
    a.asr_release = chatllm_asr_release;
    a.asr_log_mel = chatllm_asr_log_mel;
    a.asr_encode = chatllm_asr_encode;
    a.asr_prefill_logits = chatllm_asr_prefill_logits;
    a.asr_free = chatllm_asr_free;
    a.asr_prompt_ids = chatllm_asr_prompt_ids;
    a.asr_last_status = chatllm_asr_last_status;
    a.asr_last_error = chatllm_asr_last_error;
    a.asr_model_info = chatllm_asr_model_info;
    return a;
  }();
  return &api;
}

const q3a_api *q3a_open_library(const char *path, int plain, char *message, size_t capacity) {
  void *library = platform::open_library(path, message, capacity);
  if (library == nullptr) return nullptr;
  q3a_api upstream{};
  const char *missing = fill(upstream, library, kUpstream);
  auto *api = missing == nullptr ? new (std::nothrow) q3a_api(upstream) : nullptr;
  if (api == nullptr) {
    if (missing != nullptr)
      std::snprintf(message, capacity, "it has no function %s", missing);
    else
      std::snprintf(message, capacity, "out of memory");
    platform::close_library(library);
    return nullptr;
  }
  if (!plain && fill(*api, library, kAdditions) != nullptr) *api = upstream;  // all of the additions or none
  return api;
}
