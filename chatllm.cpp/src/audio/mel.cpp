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

// One butterfly of a decimation in time: `factor` values, each times its power of exp(-2 pi i k / (done factor)), and
// their discrete Fourier transform.
void LogMel::butterfly(int factor, int done, int groups, int k, int g, const float *re, const float *im, float *to_re,
                       float *to_im) const {
  constexpr int kMost = 5;
  const size_t from = static_cast<size_t>(g * done + k) * kLanes, step = static_cast<size_t>(groups * done) * kLanes;
  const size_t to = static_cast<size_t>(g * factor * done + k) * kLanes, to_step = static_cast<size_t>(done) * kLanes;
  auto turn = [&](int64_t quarter) { return static_cast<size_t>(quarter % (done * factor) * groups); };
  if (factor > kMost) {  // a prime: by the definition
    for (int q = 0; q < factor; ++q) {
      float sum_re[kLanes] = {}, sum_im[kLanes] = {};
      for (int p = 0; p < factor; ++p) {
        const size_t t = turn(static_cast<int64_t>(p) * (k + q * done));
        const float *a = re + from + static_cast<size_t>(p) * step, *b = im + from + static_cast<size_t>(p) * step;
        for (int l = 0; l < kLanes; ++l) {
          sum_re[l] += a[l] * cos_[t] - b[l] * sin_[t];
          sum_im[l] += a[l] * sin_[t] + b[l] * cos_[t];
        }
      }
      std::copy_n(sum_re, kLanes, to_re + to + static_cast<size_t>(q) * to_step);
      std::copy_n(sum_im, kLanes, to_im + to + static_cast<size_t>(q) * to_step);
    }
    return;
  }
  float a[kMost][kLanes], b[kMost][kLanes];
  for (int p = 0; p < factor; ++p) {
    const size_t t = turn(static_cast<int64_t>(p) * k);
    const float c = cos_[t], s = sin_[t];
    const float *x = re + from + static_cast<size_t>(p) * step, *y = im + from + static_cast<size_t>(p) * step;
    for (int l = 0; l < kLanes; ++l) {
      a[p][l] = x[l] * c - y[l] * s;
      b[p][l] = x[l] * s + y[l] * c;
    }
  }
  auto store = [&](int q, int l, float x, float y) {
    to_re[to + static_cast<size_t>(q) * to_step + static_cast<size_t>(l)] = x;
    to_im[to + static_cast<size_t>(q) * to_step + static_cast<size_t>(l)] = y;
  };
  if (factor == 4) {
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
    return;
  }
  // Values p and factor - p together: the cosines meet their sum, the sines their difference.
  const int pairs = (factor - 1) / 2;
  for (int q = 0; q <= factor / 2; ++q)
    for (int l = 0; l < kLanes; ++l) {
      float even_re = a[0][l], even_im = b[0][l], odd_re = 0, odd_im = 0;
      for (int p = 1; p <= pairs; ++p) {
        const size_t t = turn(static_cast<int64_t>(p * q) * done);
        const float c = cos_[t], s = sin_[t];
        even_re += c * (a[p][l] + a[factor - p][l]);
        even_im += c * (b[p][l] + b[factor - p][l]);
        odd_re -= s * (b[p][l] - b[factor - p][l]);
        odd_im += s * (a[p][l] - a[factor - p][l]);
      }
      if (factor == 2) even_re += q == 0 ? a[1][l] : -a[1][l], even_im += q == 0 ? b[1][l] : -b[1][l];
      store(q, l, even_re + odd_re, even_im + odd_im);
      if (q > 0 && q != factor - q) store(factor - q, l, even_re - odd_re, even_im - odd_im);
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
  for (const int factor : factors_) {
    const int groups = n / (done * factor);
    for (int k = 0; k < done; ++k)
      for (int g = 0; g < groups; ++g) butterfly(factor, done, groups, k, g, re, im, re2, im2);
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
      for (float &value : sum) value = std::max(value, 1e-10f);
      log10_all(sum, kBatch);
      for (float &value : sum) value = std::max(value, -10.0f);  // exactly, where there was nothing
      float &mine_top = top[static_cast<size_t>(thread)];
      mine_top = std::max(mine_top, *std::max_element(sum, sum + valid));
      std::copy_n(sum, valid, out + m * count + first);
    }
  });
  const float floor = *std::max_element(top.begin(), top.end()) - 8.0f;
  pool.run(bins_, [&](int64_t m, int) {
    for (float *value = out + m * count; value != out + (m + 1) * count; ++value)
      *value = (std::max(*value, floor) + 4.0f) / 4.0f;
  });
}

}  // namespace chatllm
