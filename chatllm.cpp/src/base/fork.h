// What is left of the process in the child of a fork.
#pragma once

#if !defined(_WIN32)
#include <pthread.h>
#include <unistd.h>
#endif

namespace chatllm {

// Calls f() in every child of a fork to come, before anything else runs there.
inline void in_child_of_fork(void (*f)()) {
#if defined(_WIN32)
  (void)f;  // no fork there
#else
  pthread_atfork(nullptr, nullptr, f);
#endif
}

inline long current_process() {
#if defined(_WIN32)
  return 0;
#else
  return static_cast<long>(getpid());
#endif
}

}  // namespace chatllm
