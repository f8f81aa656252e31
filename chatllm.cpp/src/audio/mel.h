// Log-mel features as Whisper's feature extractor computes them.
#pragma once

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
  // out[bins][frames]: periodic Hann window, centred frames with reflected borders, power spectrum, Slaney mel filters,
  // log10 with a floor of 1e-10 and of 8 below the clip's maximum, then (x + 4) / 4. `samples` > 0, 16 kHz.
  void compute(const float *pcm, int64_t samples, float *out, ThreadPool &pool) const;

 private:
  static constexpr int kWindow = 400, kHop = 160, kFreqs = kWindow / 2 + 1;
  static constexpr int kLanes = 8;  // transforms side by side, two real frames in each
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
