// Causal attention over a cache of keys and values, against sums in double precision.
#include <cmath>

#include "asr/causal_attention.h"
#include "check.h"
#include "kernel_sets.h"
#include "random.h"

using namespace chatllm;
using test::Random;

namespace {

struct Case {
  DecoderConfig config;
  int64_t begin, count;
  std::vector<float> q, keys, values;  // [count][heads][dim], [begin + count][kv_heads][dim]

  Case(int dim, int64_t first, int64_t rows, double spread) : begin(first), count(rows) {
    config.heads = 4, config.kv_heads = 2, config.head_dim = dim, config.layers = 2;
    Random random(static_cast<uint64_t>(dim * 1000 + first + rows));
    q = random.normals(static_cast<size_t>(rows * 4 * dim));
    for (float &value : q) value *= static_cast<float>(spread);
    keys = random.normals(static_cast<size_t>((first + rows) * 2 * dim));
    values = random.normals(keys.size());
  }

  std::vector<float> run(const Kernels &kernels, ThreadPool &pool) const {
    const int64_t dim = config.head_dim;
    Products products(kernels, pool);
    KvCache cache(2, 2, kernels.kv_key_bytes(dim), kernels.kv_value_bytes(dim));
    cache.reserve(begin + count);
    for (int64_t p = 0; p < begin + count; ++p)
      for (int64_t head = 0; head < 2; ++head) {
        const size_t at = static_cast<size_t>((p * 2 + head) * dim);
        kernels.key_store(keys.data() + at, dim, p % KvCache::kBlock, cache.keys(1, head, p));
        kernels.value_store(values.data() + at, dim, p % KvCache::kBlock, cache.values(1, head, p));
      }
    std::vector<float> out(static_cast<size_t>(count * 4 * dim));
    CausalAttention attention(config, products);
    attention.run(cache, 1, begin, count, q.data(), 4 * dim, out.data(), 4 * dim);
    return out;
  }

  std::vector<double> expected() const {
    const int64_t dim = config.head_dim;
    std::vector<double> out;
    for (int64_t t = 0; t < count; ++t)
      for (int64_t head = 0; head < 4; ++head) {
        std::vector<double> weight, sum(static_cast<size_t>(dim));
        double total = 0;
        for (int64_t p = 0; p <= begin + t; ++p) {
          double dot = 0;
          for (int64_t i = 0; i < dim; ++i)
            dot += static_cast<double>(q[static_cast<size_t>((t * 4 + head) * dim + i)]) *
                   keys[static_cast<size_t>((p * 2 + head / 2) * dim + i)];
          weight.push_back(std::exp(dot / std::sqrt(static_cast<double>(dim))));
          total += weight.back();
        }
        for (int64_t p = 0; p <= begin + t; ++p)
          for (int64_t i = 0; i < dim; ++i)
            sum[static_cast<size_t>(i)] +=
                weight[static_cast<size_t>(p)] / total * values[static_cast<size_t>((p * 2 + head / 2) * dim + i)];
        out.insert(out.end(), sum.begin(), sum.end());
      }
    return out;
  }
};

bool generic(const Kernels &kernels) {
  return kernels.tile_tokens == 0;
}

}  // namespace

TEST(a_block_attends_to_all_that_was_before_it) {
  ThreadPool pool(2);
  for (const int dim : {8, 16, 24, 32, 40, 64, 128})
    for (const auto &[begin, count] :
         {std::pair<int64_t, int64_t>{0, 1}, {0, 17}, {0, 70}, {5, 30}, {64, 3}, {100, 49}})
      for (const double spread : {0.3, 3.0}) {
        const Case c(dim, begin, count, spread);
        const auto expected = c.expected();
        for (const Kernels *kernels : test::kernel_sets()) {
          const auto out = c.run(*kernels, pool);
          double off = 0, all = 0;
          for (size_t i = 0; i < out.size(); ++i)
            off += std::pow(out[i] - expected[i], 2), all += std::pow(expected[i], 2);
          const double error = std::sqrt(off / all), most = generic(*kernels) ? 1e-6 : 0.02;
          if (!(error <= most))
            test::failed(__FILE__, __LINE__,
                         std::string(kernels->name) + ", " + std::to_string(dim) + " inputs, " + std::to_string(begin) +
                             " + " + std::to_string(count) + " positions: off by " + std::to_string(error));
        }
      }
}

TEST(what_comes_later_changes_no_bit_of_a_row) {
  ThreadPool pool(2);
  for (const int dim : {32, 64, 128})
    for (const Kernels *kernels : test::kernel_sets()) {
      Case c(dim, 37, 40, 1.0);
      const auto before = c.run(*kernels, pool);
      // Positions from 37 + 20 on are others, and larger.
      const size_t changed = static_cast<size_t>((37 + 20) * 2 * dim), rows = static_cast<size_t>(20 * 4 * dim);
      for (auto *what : {&c.keys, &c.values})
        for (size_t i = changed; i < what->size(); ++i) (*what)[i] *= -50;
      const auto after = c.run(*kernels, pool);
      CHECK(std::equal(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(rows), after.begin()));
      CHECK(!std::equal(before.begin() + static_cast<std::ptrdiff_t>(rows), before.end(),
                        after.begin() + static_cast<std::ptrdiff_t>(rows)));
    }
}

TEST_MAIN
