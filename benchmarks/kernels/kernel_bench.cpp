// Microbenchmark of the product kernels against the instruction peak of the same core: build with -DCHATLLM_BENCH=ON,
// run build/kernel_bench [kernel set]. Times are CPU time of one thread, the best of several rounds, so that a busy
// machine disturbs them little; a ratio to the peak measured in the same run is printed with every figure.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/input_file.h"
#include "base/memory.h"
#include "nn/kernels.h"
#include "nn/linear.h"
#include "nn/pack.h"
#include "nn/peak.h"

namespace {

using namespace chatllm;

double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// Best seconds of one call, over rounds of at least 20 ms.
double best_seconds(const std::function<void()> &body) {
  body();
  int calls = 1;
  double best = 1e9;
  for (int round = 0; round < 7; ++round) {
    double seconds;
    for (;; calls *= 2) {
      const double start = cpu_seconds();
      for (int i = 0; i < calls; ++i) body();
      seconds = cpu_seconds() - start;
      if (seconds > 0.02) break;
    }
    best = std::min(best, seconds / calls);
  }
  return best;
}

double peak(int64_t (*loop)(int64_t)) {
  double operations = 0;
  const double seconds = best_seconds([&] { operations = static_cast<double>(loop(1 << 14)); });
  return operations / seconds;
}

std::vector<uint8_t> random_rows(DType type, int64_t rows, int64_t cols, std::mt19937 &random) {
  const BlockShape block = block_shape(type);
  std::vector<uint8_t> data(static_cast<size_t>(rows * cols / block.values * block.bytes));
  for (auto &byte : data) byte = static_cast<uint8_t>(random());
  const uint16_t scale = float_to_half(0.01f);
  for (size_t at = 0; at < data.size(); at += static_cast<size_t>(block.bytes)) {
    if (type == DType::F16 || type == DType::F32) {
      data[at + static_cast<size_t>(block.bytes) - 1] &= 0x3B;  // finite
    } else {
      std::memcpy(&data[at], &scale, 2);
      if (type == DType::Q4_1 || type == DType::Q4_K) std::memcpy(&data[at + 2], &scale, 2);
    }
  }
  return data;
}

void bench(const Kernels &kernels, DType type, int64_t tokens, int64_t rows, int64_t cols, double peak) {
  std::mt19937 random(1);
  const std::vector<uint8_t> source = random_rows(type, rows, cols, random);
  Matrix w;
  w.rows = rows;
  w.cols = cols;
  w.type = type;
  w.layout = panel_layout(type, kernels);
  Pages packed(panel_bytes(w) * static_cast<size_t>(w.panels()));
  pack_panels(type, source.data(), w, 0, w.panels(), packed.data());
  w.data = packed.data();
  std::vector<float> x(static_cast<size_t>(tokens * cols), 0.5f), out(static_cast<size_t>(tokens * rows));
  for (auto &value : x) value = static_cast<float>(random() % 2000) / 1000.0f - 1.0f;
  const int tile = kernels.tile_tokens;
  const int64_t tiles = (tokens + tile - 1) / tile;
  const size_t tile_bytes =
      static_cast<size_t>((cols + 63) / 64 * 2) * int8_group_bytes(tile) + static_cast<size_t>(cols * tile) * 4;
  Buffer<uint8_t> packed_x(tile_bytes * static_cast<size_t>(tiles));
  const double pack = best_seconds([&] {
    for (int64_t t = 0; t < tiles; ++t) {
      const int count = static_cast<int>(std::min<int64_t>(tile, tokens - t * tile));
      uint8_t *target = packed_x.data() + tile_bytes * static_cast<size_t>(t);
      if (is_int8(w.layout))
        kernels.pack_int8(x.data(), Grid::rows(cols), t * tile, count, cols, target);
      else
        kernels.pack_float(x.data(), Grid::rows(cols), t * tile, count, cols, reinterpret_cast<float *>(target));
    }
  });
  const double multiply = best_seconds([&] {
    for (int64_t p = 0; p < w.panels(); p += 2)
      for (int64_t t = 0; t < tiles; ++t) {
        int64_t offsets[16];
        const int count = static_cast<int>(std::min<int64_t>(tile, tokens - t * tile));
        for (int i = 0; i < count; ++i) offsets[i] = (t * tile + i) * rows;
        kernels.multiply(w, packed_x.data() + tile_bytes * static_cast<size_t>(t), count, p,
                         std::min(p + 2, w.panels()), out.data(), offsets, Epilogue{});
      }
  });
  const double ops = 2.0 * static_cast<double>(tokens * rows * cols);
  const double bytes = static_cast<double>(panel_bytes(w)) * static_cast<double>(w.panels());
  std::printf(
      "%-10s %-5s %4lld tokens %5lld x %-5lld  %8.1f GOP/s  %5.1f %% of peak  %6.1f GB/s of weights  packing %4.1f "
      "%%\n",
      kernels.name, type_name(type), static_cast<long long>(tokens), static_cast<long long>(rows),
      static_cast<long long>(cols), ops / multiply / 1e9, 100 * ops / multiply / peak, bytes / multiply / 1e9,
      100 * pack / (pack + multiply));
}

// Products of many tokens in a form of their own, bringing the weights into it included, against the peak of what
// computes them.
void bench_wide(const Kernels &kernels, const WideForm &form, DType type, int64_t tokens, int64_t rows, int64_t cols,
                double peak) {
  std::mt19937 random(1);
  const std::vector<uint8_t> source = random_rows(type, rows, cols, random);
  Matrix w;
  w.rows = rows;
  w.cols = cols;
  w.type = type;
  w.layout = panel_layout(type, kernels);
  Pages packed(panel_bytes(w) * static_cast<size_t>(w.panels()));
  pack_panels(type, source.data(), w, 0, w.panels(), packed.data());
  w.data = packed.data();
  std::vector<float> x(static_cast<size_t>(tokens * cols), 0.5f), out(static_cast<size_t>(tokens * row_stride(rows)));
  const int64_t tile = form.tile, tiles = (tokens + tile - 1) / tile;
  const size_t tile_size = form.tile_bytes(cols);
  Buffer<uint8_t> packed_x(tile_size * static_cast<size_t>(tiles));
  Buffer<float> scratch(kWideScratch), sums(wide_sums(tokens, form.tile));
  std::vector<int64_t> offsets;
  for (int64_t i = 0; i < tokens; ++i) offsets.push_back(i * row_stride(rows));
  const double pack = best_seconds([&] {
    for (int64_t t = 0; t < tiles; ++t)
      form.pack(x.data(), Grid::rows(cols), t * tile, static_cast<int>(std::min<int64_t>(tile, tokens - t * tile)),
                cols, packed_x.data() + tile_size * static_cast<size_t>(t));
  });
  const double multiply = best_seconds([&] {
    for (int64_t panel = 0; panel < w.panels(); panel += 2) {
      form.multiply(w, packed_x.data(), tokens, panel, sums.data(), scratch.data());
      form.store(sums.data(), w, panel, tokens, out.data(), offsets.data(), Epilogue{});
    }
  });
  const double ops = 2.0 * static_cast<double>(tokens * rows * cols);
  std::printf(
      "%-10s %-5s %4lld tokens %6lld x %-5lld  %8.1f GFLOP/s  %5.1f %% of peak, many tokens  packing %4.1f %%\n",
      kernels.name, type_name(type), static_cast<long long>(tokens), static_cast<long long>(rows),
      static_cast<long long>(cols), ops / multiply / 1e9, 100 * ops / multiply / peak, 100 * pack / (pack + multiply));
}

}  // namespace

