// The log-mel features against the definition, computed with a naive transform in double precision.
#include "audio/mel.h"

#include <algorithm>

#include "check.h"
#include "synthetic_model.h"

using namespace chatllm;

namespace {

constexpr double kPi = 3.14159265358979323846;

// Slaney's filter bank as librosa.filters.mel defines it, with 200 / 3 Hz a mel below 1 kHz and 27 steps to 6.4 kHz.
std::vector<std::vector<double>> filter_bank(int bins) {
  auto hertz = [](double mel) { return mel < 15 ? mel * 200 / 3 : 1000 * std::exp(std::log(6.4) / 27 * (mel - 15)); };
  const double top = 15 + std::log(8.0) / (std::log(6.4) / 27);
  std::vector<std::vector<double>> bank;
  for (int m = 0; m < bins; ++m) {
    const double a = hertz(top * m / (bins + 1)), b = hertz(top * (m + 1) / (bins + 1)),
                 c = hertz(top * (m + 2) / (bins + 1));
    std::vector<double> weights;
    for (int k = 0; k <= 200; ++k) {
      const double f = 40.0 * k;
      weights.push_back(std::max(0.0, std::min((f - a) / (b - a), (c - f) / (c - b))) * 2 / (c - a));
    }
    bank.push_back(weights);
  }
  return bank;
}

std::vector<double> log_mel(const std::vector<float> &pcm, int bins) {
  const int64_t n = static_cast<int64_t>(pcm.size()), frames = n / 160;
  const auto bank = filter_bank(bins);
  std::vector<double> out(static_cast<size_t>(bins * frames));
  double top = -10;
  for (int64_t t = 0; t < frames; ++t) {
    std::vector<double> power;
    for (int k = 0; k <= 200; ++k) {
      double re = 0, im = 0;
      for (int i = 0; i < 400; ++i) {
        int64_t at = t * 160 + i - 200;
        while (at < 0 || at >= n) at = n == 1 ? 0 : at < 0 ? -at : 2 * (n - 1) - at;
        const double x = pcm[static_cast<size_t>(at)] * (0.5 - 0.5 * std::cos(2 * kPi * i / 400));
        re += x * std::cos(2 * kPi * k * i / 400);
        im -= x * std::sin(2 * kPi * k * i / 400);
      }
      power.push_back(re * re + im * im);
    }
    for (int m = 0; m < bins; ++m) {
      double sum = 0;
      for (size_t k = 0; k <= 200; ++k) sum += bank[static_cast<size_t>(m)][k] * power[k];
      const double value = std::log10(std::max(sum, 1e-10));
      top = std::max(top, value);
      out[static_cast<size_t>(m * frames + t)] = value;
    }
  }
  for (double &value : out) value = (std::max(value, top - 8) + 4) / 4;
  return out;
}

void compare(const std::vector<float> &pcm, int bins, int threads, double tolerance) {
  ThreadPool pool(threads);
  const LogMel mel(bins);
  const auto expected = log_mel(pcm, bins);
  std::vector<float> out(expected.size() + 1, -99);
  mel.compute(pcm.data(), static_cast<int64_t>(pcm.size()), out.data(), pool);
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) worst = std::max(worst, std::abs(out[i] - expected[i]));
  if (!(worst <= tolerance))
    test::failed(__FILE__, __LINE__,
                 "largest difference " + test::shown(worst) + " for " + std::to_string(pcm.size()) + " samples");
  CHECK_EQ(out.back(), -99.0f);
}

}  // namespace

TEST(the_features_of_a_sound) {
  compare(test::sound(0.5), 128, 1, 2e-4);
  compare(test::sound(0.777, 2), 80, 3, 2e-4);
}

TEST(clips_shorter_than_the_window) {
  for (const size_t samples : {160, 161, 199, 200, 201, 319, 320, 399, 400, 401}) {
    auto pcm = test::sound(0.03, samples);
    pcm.resize(samples);
    compare(pcm, 128, 2, 2e-4);
  }
}

TEST(every_count_of_frames_in_a_batch) {
  auto pcm = test::sound(0.4, 4);
  for (size_t frames = 1; frames <= 34; frames += 3)
    compare({pcm.begin(), pcm.begin() + static_cast<std::ptrdiff_t>(frames * 160)}, 40, 2, 2e-4);
}

TEST(silence_and_a_click) {
  std::vector<float> pcm(1600);
  ThreadPool pool(2);
  const LogMel mel(128);
  std::vector<float> out(1280);
  mel.compute(pcm.data(), 1600, out.data(), pool);
  for (const float value : out) CHECK_EQ(value, -1.5f);  // (log10(1e-10) + 4) / 4
  pcm[800] = 1;
  compare(pcm, 128, 2, 2e-4);
}

TEST(a_sine_peaks_at_its_own_bin) {
  ThreadPool pool(2);
  const LogMel mel(128);
  for (const double frequency : {250.0, 1000.0, 3000.0, 7000.0}) {
    std::vector<float> pcm(16000);
    for (size_t i = 0; i < pcm.size(); ++i)
      pcm[i] = static_cast<float>(0.5 * std::sin(2 * kPi * frequency * static_cast<double>(i) / 16000));
    std::vector<float> out(12800);
    mel.compute(pcm.data(), 16000, out.data(), pool);
    int best = 0;
    for (int m = 1; m < 128; ++m)
      if (out[static_cast<size_t>(m * 100 + 50)] > out[static_cast<size_t>(best * 100 + 50)]) best = m;
    const auto bank = filter_bank(128);
    CHECK(bank[static_cast<size_t>(best)][static_cast<size_t>(std::lround(frequency / 40))] > 0);
  }
}

TEST(the_number_of_threads_changes_nothing) {
  const auto pcm = test::sound(2.3);
  std::vector<float> one(128 * 230), many(128 * 230);
  ThreadPool single(1), pool(5);
  const LogMel mel(128);
  mel.compute(pcm.data(), static_cast<int64_t>(pcm.size()), one.data(), single);
  mel.compute(pcm.data(), static_cast<int64_t>(pcm.size()), many.data(), pool);
  CHECK(one == many);
}

TEST_MAIN
