// The machine and its scheduler: a model on a thread of its own that works on the utterances submitted to it.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "asr/session.h"
#include "asr/utterance.h"
#include "base/fair_mutex.h"

namespace chatllm {

class Recognizer {
 public:
  explicit Recognizer(const SessionSettings &settings);
  ~Recognizer();  // cancels all utterances and waits for their ends; not from a listener
  Recognizer(const Recognizer &) = delete;
  Recognizer &operator=(const Recognizer &) = delete;

  // Queues an utterance and returns at once. The listener is called on the recognizer's thread, perhaps before this
  // returns; it must not block. Throws Error, std::bad_alloc.
  std::shared_ptr<Utterance> submit(std::vector<float> audio, RunSettings settings, bool live, Listener listener);
  bool idle() const;              // no utterance is open
  bool on_worker_thread() const;  // the caller is a listener

  // Calls f(session) between utterances, on the caller's thread.
  template <class F>
  auto exclusively(F &&f) {
    std::lock_guard<FairMutex> lock(machine_);
    return f(session_);
  }
  Session &session() { return session_; }
  void abandon();  // in the child of a fork: the thread is gone

 private:
  void work();
  std::shared_ptr<Utterance> next();
  void advance(Utterance &utterance);
  void end(Utterance &utterance, Event event);

  FairMutex machine_;
  Session session_;
  const std::shared_ptr<Desk> desk_ = std::make_shared<Desk>();
  bool stop_ = false;  // under the desk's lock
  std::thread thread_;
};

}  // namespace chatllm
