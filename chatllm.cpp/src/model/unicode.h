// What the tokenizer needs of Unicode: letters, numbers, white space, and normalization form C.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace chatllm {

bool is_letter(uint32_t code);  // general category L*
bool is_number(uint32_t code);  // general category N*
bool is_space(uint32_t code);   // White_Space

// The text in normalization form C, as code points; malformed UTF-8 becomes U+FFFD.
std::vector<uint32_t> to_nfc(const std::string &text);

}  // namespace chatllm
