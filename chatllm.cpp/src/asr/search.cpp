#include "asr/search.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace chatllm {

void choose(const Kernels &kernels, ThreadPool &pool, const float *scores, int64_t vocab, int64_t rows, Choice *out) {
  constexpr int64_t kChunk = 256;  // so small that even the built-in model's vocabulary has more than one
  const int64_t chunks = (vocab + kChunk - 1) / kChunk;
  struct Part {
    float top;
    double sum;  // of exp(score - top)
  };
  std::vector<Part> parts(static_cast<size_t>(rows * chunks));
  pool.run(rows * chunks, [&](int64_t task, int) {
    const int64_t c = task % chunks, count = std::min(kChunk, vocab - c * kChunk);
    const float *first = scores + task / chunks * vocab + c * kChunk;
    const float top = kernels.max(first, count);
    parts[static_cast<size_t>(task)] = {top, kernels.sum_exp(first, count, top)};
  });
  for (int64_t r = 0; r < rows; ++r) {
    const float *row = scores + r * vocab;
    const auto begin = parts.begin() + r * chunks, end = begin + chunks;
    const auto best = std::max_element(begin, end, [](Part a, Part b) { return a.top < b.top; });
    double sum = 0;
    for (auto part = begin; part != end; ++part)
      sum += part->sum * std::exp(static_cast<double>(part->top) - best->top);
    const float *token = std::find(row + (best - begin) * kChunk, row + vocab, best->top);
    const bool found = token != row + vocab;  // not where the scores are NaN
    out[r] = {found ? static_cast<int32_t>(token - row) : 0, static_cast<float>(-std::log(sum))};
  }
}

}  // namespace chatllm
