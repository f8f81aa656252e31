// CLOCK_MONOTONIC (on Windows: the performance counter), in nanoseconds.
#pragma once

#include <chrono>
#include <cstdint>

#if !defined(_WIN32)
#include <time.h>
#endif

namespace chatllm {

inline int64_t now_ns() {
#if defined(_WIN32)
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
#else
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<int64_t>(t.tv_sec) * 1000000000 + t.tv_nsec;
#endif
}

inline double elapsed_ms(int64_t since_ns) {
  return static_cast<double>(now_ns() - since_ns) / 1e6;
}

}  // namespace chatllm
