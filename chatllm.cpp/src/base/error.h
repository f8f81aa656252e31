// Errors inside the engine: exceptions with a kind; they never cross the C boundary.
#pragma once

#include <cstdlib>
#include <exception>
#include <string>
#include <utility>

#include "base/format.h"
#include "base/utf8.h"

namespace chatllm {

// What went wrong, as far as callers treat it differently.
enum class Status { Error, BadArgument, BadModel, BadAudio, NoMemory, Busy, NotStarted, TooLong };

class Error : public std::exception {
 public:
  // The message may quote what a file or a caller says.
  Error(Status status, std::string message) : status_(status), message_(one_line(std::move(message))) {}
  const char *what() const noexcept override { return message_.c_str(); }
  Status status() const noexcept { return status_; }

 private:
  Status status_;
  std::string message_;
};

[[noreturn]] inline void fail(Status status, const std::string &message) {
  throw Error(status, message);
}

// The C++ library keeps what a thread throws in memory of the thread's own, which it takes at the first exception, and
// ends the process when there is none. So every thread of ours throws once while there is memory; false when there is
// none.
inline bool prepare_to_throw() noexcept {
  void *more_than_it_takes = std::malloc(4096);
  if (more_than_it_takes == nullptr) return false;
  std::free(more_than_it_takes);
  try {
    throw 0;
  } catch (int) {
  }
  return true;
}

}  // namespace chatllm
