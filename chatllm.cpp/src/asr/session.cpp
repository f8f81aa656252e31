#include "asr/session.h"

#include <condition_variable>
#include <deque>

namespace chatllm {

namespace {

// What the recognizer's thread tells, for another one to read.
class Relay {
 public:
  void put(const Event &event) noexcept {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (event.kind == Event::Kind::End) {
        timings_ = *event.timings;
        ended_ = true;
      }
      try {
        if (event.kind == Event::Kind::Token && !short_of_memory_) tokens_.push_back(*event.token);
        if (event.error != nullptr) error_ = std::make_unique<Error>(*event.error);
      } catch (const std::bad_alloc &) {
        short_of_memory_ = true;
      }
    }
    changed_.notify_one();
  }
  // The next token; false when there is no more.
  bool get(Token *token) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return ended_ || !tokens_.empty(); });
    if (tokens_.empty()) return false;
    *token = tokens_.front();
    tokens_.pop_front();
    return true;
  }
  // After the end.
  const Timings &timings() const { return timings_; }
  void check() const {
    if (short_of_memory_) throw std::bad_alloc();
    if (error_ != nullptr) throw *error_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Token> tokens_;
  bool ended_ = false, short_of_memory_ = false;
  Timings timings_;
  std::unique_ptr<Error> error_;
};

}  // namespace

void Session::follow(Request request, const TokenSink &sink) {
  request.conversation = conversation_;
  const bool continues = request.continues;
  const int64_t length = cursor();
  const int32_t pending = conversation_->pending;
  timings_ = {};
  const auto relay = std::make_shared<Relay>();
  const auto utterance = recognizer_.submit(std::move(request), [relay](const Event &event) { relay->put(event); });
  {
    std::lock_guard<std::mutex> lock(mutex_);
    current_ = utterance;
  }
  if (abort_) utterance->cancel();
  int32_t handed_out = 0;
  for (Token token; relay->get(&token);) {
    if (abort_) continue;  // the recognizer may be a token ahead of who has aborted
    ++handed_out;
    sink(token);
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    current_ = nullptr;
  }
  timings_ = relay->timings();
  timings_.new_tokens = handed_out;
  relay->check();
  if (!abort_) return;
  // Also when it had ended by itself meanwhile: not all of the answer was handed out.
  timings_.finish = Finish::Abort;
  conversation_->answered = continues;
  if (continues) {  // can be repeated
    conversation_->sequence.truncate(length);
    conversation_->pending = pending;
  }
}

void Session::run(const float *pcm, int64_t samples, const RunSettings &settings, const TokenSink &sink) {
  Request request;
  request.settings = settings;
  if (pcm != nullptr && samples > 0) request.audio.assign(pcm, pcm + samples);
  follow(std::move(request), sink);
}

void Session::continue_with(const std::string &suffix, int64_t max_new_tokens, const TokenSink &sink) {
  Request request;
  request.settings.max_new_tokens = max_new_tokens;
  request.continues = true;
  request.suffix = suffix;
  follow(std::move(request), sink);
}

void Session::abort() {
  abort_ = true;
  std::lock_guard<std::mutex> lock(mutex_);
  if (current_ != nullptr) current_->cancel();
}

void Session::forget() {
  conversation_->sequence.truncate(0);
  conversation_->pending = -1;
  conversation_->answered = false;
}

void Session::set_cursor(int64_t position) {
  if (position < 0 || position > cursor())
    fail(Status::BadArgument, format("the cursor must be from 0 to %lld", static_cast<long long>(cursor())));
  conversation_->sequence.truncate(position);
  conversation_->pending = -1;
}

}  // namespace chatllm
