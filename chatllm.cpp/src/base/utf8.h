// UTF-8, one code point at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace chatllm {

inline void append_utf8(std::string &out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

// Length of the sequence that a first byte announces; 0 when it cannot start one.
inline int utf8_length(unsigned char first) {
  return first < 0x80                    ? 1
         : first >= 0xC2 && first < 0xE0 ? 2
         : first >= 0xE0 && first < 0xF0 ? 3
         : first >= 0xF0 && first < 0xF5 ? 4
                                         : 0;
}

// Reads the code point at *at and moves past it; U+FFFD for a malformed byte.
inline uint32_t next_code_point(const std::string &text, size_t *at) {
  const unsigned char first = static_cast<unsigned char>(text[*at]);
  const int length = utf8_length(first);
  if (length <= 1) {
    ++*at;
    return length == 1 ? first : 0xFFFD;
  }
  uint32_t code = first & (0x7F >> length);
  for (int i = 1; i < length; ++i) {
    const size_t next = *at + static_cast<size_t>(i);
    if (next >= text.size() || (static_cast<unsigned char>(text[next]) & 0xC0) != 0x80) {
      ++*at;
      return 0xFFFD;
    }
    code = code << 6 | (static_cast<unsigned char>(text[next]) & 0x3F);
  }
  static constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
    ++*at;
    return 0xFFFD;
  }
  *at += static_cast<size_t>(length);
  return code;
}

// A text of strangers as part of a sentence: valid UTF-8 on one line; what is neither becomes U+FFFD or a space.
inline std::string one_line(std::string text) {
  const auto good = [](uint32_t code) { return code >= 0x20 && code != 0x7F && code != 0xFFFD; };
  for (size_t at = 0; at < text.size();) {
    if (good(next_code_point(text, &at))) continue;
    std::string clean;
    for (at = 0; at < text.size();) {
      const uint32_t code = next_code_point(text, &at);
      append_utf8(clean, good(code) ? code : code == '\n' || code == '\r' || code == '\t' ? ' ' : 0xFFFD);
    }
    return clean;
  }
  return text;
}

// How many bytes at the end of the text are an unfinished character.
inline size_t unfinished_bytes(const std::string &text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const unsigned char byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    return utf8_length(byte) > static_cast<int>(back) ? back : 0;
  }
  return 0;
}

}  // namespace chatllm
