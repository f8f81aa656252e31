// WAV files of every encoding, damaged ones, resampling, base64.
#include "audio/wav.h"

#include "base/error.h"
#include "check.h"
#include "synthetic_model.h"

using namespace chatllm;

namespace {

constexpr double kPi = 3.14159265358979323846;
using Bytes = std::vector<uint8_t>;

template <class T>
void put(Bytes *out, T value) {
  test::put_bytes(out, &value, sizeof value);
}
void put_tag(Bytes *out, const char *tag) {
  test::put_bytes(out, tag, 4);
}

struct Format {
  int kind = 1, channels = 1, rate = 16000, bits = 16;
  bool extensible = false;
};

Bytes wav(const Format &f, const Bytes &data) {
  Bytes out;
  put_tag(&out, "RIFF");
  put<uint32_t>(&out, static_cast<uint32_t>(36 + data.size()));
  put_tag(&out, "WAVE");
  put_tag(&out, "fmt ");
  put<uint32_t>(&out, f.extensible ? 40 : 16);
  put<uint16_t>(&out, static_cast<uint16_t>(f.extensible ? 0xFFFE : f.kind));
  put<uint16_t>(&out, static_cast<uint16_t>(f.channels));
  put<uint32_t>(&out, static_cast<uint32_t>(f.rate));
  put<uint32_t>(&out, static_cast<uint32_t>(int64_t{f.rate} * f.channels * f.bits / 8));
  put<uint16_t>(&out, static_cast<uint16_t>(f.channels * f.bits / 8));
  put<uint16_t>(&out, static_cast<uint16_t>(f.bits));
  if (f.extensible) {
    put<uint16_t>(&out, 22);
    put<uint16_t>(&out, static_cast<uint16_t>(f.bits));
    put<uint32_t>(&out, 3);
    put<uint16_t>(&out, static_cast<uint16_t>(f.kind));  // the sub-format's first two bytes
    out.insert(out.end(), {0, 0, 0, 0, 16, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71});
  }
  put_tag(&out, "data");
  put<uint32_t>(&out, static_cast<uint32_t>(data.size()));
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

std::vector<float> decode(const Bytes &bytes) {
  return decode_wav(bytes.data(), bytes.size(), "x.wav", 60);
}

// The samples in an encoding.
Bytes encode(const std::vector<double> &samples, int kind, int bits) {
  Bytes out;
  for (const double x : samples) {
    if (kind == 3 && bits == 32) put<float>(&out, static_cast<float>(x));
    if (kind == 3 && bits == 64) put<double>(&out, x);
    if (kind == 1 && bits == 8) put<uint8_t>(&out, static_cast<uint8_t>(std::lround(x * 128) + 128));
    if (kind == 1 && bits == 16) put<int16_t>(&out, static_cast<int16_t>(std::lround(x * 32768)));
    if (kind == 1 && bits == 24) {
      const int32_t value = static_cast<int32_t>(std::lround(x * 8388608));
      test::put_bytes(&out, &value, 3);
    }
    if (kind == 1 && bits == 32) put<int32_t>(&out, static_cast<int32_t>(std::llround(x * 2147483648.0)));
  }
  return out;
}

const std::vector<double> kSamples = {0, 0.5, -0.5, 0.25, -1, 0.75, -0.125, 127.0 / 128};

}  // namespace

TEST(every_encoding_decodes_to_the_same_samples) {
  const std::pair<int, int> kinds[] = {{1, 8}, {1, 16}, {1, 24}, {1, 32}, {3, 32}, {3, 64}};
  for (const auto &kind : kinds)
    for (const bool extensible : {false, true}) {
      const auto x =
          decode(wav({kind.first, 1, 16000, kind.second, extensible}, encode(kSamples, kind.first, kind.second)));
      CHECK_EQ(x.size(), kSamples.size());
      for (size_t i = 0; i < x.size() && i < kSamples.size(); ++i) CHECK_EQ(static_cast<double>(x[i]), kSamples[i]);
    }
}

TEST(channels_are_averaged) {
  for (const int channels : {2, 4, 8}) {
    std::vector<double> samples;
    for (int i = 0; i < 10; ++i)
      for (int c = 0; c < channels; ++c) samples.push_back(c == 0 ? 0.5 : 0);
    const auto x = decode(wav({1, channels, 16000, 16}, encode(samples, 1, 16)));
    CHECK_EQ(x.size(), size_t{10});
    for (const float value : x) CHECK_NEAR(value, 0.5 / channels, 1e-6);
  }
}

TEST(other_chunks_are_skipped) {
  const Bytes plain = wav({}, encode(kSamples, 1, 16));
  for (const uint32_t length : {0u, 1u, 7u, 8u}) {  // odd lengths are padded
    Bytes bytes(plain.begin(), plain.begin() + 12);
    put_tag(&bytes, "LIST");
    put<uint32_t>(&bytes, length);
    bytes.insert(bytes.end(), (length + 1) / 2 * 2, 'x');
    bytes.insert(bytes.end(), plain.begin() + 12, plain.end());
    CHECK_EQ(decode(bytes).size(), kSamples.size());
  }
  Bytes tail = plain;
  put_tag(&tail, "id3 ");
  put<uint32_t>(&tail, 1000);
  CHECK_EQ(decode(tail).size(), kSamples.size());
}

TEST(lengths_of_streams_and_cut_files) {
  Bytes bytes = wav({}, encode(kSamples, 1, 16));
  for (const uint32_t length : {0xFFFFFFFFu, 0x7FFFFFFFu, 17u}) {
    std::memcpy(&bytes[40], &length, 4);
    CHECK_EQ(decode(bytes).size(), kSamples.size());
  }
  bytes.resize(44 + 5);  // two samples and a half
  CHECK_EQ(decode(bytes).size(), size_t{2});
}

TEST(what_is_no_audio_gets_a_sentence) {
  const Bytes good = wav({}, encode(kSamples, 1, 16));
  CHECK_FAILS(decode({}), "'x.wav' is empty");
  CHECK_FAILS(decode(Bytes(1000, 7)), "is not a WAV file");
  CHECK_FAILS(decode(wav({}, {})), "has no samples");
  CHECK_FAILS(decode(wav({}, {1})), "has no samples");
  CHECK_FAILS(decode(wav({1, 0, 16000, 16}, Bytes(100))), "damaged");
  CHECK_FAILS(decode(wav({1, 300, 16000, 16}, Bytes(1000))), "300 channels");
  CHECK_FAILS(decode(wav({1, 1, 0, 16}, Bytes(100))), "0 Hz");
  CHECK_FAILS(decode(wav({1, 1, 2000000000, 16}, Bytes(100))), "2000000000 Hz");
  CHECK_FAILS(decode(wav({1, 1, 16000, 12}, Bytes(100))), "12 bits");
  CHECK_FAILS(decode(wav({1, 1, 16000, 0}, Bytes(100))), "unknown encoding");
  CHECK_FAILS(decode(wav({3, 1, 16000, 16}, Bytes(100))), "unknown encoding");
  CHECK_FAILS(decode(wav({6, 1, 8000, 8}, Bytes(100))), "unknown encoding");  // A-law
  for (size_t cut = 0; cut < 44; ++cut)
    CHECK_FAILS(decode({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(cut)}), "x.wav");
  CHECK_FAILS(read_wav("/nowhere/a.wav", 60), "cannot open audio file '/nowhere/a.wav'");
  CHECK_FAILS(read_wav(std::filesystem::temp_directory_path().string(), 60), "audio file");
  CHECK_EQ(read_wav(test::TempFile(good, ".wav").path(), 60).size(), kSamples.size());
}

TEST(what_is_too_long_is_refused_before_there_is_memory_for_it) {
  const Bytes second = wav({1, 1, 1000, 8}, Bytes(1000, 128));
  CHECK_EQ(decode_wav(second.data(), second.size(), "x.wav", 1).size(), size_t{16000});
  CHECK_FAILS(decode_wav(second.data(), second.size(), "x.wav", 0.99), "'x.wav' is longer than the 1 s");
  Bytes sparse = wav({1, 1, 16000, 16}, {});
  const uint32_t length = 1 << 30;
  std::memcpy(&sparse[40], &length, 4);
  const test::TempFile file(sparse, ".wav");
  std::filesystem::resize_file(file.path(), length + 44);
  CHECK_FAILS(read_wav(file.path(), 20000), "is longer than the 16777 s");  // 1 GiB of samples as floats
  CHECK_FAILS(read_wav(file.path(), 100), "is longer than the 100 s");
  Bytes far(second.begin(), second.begin() + 12);
  for (int i = 0; i < 2; ++i) {
    put_tag(&far, "junk");
    put<uint32_t>(&far, 600 << 20);
  }
  const test::TempFile holes(far, ".wav");
  std::filesystem::resize_file(holes.path(), 1300 << 20);
  CHECK_FAILS(read_wav(holes.path(), 100), "damaged");
}

TEST(random_mutations_never_crash) {
  test::Random random(4);
  for (int i = 0; i < test::repetitions(3000, 100000); ++i) {
    Bytes bytes = wav({1, 1, 16000, 16, (i & 1) != 0}, encode(kSamples, 1, 16));
    for (int c = 0; c < 3; ++c) bytes[random.below(bytes.size())] = static_cast<uint8_t>(random.next());
    bytes.resize(random.below(bytes.size() + 1));
    try {
      CHECK(!decode(bytes).empty());
    } catch (const Error &e) {
      CHECK(e.status() == Status::BadAudio);
    }
  }
}

// A sine comes back with its frequency, level and phase; what 16 kHz cannot hold disappears.
TEST(resampling_keeps_sines) {
  for (const int rate : {8000, 11025, 22050, 44100, 48000, 96000})
    for (const double frequency : {100.0, 440.0, 1000.0, 3000.0}) {
      std::vector<float> in(static_cast<size_t>(rate));
      for (size_t i = 0; i < in.size(); ++i)
        in[i] = static_cast<float>(std::sin(2 * kPi * frequency * static_cast<double>(i) / rate));
      const auto out = resample(in, rate);
      CHECK_NEAR(static_cast<double>(out.size()), 16000, 1);
      double worst = 0;
      for (size_t i = 400; i + 400 < out.size(); ++i)
        worst = std::max(worst, std::abs(out[i] - std::sin(2 * kPi * frequency * static_cast<double>(i) / 16000)));
      if (!(worst < 2e-3))
        test::failed(
            __FILE__, __LINE__,
            std::to_string(rate) + " Hz, sine of " + test::shown(frequency) + " Hz: error " + test::shown(worst));
    }
}

TEST(resampling_removes_what_would_alias) {
  for (const int rate : {44100, 48000})
    for (const double frequency : {9500.0, 12000.0, 15000.0, 20000.0}) {
      std::vector<float> in(static_cast<size_t>(rate));
      for (size_t i = 0; i < in.size(); ++i)
        in[i] = static_cast<float>(std::sin(2 * kPi * frequency * static_cast<double>(i) / rate));
      const auto out = resample(in, rate);
      double worst = 0;
      for (size_t i = 400; i + 400 < out.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(out[i])));
      if (!(worst < 2e-3))
        test::failed(
            __FILE__, __LINE__,
            std::to_string(rate) + " Hz, sine of " + test::shown(frequency) + " Hz leaves " + test::shown(worst));
    }
}

