#include "audio/wav.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>

#include "audio/mel.h"
#include "base/error.h"
#include "base/mapped_file.h"

namespace chatllm {

namespace {

constexpr uint16_t kPcm = 1, kFloat = 3, kExtensible = 0xFFFE;
constexpr size_t kLargestFile = size_t{4} << 30;

template <class T>
T read(const uint8_t *at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

struct WavFormat {
  uint16_t kind = 0, channels = 0, bits = 0;
  uint32_t rate = 0;
};

float sample(const uint8_t *at, const WavFormat &f) {
  if (f.kind == kFloat) return f.bits == 32 ? read<float>(at) : static_cast<float>(read<double>(at));
  switch (f.bits) {
    case 8:
      return (static_cast<float>(at[0]) - 128.0f) / 128.0f;
    case 16:
      return static_cast<float>(read<int16_t>(at)) / 32768.0f;
    case 24:
      return static_cast<float>(static_cast<int32_t>(static_cast<uint32_t>(at[0]) << 8 |
                                                     static_cast<uint32_t>(at[1]) << 16 |
                                                     static_cast<uint32_t>(at[2]) << 24)) /
             2147483648.0f;
    default:
      return static_cast<float>(read<int32_t>(at)) / 2147483648.0f;
  }
}

}  // namespace

std::vector<float> decode_wav(const uint8_t *data, size_t size, const std::string &name) {
  auto bad = [&](const std::string &why) { fail(Status::BadAudio, "'" + name + "' " + why); };
  if (size == 0) bad("is empty");
  if (size < 12 || std::memcmp(data, "RIFF", 4) != 0 || std::memcmp(data + 8, "WAVE", 4) != 0)
    bad("is not a WAV file: convert it first (16-bit PCM, 16 kHz, mono is best)");
  WavFormat f;
  const uint8_t *samples = nullptr;
  size_t bytes = 0;
  for (size_t at = 12; at + 8 <= size && samples == nullptr;) {
    const size_t length =
        std::min<size_t>(read<uint32_t>(data + at + 4), size - at - 8);  // writers to a pipe leave 0xFFFFFFFF
    const uint8_t *body = data + at + 8;
    if (std::memcmp(data + at, "fmt ", 4) == 0 && length >= 16) {
      f.kind = read<uint16_t>(body);
      f.channels = read<uint16_t>(body + 2);
      f.rate = read<uint32_t>(body + 4);
      f.bits = read<uint16_t>(body + 14);
      if (f.kind == kExtensible && length >= 26) f.kind = read<uint16_t>(body + 24);
    } else if (std::memcmp(data + at, "data", 4) == 0) {
      samples = body;
      bytes = length;
    }
    at += 8 + length + length % 2;
  }
  const bool known = (f.kind == kPcm && (f.bits == 8 || f.bits == 16 || f.bits == 24 || f.bits == 32)) ||
                     (f.kind == kFloat && (f.bits == 32 || f.bits == 64));
  if (samples == nullptr || f.channels == 0) bad("is a damaged WAV file: it has no format or no data");
  if (!known) bad(format("is WAV of an unknown encoding (%u, %u bits): convert it to 16-bit PCM", f.kind, f.bits));
  if (f.channels > 256 || f.rate < 1000 || f.rate > 1000000)
    bad(format("is damaged: %u channels at %u Hz", f.channels, f.rate));
  const size_t width = f.bits / 8, frame = width * f.channels, count = bytes / frame;
  if (count == 0) bad("has no samples");
  std::vector<float> mono(count);
  for (size_t i = 0; i < count; ++i) {
    float sum = 0;
    for (size_t c = 0; c < f.channels; ++c) sum += sample(samples + i * frame + c * width, f);
    mono[i] = sum / static_cast<float>(f.channels);
  }
  return resample(mono, static_cast<int>(f.rate));
}

std::vector<float> read_wav(const std::string &path) {
  struct Close {
    void operator()(FILE *file) const { std::fclose(file); }
  };
#if defined(_WIN32)  // fopen takes the system's code page there
  std::unique_ptr<FILE, Close> file(_wfopen(to_wide(path).c_str(), L"rb"));
#else
  std::unique_ptr<FILE, Close> file(std::fopen(path.c_str(), "rb"));
#endif
  if (!file) fail(Status::BadAudio, format("cannot open audio file '%s': %s", path.c_str(), std::strerror(errno)));
  std::vector<uint8_t> data;
  uint8_t part[1 << 16];
  for (size_t n; (n = std::fread(part, 1, sizeof part, file.get())) > 0;) {
    if (data.size() + n > kLargestFile)
      fail(Status::BadAudio, format("audio file '%s' is larger than 4 GiB: cut it first", path.c_str()));
    data.insert(data.end(), part, part + n);
  }
  if (std::ferror(file.get()))
    fail(Status::BadAudio, format("cannot read audio file '%s': %s", path.c_str(), std::strerror(errno)));
  return decode_wav(data.data(), data.size(), path);
}

std::vector<float> resample(const std::vector<float> &pcm, int rate) {
  if (rate == kSampleRate || pcm.empty()) return pcm;
  // Output i lies at input i * rate / 16000; a Hann-windowed sinc of 24 zero crossings, cut at the lower Nyquist
  // frequency.
  constexpr double kPi = 3.14159265358979323846;
  constexpr int kCrossings = 24;
  const int divisor = std::gcd(rate, kSampleRate), up = kSampleRate / divisor, down = rate / divisor;
  const double cutoff = std::min(1.0, static_cast<double>(kSampleRate) / rate) * 0.95;
  const int reach = static_cast<int>(std::ceil(kCrossings / cutoff));
  std::vector<float> taps;  // of the phase at hand; phases repeat every `up` outputs
  const int64_t count = (static_cast<int64_t>(pcm.size()) * up + down - 1) / down,
                samples = static_cast<int64_t>(pcm.size());
  std::vector<float> out(static_cast<size_t>(count));
  for (int phase = 0; phase < up && phase < count; ++phase) {
    const double offset = static_cast<double>(static_cast<int64_t>(phase) * down % up) / up;
    taps.clear();
    double sum = 0;
    for (int k = -reach + 1; k <= reach; ++k) {
      const double x = (k - offset) * cutoff, w = (k - offset) / reach;
      const double sinc = x == 0 ? 1 : std::sin(kPi * x) / (kPi * x);
      const double value = std::abs(w) < 1 ? sinc * (0.5 + 0.5 * std::cos(kPi * w)) : 0;
      taps.push_back(static_cast<float>(value));
      sum += value;
    }
    for (float &tap : taps) tap = static_cast<float>(tap / sum);  // a constant stays what it is
    for (int64_t i = phase; i < count; i += up) {
      const int64_t first = i * down / up - reach + 1;
      float value = 0;
      for (int64_t k = std::max<int64_t>(0, -first); k < static_cast<int64_t>(taps.size()) && first + k < samples; ++k)
        value += taps[static_cast<size_t>(k)] * pcm[static_cast<size_t>(first + k)];
      out[static_cast<size_t>(i)] = value;
    }
  }
  return out;
}

std::vector<uint8_t> decode_base64(const char *text) {
  std::vector<uint8_t> bytes;
  uint32_t bits = 0;
  int have = 0;
  for (; *text != '\0' && *text != '='; ++text) {
    const char c = *text;
    if (c == '\n' || c == '\r') continue;
    const int value = c >= 'A' && c <= 'Z'   ? c - 'A'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 26
                      : c >= '0' && c <= '9' ? c - '0' + 52
                      : c == '+'             ? 62
                      : c == '/'             ? 63
                                             : -1;
    if (value < 0) fail(Status::BadArgument, "the audio data of the message is not base64");
    bits = bits << 6 | static_cast<uint32_t>(value);
    have += 6;
    if (have >= 8) {
      have -= 8;
      bytes.push_back(static_cast<uint8_t>(bits >> have));
    }
  }
  return bytes;
}

}  // namespace chatllm
