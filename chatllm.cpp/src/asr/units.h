// The words of a text that a forced aligner tells the times of.
#pragma once

#include <string>
#include <vector>

namespace chatllm {

// The units of a text, as the official package splits every language but Japanese and Korean: letters, numbers and the
// ASCII apostrophe are kept, all else is dropped without a break; each ideograph is a unit, other writing is split at
// white space.
std::vector<std::string> split_units(const std::string &text);

}  // namespace chatllm
