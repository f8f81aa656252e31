#include "asr/aligner.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace chatllm {

AlignmentPrompt alignment_prompt(const Tokenizer &tokenizer, int64_t audio_tokens,
                                 const std::vector<std::string> &units) {
  auto special = [&](const char *name) {
    const int32_t id = tokenizer.special(name);
    if (id < 0)
      fail(Status::BadModel, format("the model file lacks the special token %s: it is not a forced aligner", name));
    return id;
  };
  const int32_t pad = special("<|audio_pad|>"), time = special("<timestamp>");
  AlignmentPrompt made;
  auto &ids = made.prompt.ids;
  ids.push_back(special("<|audio_start|>"));
  made.prompt.audio_at = 1;
  ids.insert(ids.end(), static_cast<size_t>(audio_tokens), pad);
  ids.push_back(special("<|audio_end|>"));
  for (const std::string &unit : units) {
    const auto text = tokenizer.encode(unit);
    ids.insert(ids.end(), text.begin(), text.end());
    for (int i = 0; i < 2; ++i) {
      made.slots.push_back(static_cast<int64_t>(ids.size()));
      ids.push_back(time);
    }
  }
  return made;
}

namespace {

// Members of the longest subsequence that does not decrease; of equally long ones the one that ends first, and whose
// members' predecessors are the first possible.
std::vector<char> longest_rise(const std::vector<double> &x) {
  const size_t n = x.size();
  std::vector<size_t> best(n, 1), before(n, n);
  for (size_t i = 1; i < n; ++i)
    for (size_t j = 0; j < i; ++j)
      if (x[j] <= x[i] && best[j] + 1 > best[i]) {
        best[i] = best[j] + 1;
        before[i] = j;
      }
  std::vector<char> member(n, 0);
  const auto top = std::max_element(best.begin(), best.end());  // the first of equals
  for (size_t i = static_cast<size_t>(top - best.begin()); i < n; i = before[i]) member[i] = 1;
  return member;
}

}  // namespace

void repair_times(std::vector<double> *times) {
  std::vector<double> &x = *times;
  const size_t n = x.size();
  const std::vector<char> normal = longest_rise(x);
  for (size_t i = 0, j = 0; i < n; i = j + 1) {
    j = i;
    while (j < n && !normal[j]) ++j;
    const size_t count = j - i;
    if (count == 0) continue;
    const bool has_left = i > 0, has_right = j < n;  // one at least: a longest subsequence has a member
    const double left = has_left ? x[i - 1] : x[j], right = has_right ? x[j] : left;
    for (size_t p = i; p < j; ++p) {
      if (!has_left || !has_right)
        x[p] = left;
      else if (count <= 2)
        x[p] = p - i + 1 <= j - p ? left : right;
      else
        x[p] = left + (right - left) / static_cast<double>(count + 1) * static_cast<double>(p - i + 1);
    }
  }
  for (double &value : x) value = std::trunc(value);
}

}  // namespace chatllm
