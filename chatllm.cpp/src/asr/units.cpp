#include "asr/units.h"

#include <algorithm>
#include <iterator>

#include "base/utf8.h"
#include "model/unicode.h"

namespace chatllm {

namespace {

// What the official package takes for ideographs.
bool is_ideograph(uint32_t code) {
  static constexpr uint32_t kRanges[][2] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},
                                            {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F},
                                            {0x2B820, 0x2CEAF}};
  return std::any_of(std::begin(kRanges), std::end(kRanges),
                     [=](const uint32_t (&range)[2]) { return code >= range[0] && code <= range[1]; });
}

}  // namespace

std::vector<std::string> split_units(const std::string &text) {
  std::vector<std::string> units;
  bool open = false;  // the last unit goes on
  for (size_t at = 0; at < text.size();) {
    const uint32_t code = next_code_point(text, &at);
    if (is_space(code)) {
      open = false;
      continue;
    }
    if (code != '\'' && !is_letter(code) && !is_number(code)) continue;
    const bool alone = is_ideograph(code);
    if (alone || !open) units.emplace_back();
    append_utf8(units.back(), code);
    open = !alone;
  }
  return units;
}

}  // namespace chatllm