int main(int argc, char **argv) {
  const Kernels &kernels = choose_kernels(argc > 1 ? argv[1] : "auto");
  if (kernels.tile_tokens == 0) {
    std::printf("the generic kernels have no packed products\n");
    return 1;
  }
  const double int8 = peak(kernels.peak_int8), f32 = peak(kernels.peak_float);
  std::printf("%s: peak int8 %.1f GOP/s, float32 %.1f GFLOP/s, one thread\n", kernels.name, int8 / 1e9, f32 / 1e9);
  for (const int threads : {1, usable_cpus()}) {
    ThreadPool pool(threads);
    const Roofline r = measure_roofline(kernels, pool);
    std::printf("%d thread(s) together: int8 %.0f GOP/s, float32 %.0f GFLOP/s, memory read %.1f GB/s\n", threads,
                r.int8_ops / 1e9, r.float_ops / 1e9, r.read_bytes / 1e9);
  }
  for (const DType type : {DType::Q4_0, DType::Q4_1, DType::Q8_0, DType::F16}) {
    const double limit = type == DType::F16 ? f32 : int8;
    for (const int64_t tokens : {1, 4, 12, 216}) bench(kernels, type, tokens, 1024, 1024, limit);
    bench(kernels, type, 216, 1024, 3072, limit);
    bench(kernels, type, 1, 1 << 17, 1024, limit);  // far larger than the caches: the decode step's access pattern
  }
  if (kernels.wide_bytes.tokens > 0) {
    const double unit = peak(kernels.peak_wide_bytes);
    const WideForm &form = kernels.wide_bytes;
    std::printf("%s: many tokens in bytes, peak %.1f GOP/s\n", kernels.name, unit / 1e9);
    for (const DType type : {DType::Q4_0, DType::Q4_1})
      for (const int64_t tokens : {24, 48, 64, 96, 104, 217, 416})
        bench_wide(kernels, form, type, tokens, 1024, 1024, unit);
    bench_wide(kernels, form, DType::Q4_0, 217, 1024, 3072, unit);
    bench_wide(kernels, form, DType::Q8_0, 208, 480, 4320, unit);
  }
  if (has_matrix_unit(kernels)) {
    const double unit = peak(kernels.peak_bf16);
    const WideForm &form = kernels.wide_floats;
    std::printf("%s: matrix unit in bfloat16, peak %.1f GFLOP/s\n", kernels.name, unit / 1e9);
    for (const DType type : {DType::Q4_0, DType::Q8_0, DType::F16})
      for (const int64_t tokens : {16, 32, 104, 217, 416}) bench_wide(kernels, form, type, tokens, 1024, 1024, unit);
    bench_wide(kernels, form, DType::Q4_0, 217, 1024, 3072, unit);
    bench_wide(kernels, form, DType::F16, 160, 480, 4320, unit);
  }
  return 0;
}
