// One request to a recognizer as its owner sees it: audio that goes in, events that come out. For any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "asr/session.h"
#include "base/abort.h"
#include "base/error.h"

namespace chatllm {

// What happened to an utterance. Pointers are valid during the call.
struct Event {
  enum class Kind { Begin, Token, Step, End };
  Kind kind;
  const chatllm_asr_token *token = nullptr;      // Token
  const chatllm_asr_timings *timings = nullptr;  // Step, End
  bool failed = false;                           // End: `status` and `message` say how
  Status status = Status::Error;
  std::string message = {};
};

using Listener = std::function<void(const Event &)>;

// The recognizer's door: what its owners' threads and its own share. It outlives the recognizer as long as an utterance
// does.
struct Desk {
  std::mutex mutex;  // guards all that is shared of the utterances, too
  std::condition_variable changed;
  std::vector<std::shared_ptr<class Utterance>> open;  // not ended
  uint64_t arrivals = 0;
  std::thread::id worker;
};

class Utterance {
 public:
  Utterance(std::shared_ptr<Desk> desk, std::vector<float> audio, RunSettings settings, bool live, Listener listener)
      : desk_(std::move(desk)),
        settings_(std::move(settings)),
        live_(live),
        listener_(std::move(listener)),
        arrived_(std::move(audio)),
        last_(!live) {}

  // More audio of a live utterance; `last`: there is no more. Throws Error when it takes none.
  void feed(const float *pcm, int64_t samples, bool last);
  // Ends it within one step; its end is told as for any other.
  void cancel();
  // Cancels it, and nothing is told any more once this has returned; called by the listener, after that call.
  void detach();

 private:
  friend class Recognizer;
  void wake();                    // with the desk's lock: there is something to do for it
  void tell(const Event &event);  // from the recognizer's thread, without locks

  const std::shared_ptr<Desk> desk_;
  const RunSettings settings_;
  const bool live_;
  const Listener listener_;
  AbortFlag cancelled_{false};

  // Under the desk's lock.
  std::vector<float> arrived_;  // audio that the recognizer has not taken yet
  uint64_t news_ = 0;           // when there came something to do: a number that grows; 0: nothing
  bool last_, ended_ = false, detached_ = false, telling_ = false;

  // The recognizer's own.
  std::vector<float> audio_;
  bool begun_ = false;
};

}  // namespace chatllm
