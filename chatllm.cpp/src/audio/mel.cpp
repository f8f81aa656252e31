#include "audio/mel.h"

#include <algorithm>
#include <cmath>
#include <cstring>

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

// log10 of positive normal numbers, in place, as a loop that compilers vectorize: x = m 2^e with m in [sqrt 1/2,
// sqrt 2), log m by the polynomial of Cephes' logf, relative error under 2e-7.
void log10_all(float *x, int n) {
  constexpr float kCoefficients[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                                     -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                                     2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
  for (int i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i, 4);
    constexpr uint32_t kRoot = 0x3F3504F3;  // sqrt 1/2
    const uint32_t exponent = (bits - kRoot) & 0xFF800000u;
    const uint32_t mantissa = bits - exponent;
    float m;
    std::memcpy(&m, &mantissa, 4);
    const float e = static_cast<float>(static_cast<int32_t>(exponent)) * (1.0f / 8388608.0f);
    m -= 1.0f;
    float p = kCoefficients[0];
    for (int c = 1; c < 9; ++c) p = p * m + kCoefficients[c];
    const float square = m * m;
    const float log_m = m + (m * square * p - 0.5f * square);
    x[i] = log_m * 0.43429448190f + e * 0.30102999566f;
  }
}

}  // namespace

LogMel::LogMel(int bins) : bins_(bins) {
  for (int i = 0; i < kWindow; ++i) {
    window_.push_back(static_cast<float>(0.5 - 0.5 * std::cos(2 * kPi * i / kWindow)));
    cos_.push_back(static_cast<float>(std::cos(2 * kPi * i / kWindow)));
    sin_.push_back(static_cast<float>(-std::sin(2 * kPi * i / kWindow)));
  }

  // Triangles between neighbouring points of the mel scale, each with an area of one (Slaney's normalization).
  std::vector<double> point;
  const double top = hertz_to_mel(kSampleRate / 2);
  for (int i = 0; i < bins + 2; ++i) point.push_back(mel_to_hertz(top * i / (bins + 1)));
  for (int m = 0; m < bins; ++m) {
    Filter filter{-1, {}};
    const double norm = 2 / (point[m + 2] - point[m]);
    for (int k = 0; k < kFreqs; ++k) {
      const double f = static_cast<double>(kSampleRate) / 2 * k / (kFreqs - 1);
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

// One pass of a mixed-radix Stockham transform, decimation in time: kFactor transforms of length kDone become one.
// `from` and `to` hold kWindow real parts, then as many imaginary ones, all lanes in step.
template <int kFactor, int kDone>
void LogMel::pass(const float *from, float *to) const {
  constexpr int kGroups = kWindow / (kDone * kFactor), kStep = kGroups * kDone, kPairs = (kFactor - 1) / 2;
  for (int k = 0; k < kDone; ++k)
    for (int g = 0; g < kGroups; ++g) {
      const float *re = from + (g * kDone + k) * kLanes, *im = re + kWindow * kLanes;
      float *to_re = to + (g * kFactor * kDone + k) * kLanes, *to_im = to_re + kWindow * kLanes;
      auto store = [&](int q, int l, float x, float y) {
        to_re[q * kDone * kLanes + l] = x;
        to_im[q * kDone * kLanes + l] = y;
      };
      // kFactor values, each times its power of exp(-2 pi i k / (kDone kFactor)).
      float a[kFactor][kLanes], b[kFactor][kLanes];
      for (int p = 0; p < kFactor; ++p) {
        const size_t turn = static_cast<size_t>(p * k * kGroups);
        const float c = cos_[turn], s = sin_[turn], *x = re + p * kStep * kLanes, *y = im + p * kStep * kLanes;
        for (int l = 0; l < kLanes; ++l) {
          a[p][l] = x[l] * c - y[l] * s;
          b[p][l] = x[l] * s + y[l] * c;
        }
      }
      // Their discrete Fourier transform.
      if constexpr (kFactor == 4) {
        for (int l = 0; l < kLanes; ++l) {
          const float sum_re = a[0][l] + a[2][l], sum_im = b[0][l] + b[2][l];
          const float difference_re = a[0][l] - a[2][l], difference_im = b[0][l] - b[2][l];
          const float odd_re = a[1][l] + a[3][l], odd_im = b[1][l] + b[3][l];
          const float turned_re = b[1][l] - b[3][l], turned_im = a[3][l] - a[1][l];  // -i (x1 - x3)
          store(0, l, sum_re + odd_re, sum_im + odd_im);
          store(1, l, difference_re + turned_re, difference_im + turned_im);
          store(2, l, sum_re - odd_re, sum_im - odd_im);
          store(3, l, difference_re - turned_re, difference_im - turned_im);
        }
      } else {  // values p and kFactor - p together: the cosines meet their sum, the sines their difference
        static_assert(kFactor % 2 == 1, "every value but the first has a partner");
        for (int q = 0; q <= kPairs; ++q) {
          float even_re[kLanes], even_im[kLanes], odd_re[kLanes] = {}, odd_im[kLanes] = {};
          for (int l = 0; l < kLanes; ++l) even_re[l] = a[0][l], even_im[l] = b[0][l];
          for (int p = 1; p <= kPairs; ++p) {
            const size_t turn = static_cast<size_t>(p * q % kFactor * (kWindow / kFactor));
            const float c = cos_[turn], s = sin_[turn];
            for (int l = 0; l < kLanes; ++l) {
              even_re[l] += c * (a[p][l] + a[kFactor - p][l]);
              even_im[l] += c * (b[p][l] + b[kFactor - p][l]);
              odd_re[l] -= s * (b[p][l] - b[kFactor - p][l]);
              odd_im[l] += s * (a[p][l] - a[kFactor - p][l]);
            }
          }
          for (int l = 0; l < kLanes; ++l) store(q, l, even_re[l] + odd_re[l], even_im[l] + odd_im[l]);
          if (q == 0) continue;
          for (int l = 0; l < kLanes; ++l) store(kFactor - q, l, even_re[l] - odd_re[l], even_im[l] - odd_im[l]);
        }
      }
    }
}

// Power spectra of up to 2 * kLanes frames: power[kFreqs][2 kLanes]. Lane l transforms frame l as the real part and
// frame l + kLanes as the imaginary part; their spectra separate by symmetry. `work` holds 4 kWindow kLanes floats.
void LogMel::spectrum(const float *pcm, int64_t samples, int64_t first, int64_t frames, float *work,
                      float *power) const {
  float *other = work + 2 * kWindow * kLanes;
  for (int lane = 0; lane < 2 * kLanes; ++lane) {
    float *out = work + lane / kLanes * kWindow * kLanes + lane % kLanes;
    const int64_t start = (first + lane) * kHop - kWindow / 2;
    if (lane >= frames) {
      for (int i = 0; i < kWindow; ++i) out[i * kLanes] = 0;
    } else if (start >= 0 && start + kWindow <= samples) {
      for (int i = 0; i < kWindow; ++i) out[i * kLanes] = pcm[start + i] * window_[static_cast<size_t>(i)];
    } else {
      // Reflection without repeating the border; more than once when the clip is shorter than half a window.
      const int64_t period = std::max<int64_t>(2 * (samples - 1), 1);
      for (int i = 0; i < kWindow; ++i) {
        int64_t at = ((start + i) % period + period) % period;
        if (at >= samples) at = period - at;
        out[i * kLanes] = pcm[at] * window_[static_cast<size_t>(i)];
      }
    }
  }
  pass<4, 1>(work, other);
  pass<4, 4>(other, work);
  pass<5, 16>(work, other);
  pass<5, 80>(other, work);
  const float *re = work, *im = work + kWindow * kLanes;
  for (int k = 0; k < kFreqs; ++k) {
    const int mirror = (kWindow - k) % kWindow * kLanes, here = k * kLanes;
    float *out = power + k * 2 * kLanes;
    for (int l = 0; l < kLanes; ++l) {
      const float a = re[here + l], b = im[here + l], c = re[mirror + l], d = im[mirror + l];
      out[l] = 0.25f * ((a + c) * (a + c) + (b - d) * (b - d));
      out[l + kLanes] = 0.25f * ((b + d) * (b + d) + (c - a) * (c - a));
    }
  }
}

float LogMel::power(const float *pcm, int64_t samples, int64_t first, int64_t end, float *out, ThreadPool &pool) const {
  const int64_t batches = (end - first + kBatch - 1) / kBatch;
  constexpr size_t work = kWindow * kLanes * 4, power = kFreqs * kBatch;
  Buffer<float> scratch((work + power) * static_cast<size_t>(pool.size()));
  std::vector<float> top(static_cast<size_t>(pool.size()), -10.0f);
  pool.run(batches, [&](int64_t batch, int thread) {
    float *mine = scratch.data() + (work + power) * static_cast<size_t>(thread);
    const int64_t frame = first + batch * kBatch, valid = std::min<int64_t>(kBatch, end - frame);
    spectrum(pcm, samples, frame, valid, mine, mine + work);
    for (int m = 0; m < bins_; ++m) {
      const Filter &filter = filters_[static_cast<size_t>(m)];
      float sum[kBatch] = {};
      const float *spectrum_row = mine + work + static_cast<size_t>(std::max(filter.first, 0)) * kBatch;
      for (const float weight : filter.weights) {
        for (int l = 0; l < kBatch; ++l) sum[l] += weight * spectrum_row[l];
        spectrum_row += kBatch;
      }
      for (float &value : sum) value = std::max(value, 1e-10f);
      log10_all(sum, kBatch);
      for (float &value : sum) value = std::max(value, -10.0f);  // exactly, where there was nothing
      float &mine_top = top[static_cast<size_t>(thread)];
      mine_top = std::max(mine_top, *std::max_element(sum, sum + valid));
      float *column = out + (frame - first) * bins_ + m;
      for (int64_t l = 0; l < valid; ++l) column[l * bins_] = sum[l];
    }
  });
  return *std::max_element(top.begin(), top.end());
}

void LogMel::compute(const float *pcm, int64_t samples, float *out, ThreadPool &pool) const {
  const int64_t count = frames(samples);
  Buffer<float> rows(static_cast<size_t>(count * bins_));
  const float top = power(pcm, samples, 0, count, rows.data(), pool);
  pool.run(bins_, [&](int64_t m, int) {
    for (int64_t t = 0; t < count; ++t) out[m * count + t] = floor(rows.data()[t * bins_ + m], top);
  });
}

}  // namespace chatllm
