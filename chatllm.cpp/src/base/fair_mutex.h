// A lock that serves its callers in the order in which they came: nobody waits while another takes it again and again.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace chatllm {

class FairMutex {
 public:
  void lock() {
    std::unique_lock<std::mutex> guard(mutex_);
    const uint64_t turn = next_++;
    changed_.wait(guard, [&] { return serving_ == turn; });
  }
  void unlock() {
    {
      std::lock_guard<std::mutex> guard(mutex_);
      ++serving_;
    }
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t next_ = 0, serving_ = 0;
};

}  // namespace chatllm
