#include "nn/peak.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "base/memory.h"

namespace chatllm {

namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double rate(int64_t (*loop)(int64_t)) {
  double best = 0;
  int64_t iterations = 1 << 12;
  for (int round = 0; round < 8;) {
    const double start = seconds();
    const int64_t operations = loop(iterations);
    const double elapsed = seconds() - start;
    if (elapsed < 0.005) {
      iterations *= 2;
      continue;
    }
    best = std::max(best, static_cast<double>(operations) / elapsed);
    ++round;
  }
  return best;
}

}  // namespace

double peak_int8(const Kernels &kernels) {
  return rate(kernels.peak_int8);
}
double peak_bf16(const Kernels &kernels) {
  return rate(kernels.peak_bf16);
}
double peak_float(const Kernels &kernels) {
  return rate(kernels.peak_float);
}

Roofline measure_roofline(const Kernels &kernels, ThreadPool &pool) {
  Roofline r{};
  const int threads = pool.size();
  // One task per thread: each waits until all have arrived, so that they are measured while they run together.
  auto together = [&](auto &&measure) {
    std::atomic<int> arrived{0};
    std::atomic<int64_t> total{0};
    pool.run(threads, [&](int64_t, int) {
      arrived.fetch_add(1);
      while (arrived.load() < threads) {
      }
      total.fetch_add(static_cast<int64_t>(measure()));
    });
    return static_cast<double>(total.load());
  };
  r.int8_ops = together([&] { return peak_int8(kernels); });
  r.bf16_ops = together([&] { return peak_bf16(kernels); });
  r.float_ops = together([&] { return peak_float(kernels); });

  constexpr size_t kBytes = size_t{256} << 20, kPart = size_t{1} << 20;
  Pages memory(kBytes);
  pool.run(static_cast<int64_t>(kBytes / kPart),
           [&](int64_t part, int) { std::memset(memory.data() + static_cast<size_t>(part) * kPart, 1, kPart); });
  double best = 1e9;
  for (int round = 0; round < 6; ++round) {
    std::atomic<uint64_t> sink{0};
    const double start = seconds();
    pool.run(static_cast<int64_t>(kBytes / kPart), [&](int64_t part, int) {
      sink.fetch_add(kernels.read(memory.data() + static_cast<size_t>(part) * kPart, kPart), std::memory_order_relaxed);
    });
    best = std::min(best, seconds() - start);
  }
  r.read_bytes = static_cast<double>(kBytes) / best;
  return r;
}

}  // namespace chatllm
