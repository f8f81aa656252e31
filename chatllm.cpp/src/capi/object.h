// The object behind chatllm_obj: words, a recognizer, callbacks; one call of chatllm.cpp's contract at a time.
#pragma once

#include <atomic>
#include <climits>
#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "asr/session.h"
#include "base/error.h"
#include "base/fork.h"
#include "capi/options.h"
#include "libchatllm_asr.h"

namespace chatllm {

struct Callbacks {
  f_chatllm_print print = nullptr;
  f_chatllm_end end = nullptr;
  void *user_data = nullptr;
};

// The callbacks that tell the end of a call. They come when the object is idle again, so that it can be destroyed in
// answer to them: on their own thread, or on another, which then waits for them. Outlives the object.
class Endings {
 public:
  // A thread that is about to tell an end.
  class Teller {
   public:
    explicit Teller(std::shared_ptr<Endings> endings);
    ~Teller();
    // Calls f() unless an earlier callback of this thread has destroyed the object.
    template <class F>
    void tell(F &&f) {
      if (!over_) f();
    }

   private:
    friend class Endings;
    const std::shared_ptr<Endings> endings_;
    const std::thread::id thread_ = std::this_thread::get_id();
    Teller *next_;
    bool over_ = false;  // set and read by its own thread
  };

  // The object goes: waits for what other threads are telling; this one, if it is inside, tells nothing more.
  void close();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Teller *tellers_ = nullptr;
};

// Words of chatllm_append_init_param.
std::vector<std::string> init_words();

class Object {
 public:
  Object();
  ~Object();

  std::vector<std::string> words;

  // Runs body() as the object's only call: refuses when another one is under way or the process was forked, turns
  // exceptions into a status, the last error and a PRINTLN_ERROR line.
  template <class F>
  int call(F &&body) noexcept;
  // The same on a thread of the object's own; then the event PRINT_EVT_ASYNC_COMPLETED.
  template <class F>
  int call_async(F &&body) noexcept;

  void start(const Callbacks &callbacks);
  void run(const float *pcm, int64_t samples, const RunSettings &settings);
  void run_text(const std::string &text);
  void run_message();
  void continue_answer(const std::string &suffix);
  void append_to_message(const std::string &type, const char *data);
  void clear_message() {
    message.clear();
    message_text.clear();
  }
  // "key=value", as by --set.
  void set_argument(const std::string &text);
  // Messages of the conversation so far; a lower position forgets what comes behind it. Both return the new number.
  int history_cursor();
  int set_history_cursor(int position);
  void restart(const char *system);
  // Of the answers to come.
  void set_limit(int64_t tokens);
  void set_prefix(const std::string &text);
  int tokenize(const std::string &text);
  const char *token_vocab(int *count, int *width);
  void show_statistics();
  RunSettings settings(const chatllm_asr_options *options) const;
  // The loaded model at work; throws Error before the start.
  const std::shared_ptr<Recognizer> &recognizer();
  Session &session();  // the contract's conversation with it
  // What chatllm_asr_submit does, on any thread, beside the object's call. Throws Error.
  std::shared_ptr<Utterance> submit(std::vector<float> audio, const chatllm_asr_options *options, Listener listener);
  [[noreturn]] static void unsupported(const char *what);

  void abort() noexcept;
  // INT_MIN while an asynchronous call is under way.
  int async_result() const { return state_ == State::Async ? INT_MIN : async_result_.load(); }
  const std::string &last_error() const { return last_error_; }
  const char *model_info() const { return info_.empty() ? nullptr : info_.c_str(); }
  // 0 when the object may be freed: no call is under way. It takes none from then on.
  int acquire_for_destroy() noexcept;
  bool forked() const noexcept;

  f_chatllm_asr_token on_token = nullptr;
  void *on_token_data = nullptr;
  std::vector<float> message;  // audio of the message being built
  std::string message_text;

