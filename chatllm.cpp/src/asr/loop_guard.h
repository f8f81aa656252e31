// Runaway repetition: a pattern of up to 20 tokens repeated over 20 times, the rule by which the official
// post-processing collapses text afterwards. Generation stops where that text would be thrown away.
#pragma once

#include <cstdint>
#include <vector>

namespace chatllm {

class LoopGuard {
 public:
  static constexpr int kLongest = 20, kRepeats = 20;

  // Takes the next token; true when the text has just become a loop. Constant time.
  bool push(int32_t id) {
    bool loop = false;
    for (int period = 1; period <= kLongest; ++period) {
      int &run = runs_[period];  // how many of the last tokens equal the one a period before
      run = seen_ >= period && recent_[(seen_ - period) % kLongest] == id ? run + 1 : 0;
      loop |= run >= period * kRepeats;
    }
    recent_[seen_++ % kLongest] = id;
    return loop;
  }

 private:
  int64_t seen_ = 0;
  int32_t recent_[kLongest] = {};
  int runs_[kLongest + 1] = {};
};

}  // namespace chatllm
