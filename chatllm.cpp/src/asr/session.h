// One conversation with a recognizer, as chatllm.cpp's contract has it: one run at a time, whose tokens are handed out
// on the thread that waits for it. Not for several threads at a time, but abort().
#pragma once

#include <functional>
#include <memory>
#include <mutex>

#include "asr/recognizer.h"

namespace chatllm {

class Session {
 public:
  using TokenSink = std::function<void(const Token &)>;

  explicit Session(Recognizer &recognizer) : recognizer_(recognizer), conversation_(recognizer.conversation()) {}

  // Recognizes 16 kHz mono samples. Tokens go to the sink; it may take its time.
  void run(const float *pcm, int64_t samples, const RunSettings &settings, const TokenSink &sink);
  // Goes on after the last answer and a suffix. Throws Error when there is none.
  void continue_with(const std::string &suffix, int64_t max_new_tokens, const TokenSink &sink);
  void abort();  // the run that is under way, or is about to begin
  void clear_abort() { abort_ = false; }
  const AbortFlag &abort_flag() const { return abort_; }
  void forget();  // the conversation

  const Timings &timings() const { return timings_; }  // of the last run
  int64_t cursor() const { return conversation_->sequence.length(); }
  void set_cursor(int64_t position);

 private:
  void follow(Request request, const TokenSink &sink);

  Recognizer &recognizer_;
  const std::shared_ptr<Conversation> conversation_;
  Timings timings_;
  AbortFlag abort_{false};
  std::mutex mutex_;
  std::shared_ptr<Utterance> current_;  // under the lock
};

}  // namespace chatllm