 private:
  enum class State { Idle, Sync, Async };  // what kind of call is under way

  int admit(State call) noexcept;  // 0, or the status of the refusal
  int finish_error(int status, const std::string &message) noexcept;
  void finish(int status) noexcept;  // the end of a call
  void print(int type, const std::string &text) const {
    if (callbacks_.print != nullptr) callbacks_.print(callbacks_.user_data, type, text.c_str());
  }
  void emit(const Token &token);
  template <class F>
  void generation(F &&body);
  template <class F>
  int guarded(F &&body) noexcept;
  double most_seconds() const;
  std::vector<float> audio_of(const std::string &text, std::string *said) const;
  void answer(Session &s, const std::vector<float> &audio, const std::string &said, const Session::TokenSink &sink);

  Callbacks callbacks_;
  Options options_;
  std::shared_ptr<Recognizer> recognizer_;
  std::unique_ptr<Session> session_;
  std::string ai_prefix_;
  int64_t gen_max_tokens_ = -1;
  mutable std::mutex mutex_;  // guards what abort() and submit() of other threads read: the pointer and the settings
  std::string context_, unfinished_;
  std::string last_error_, info_, vocab_table_;
  std::atomic<State> state_{State::Idle};
  std::atomic<int> async_result_{0};
  bool generated_ = false;  // the call's end is told by f_end
  std::thread thread_;
  const std::shared_ptr<Endings> endings_ = std::make_shared<Endings>();
  const long process_;
};

// The C API's forms of what the engine says.
int c_status(Status status);
chatllm_asr_token c_token(const Token &token);
chatllm_asr_timings c_timings(const Timings &timings);

constexpr char kMemoryIsShort[] = "memory is short: close other models or programs, or use a smaller model";
constexpr char kThreadsAreShort[] =
    "no thread can be started: memory or the number of threads is limited here; use fewer threads";

// The last failure on this thread that had no object.
struct ThreadError {
  int status = CHATLLM_ASR_OK;
  std::string message;
};
ThreadError &thread_error();

extern const char kForked[];  // the sentence for the child of a fork

template <class F>
int Object::guarded(F &&body) noexcept {
  try {
    try {
      body();
      return CHATLLM_ASR_OK;
    } catch (const Error &e) {
      return finish_error(c_status(e.status()), e.what());
    } catch (const std::bad_alloc &) {
      return finish_error(CHATLLM_ASR_NO_MEMORY, kMemoryIsShort);
    } catch (const std::system_error &) {  // of std::thread: nothing else here throws it
      return finish_error(CHATLLM_ASR_NO_MEMORY, kThreadsAreShort);
    } catch (const std::exception &e) {
      return finish_error(CHATLLM_ASR_ERROR, e.what());
    }
  } catch (...) {
    return CHATLLM_ASR_NO_MEMORY;  // even the message did not fit
  }
}

template <class F>
int Object::call(F &&body) noexcept {
  if (const int refused = admit(State::Sync)) return refused;
  const int status = guarded(body);
  finish(status);
  return status;
}

template <class F>
int Object::call_async(F &&body) noexcept {
  if (const int refused = admit(State::Async)) return refused;
  const int status = guarded([&] {
    if (thread_.joinable()) {
      if (thread_.get_id() == std::this_thread::get_id())
        thread_.detach();  // called from the end of its call: this thread ends by itself
      else
        thread_.join();
    }
    // The thread waits until this one is done with the object: the end of its call may start another call, or destroy
    // the object.
    const auto ready = std::make_shared<std::promise<void>>();
    thread_ = std::thread([this, body, ready] {
      prepare_to_throw();
      ready->get_future().wait();
      finish(guarded(body));
    });
    ready->set_value();
  });
  if (status != CHATLLM_ASR_OK) {  // no thread was made
    async_result_ = status;
    state_ = State::Idle;
  }
  return status;
}

}  // namespace chatllm
