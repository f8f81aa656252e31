// Errors inside the engine: exceptions with a kind; they never cross the C boundary.
#pragma once

#include <exception>
#include <string>
#include <utility>

#include "base/format.h"

namespace chatllm {

// What went wrong, as far as callers treat it differently.
enum class Status { Error, BadArgument, BadModel, BadAudio, NoMemory, Busy, NotStarted, TooLong };

class Error : public std::exception {
 public:
  Error(Status status, std::string message) : status_(status), message_(std::move(message)) {}
  const char *what() const noexcept override { return message_.c_str(); }
  Status status() const noexcept { return status_; }

 private:
  Status status_;
  std::string message_;
};

[[noreturn]] inline void fail(Status status, const std::string &message) {
  throw Error(status, message);
}

}  // namespace chatllm
