// Log-mel features as Whisper's feature extractor computes them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/memory.h"
#include "base/thread_pool.h"

namespace chatllm {

constexpr int kSampleRate = 16000;

class LogMel {
 public:
  explicit LogMel(int bins);

  int bins() const { return bins_; }
  int64_t frames(int64_t samples) const { return samples / kHop; }
  // The first frames of a clip of at least this many samples are the same in every longer one: a multiple of kBatch,
  // the frames that are computed together.
  int64_t final_frames(int64_t samples) const {
    return samples < kWindow / 2 ? 0 : ((samples - kWindow / 2) / kHop + 1) / kBatch * kBatch;
  }

  // Frames [first, end) of a clip, first a multiple of kBatch, to out[end - first][bins]: periodic Hann window, centred
  // frames with reflected borders, power spectrum, Slaney mel filters, log10 with a floor of 1e-10. Returns the largest
  // of them. `samples` > 0, 16 kHz.
  float power(const float *pcm, int64_t samples, int64_t first, int64_t end, float *out, ThreadPool &pool) const;
  // What the model reads: a clip's power has a floor 8 below its maximum `top`.
  static float floor(float power, float top) { return (std::max(power, top - 8.0f) + 4.0f) / 4.0f; }
  // Both, for a whole clip: out[bins][frames].
  void compute(const float *pcm, int64_t samples, float *out, ThreadPool &pool) const;

  static constexpr int kBatch = 16;

 private:
  static constexpr int kWindow = 400, kHop = 160, kFreqs = kWindow / 2 + 1;
  static constexpr int kLanes = kBatch / 2;  // transforms side by side, two real frames in each
  template <int kFactor, int kDone>
  void pass(const float *from, float *to) const;
  void spectrum(const float *pcm, int64_t samples, int64_t first, int64_t frames, float *work, float *power) const;

  int bins_;
  std::vector<float> window_, cos_, sin_;
  struct Filter {
    int first;
    std::vector<float> weights;
  };
  std::vector<Filter> filters_;
};

}  // namespace chatllm
