// Greedy search: the choice of a token from its scores.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "nn/kernels.h"

namespace chatllm {

struct Choice {
  int32_t id;
  float logprob;  // natural logarithm
};

// Of each row of scores[rows][vocab] the highest, the first of equals, and the logarithm of its softmax.
void choose(const Kernels &kernels, ThreadPool &pool, const float *scores, int64_t vocab, int64_t rows, Choice *out);

}  // namespace chatllm
