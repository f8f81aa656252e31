// Errors inside the engine: exceptions that carry a status of the C API; they never cross the C boundary.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <exception>
#include <string>

#include "libchatllm_asr.h"

namespace chatllm {

class Error : public std::exception {
 public:
  Error(int status, std::string message) : status_(status), message_(std::move(message)) {}
  const char *what() const noexcept override { return message_.c_str(); }
  int status() const noexcept { return status_; }

 private:
  int status_;
  std::string message_;
};

#if defined(__MINGW32__)
__attribute__((format(gnu_printf, 1, 2)))
#elif defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
inline std::string format(const char *pattern, ...) {
  va_list args, again;
  va_start(args, pattern);
  va_copy(again, args);
  const int size = vsnprintf(nullptr, 0, pattern, args);
  va_end(args);
  std::string text(size > 0 ? static_cast<size_t>(size) : 0, '\0');
  if (size > 0) vsnprintf(&text[0], text.size() + 1, pattern, again);
  va_end(again);
  return text;
}

[[noreturn]] inline void fail(int status, const std::string &message) {
  throw Error(status, message);
}

}  // namespace chatllm