TEST(resampling_of_odd_inputs) {
  const std::vector<float> one = {0.5f};
  CHECK_EQ(resample(one, 16000).size(), size_t{1});
  CHECK_EQ(resample({}, 8000).size(), size_t{0});
  CHECK_EQ(resample(one, 8000).size(), size_t{2});
  CHECK_EQ(resample(std::vector<float>(1000, 0.25f), 999983).size(), size_t{17});
  const auto constant = resample(std::vector<float>(44100, 0.25f), 44100);
  for (size_t i = 400; i + 400 < constant.size(); ++i) CHECK_NEAR(constant[i], 0.25, 1e-6);
}

TEST(base64) {
  auto text = [](const char *code) {
    const auto bytes = decode_base64(code);
    return std::string(bytes.begin(), bytes.end());
  };
  CHECK_EQ(text(""), "");
  CHECK_EQ(text("Zg=="), "f");
  CHECK_EQ(text("Zm8="), "fo");
  CHECK_EQ(text("Zm9v"), "foo");
  CHECK_EQ(text("Zm9vYg"), "foob");
  CHECK_EQ(text("Zm9v\r\nYmFy\n"), "foobar");
  CHECK_EQ(text("+/A="), "\xFB\xF0");
  CHECK_FAILS(decode_base64("Zm9*"), "not base64");
  CHECK_FAILS(decode_base64("data:audio/wav;base64,AAAA"), "not base64");
}

TEST_MAIN
