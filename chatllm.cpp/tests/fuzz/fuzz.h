// What the fuzz targets share: an input as a sequence of choices, small models, and the checks on what the C API says.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "libchatllm_asr.h"
#include "synthetic_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Also in release builds; the fuzzer keeps the input.
#define EXPECT(condition)                                                      \
  do {                                                                         \
    if (!(condition)) {                                                        \
      std::fprintf(stderr, "%s:%d: not %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                            \
    }                                                                          \
  } while (0)

namespace fuzz {

// Reads an input as choices; zeros come after its end.
class Choices {
 public:
  Choices(const uint8_t *data, size_t size) : at_(data), end_(data + size) {}

  bool done() const { return at_ == end_; }
  uint8_t byte() { return at_ == end_ ? uint8_t{0} : *at_++; }
  size_t below(size_t n) {
    const size_t value = n > 256 ? static_cast<size_t>(byte()) << 8 | byte() : byte();
    return value % n;
  }
  int32_t word() {
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i) value |= static_cast<uint32_t>(byte()) << 8 * i;
    return static_cast<int32_t>(value);
  }
  template <class T, size_t N>
  const T &of(const T (&list)[N]) {
    return list[below(N)];
  }
  std::string rest() {
    const std::string text(reinterpret_cast<const char *>(at_), static_cast<size_t>(end_ - at_));
    at_ = end_;
    return text;
  }

 private:
  const uint8_t *at_, *end_;
};

// A file for as long as the process lives.
inline const std::string &kept_file(const std::vector<uint8_t> &bytes, const char *ending = ".bin") {
  return (new test::TempFile(bytes, ending))->path();
}

inline const std::string &small_recognizer() {
  static const std::string &path = kept_file(test::build_model(test::small_spec()).bytes);
  return path;
}
inline const std::string &small_aligner() {
  static const std::string &path = [&]() -> const std::string & {
    test::ModelSpec spec = test::small_spec();
    spec.classes = 40;
    return kept_file(test::build_model(spec).bytes);
  }();
  return path;
}

// What is said or told is UTF-8; a sentence is one line.
inline void told(const char *text) {
  const std::string all(text);
  for (size_t at = 0; at < all.size();) {
    const size_t begin = at;
    EXPECT(chatllm::next_code_point(all, &at) != 0xFFFD || all.compare(begin, 3, "\xEF\xBF\xBD") == 0);
  }
}
inline void sentence(const char *text) {
  EXPECT(*text != '\0' && chatllm::one_line(text) == text);
}

// Every call's status is one of the header's, and a failure has its sentence.
inline int checked(int status, struct chatllm_obj *obj) {
  EXPECT(status <= CHATLLM_ASR_OK && status >= CHATLLM_ASR_FORKED);
  if (status != CHATLLM_ASR_OK && status != CHATLLM_ASR_BUSY && obj != nullptr) sentence(chatllm_asr_last_error(obj));
  return status;
}

// A 16-bit WAV file of the sound.
inline std::vector<uint8_t> wav(const std::vector<float> &pcm) {
  std::vector<uint8_t> bytes(44);
  const auto put = [&](size_t at, uint32_t value, size_t size) { std::memcpy(&bytes[at], &value, size); };
  std::memcpy(&bytes[0], "RIFF", 4);
  std::memcpy(&bytes[8], "WAVEfmt ", 8);
  std::memcpy(&bytes[36], "data", 4);
  put(4, static_cast<uint32_t>(36 + 2 * pcm.size()), 4);
  put(16, 16, 4);
  put(20, 1, 2);
  put(22, 1, 2);
  put(24, 16000, 4);
  put(28, 32000, 4);
  put(32, 2, 2);
  put(34, 16, 2);
  put(40, static_cast<uint32_t>(2 * pcm.size()), 4);
  for (const float x : pcm) {
    const int16_t value = static_cast<int16_t>(x * 32767);
    test::put_bytes(&bytes, &value, 2);
  }
  return bytes;
}

}  // namespace fuzz
