#include "audio/mel.h"

#include <algorithm>
#include <cmath>

namespace chatllm {

namespace {

constexpr double kPi = 3.14159265358979323846;

// Slaney's mel scale: linear below 1 kHz, logarithmic above.
double hertz_to_mel(double f) {
  return f < 1000 ? 3 * f / 200 : 15 + std::log(f / 1000) * (27 / std::log(6.4));
}
double mel_to_hertz(double m) {
  return m < 15 ? 200 * m / 3 : 1000 * std::exp((m - 15) * (std::log(6.4) / 27));
}

}  // namespace

LogMel::LogMel(int bins, int n_fft, int hop) : bins_(bins), n_fft_(n_fft), hop_(hop), freqs_(n_fft / 2 + 1) {
  for (int i = 0; i < n_fft; ++i) {
    window_.push_back(static_cast<float>(0.5 - 0.5 * std::cos(2 * kPi * i / n_fft)));
    cos_.push_back(static_cast<float>(std::cos(2 * kPi * i / n_fft)));
    sin_.push_back(static_cast<float>(-std::sin(2 * kPi * i / n_fft)));
  }
  int rest = n_fft;
  for (int factor : {4, 5, 3, 2})
    for (; rest % factor == 0; rest /= factor) factors_.push_back(factor);
  if (rest > 1) factors_.push_back(rest);

  // Triangles between neighbouring points of the mel scale, each with an area of one (Slaney's normalization).
  std::vector<double> point;
  const double top = hertz_to_mel(kSampleRate / 2);
  for (int i = 0; i < bins + 2; ++i) point.push_back(mel_to_hertz(top * i / (bins + 1)));
  for (int m = 0; m < bins; ++m) {
    Filter filter{-1, {}};
    const double norm = 2 / (point[m + 2] - point[m]);
    for (int k = 0; k < freqs_; ++k) {
      const double f = static_cast<double>(kSampleRate) / 2 * k / (freqs_ - 1);
      const double up = (f - point[m]) / (point[m + 1] - point[m]),
                   down = (point[m + 2] - f) / (point[m + 2] - point[m + 1]);
      const double weight = std::max(0.0, std::min(up, down)) * norm;
      if (weight > 0 && filter.first < 0) filter.first = k;
      if (filter.first >= 0) filter.weights.push_back(static_cast<float>(weight));
    }
    while (!filter.weights.empty() && filter.weights.back() == 0) filter.weights.pop_back();
    filters_.push_back(filter);
  }
}

// Power spectra of up to 2 * kLanes frames: power[freqs][2 kLanes]. Lane l transforms frame l as the real part and
// frame l + kLanes as the imaginary part; their spectra separate by symmetry. Mixed-radix Stockham, all lanes in step.
void LogMel::spectrum(const float *pcm, int64_t samples, int64_t first, int64_t frames, float *work,
                      float *power) const {
  const int n = n_fft_;
  const size_t plane = static_cast<size_t>(n) * kLanes;
  float *re = work, *im = re + plane, *re2 = im + plane, *im2 = re2 + plane;
  for (int half = 0; half < 2; ++half)
    for (int l = 0; l < kLanes; ++l) {
      float *lane = (half ? im : re) + l;
      const int64_t frame = first + half * kLanes + l;
      const int64_t start = frame * hop_ - n / 2;
      for (int i = 0; i < n; ++i) {
        int64_t at = start + i;
        if (frame >= first + frames) {
          lane[i * kLanes] = 0;
          continue;
        }
        // Reflection without repeating the border; more than once when the clip is shorter than half a window.
        if (at < 0 || at >= samples) {
          const int64_t period = std::max<int64_t>(2 * (samples - 1), 1);
          at = (at % period + period) % period;
          if (at >= samples) at = period - at;
        }
        lane[i * kLanes] = pcm[at] * window_[static_cast<size_t>(i)];
      }
    }
  int done = 1;  // length of the transforms so far
  for (int factor : factors_) {
    const int groups = n / (done * factor);
    for (int k = 0; k < done; ++k)
      for (int g = 0; g < groups; ++g)
        for (int q = 0; q < factor; ++q) {
          float sum_re[kLanes] = {}, sum_im[kLanes] = {};
          for (int p = 0; p < factor; ++p) {
            // exp(-2 pi i p (k + q done) / (done factor)): the twiddle and the butterfly in one
            const size_t turn =
                static_cast<size_t>(static_cast<int64_t>(p) * (k + q * done) % (done * factor) * groups);
            const float c = cos_[turn], s = sin_[turn];
            const float *a = re + static_cast<size_t>((p * groups + g) * done + k) * kLanes;
            const float *b = im + static_cast<size_t>((p * groups + g) * done + k) * kLanes;
            for (int l = 0; l < kLanes; ++l) {
              sum_re[l] += a[l] * c - b[l] * s;
              sum_im[l] += a[l] * s + b[l] * c;
            }
          }
          float *to_re = re2 + static_cast<size_t>((g * factor + q) * done + k) * kLanes;
          float *to_im = im2 + static_cast<size_t>((g * factor + q) * done + k) * kLanes;
          for (int l = 0; l < kLanes; ++l) to_re[l] = sum_re[l], to_im[l] = sum_im[l];
        }
    std::swap(re, re2);
    std::swap(im, im2);
    done *= factor;
  }
  for (int k = 0; k < freqs_; ++k) {
    const size_t mirror = static_cast<size_t>((n - k) % n) * kLanes, here = static_cast<size_t>(k) * kLanes;
    float *out = power + static_cast<size_t>(k) * 2 * kLanes;
    for (int l = 0; l < kLanes; ++l) {
      const float a = re[here + l], b = im[here + l], c = re[mirror + l], d = im[mirror + l];
      out[l] = 0.25f * ((a + c) * (a + c) + (b - d) * (b - d));
      out[l + kLanes] = 0.25f * ((b + d) * (b + d) + (c - a) * (c - a));
    }
  }
}

void LogMel::compute(const float *pcm, int64_t samples, float *out, ThreadPool &pool) const {
  constexpr int kBatch = 2 * kLanes;
  const int64_t count = frames(samples), batches = (count + kBatch - 1) / kBatch;
  const size_t work = static_cast<size_t>(n_fft_) * kLanes * 4, power = static_cast<size_t>(freqs_) * kBatch;
  Buffer<float> scratch((work + power) * static_cast<size_t>(pool.size()));
  std::vector<float> top(static_cast<size_t>(pool.size()), -10.0f);
  pool.run(batches, [&](int64_t batch, int thread) {
    float *mine = scratch.data() + (work + power) * static_cast<size_t>(thread);
    const int64_t first = batch * kBatch, valid = std::min<int64_t>(kBatch, count - first);
    spectrum(pcm, samples, first, valid, mine, mine + work);
    for (int m = 0; m < bins_; ++m) {
      const Filter &filter = filters_[static_cast<size_t>(m)];
      float sum[kBatch] = {};
      const float *spectrum_row = mine + work + static_cast<size_t>(std::max(filter.first, 0)) * kBatch;
      for (const float weight : filter.weights) {
        for (int l = 0; l < kBatch; ++l) sum[l] += weight * spectrum_row[l];
        spectrum_row += kBatch;
      }
      for (int64_t l = 0; l < valid; ++l) {
        const float value = std::log10(std::max(sum[l], 1e-10f));
        out[m * count + first + l] = value;
        top[static_cast<size_t>(thread)] = std::max(top[static_cast<size_t>(thread)], value);
      }
    }
  });
  const float floor = *std::max_element(top.begin(), top.end()) - 8.0f;
  pool.run(bins_, [&](int64_t m, int) {
    for (float *value = out + m * count; value != out + (m + 1) * count; ++value)
      *value = (std::max(*value, floor) + 4.0f) / 4.0f;
  });
}

}  // namespace chatllm
