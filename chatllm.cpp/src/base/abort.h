// How a run is told to end early.
#pragma once

#include <atomic>

namespace chatllm {

using AbortFlag = std::atomic<bool>;

struct Aborted {};  // thrown inside a run, caught by the session

inline void check_abort(const AbortFlag &flag) {
  if (flag.load(std::memory_order_relaxed)) throw Aborted{};
}

}  // namespace chatllm
