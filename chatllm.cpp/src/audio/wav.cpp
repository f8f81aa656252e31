#include "audio/wav.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <numeric>

#include "audio/mel.h"
#include "base/error.h"
#include "base/input_file.h"

namespace chatllm {

namespace {

constexpr uint16_t kPcm = 1, kFloat = 3, kExtensible = 0xFFFE;
constexpr size_t kMostChannels = 256;
constexpr size_t kMostSamples = size_t{1} << 28;     // of one channel; 4.6 hours at 16 kHz
constexpr size_t kMostBeforeData = size_t{1} << 30;  // bytes of other chunks

template <class T>
T load(const uint8_t *at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

struct WavFormat {
  uint16_t kind = 0, channels = 0, bits = 0;
  uint32_t rate = 0;
};

float sample(const uint8_t *at, const WavFormat &f) {
  if (f.kind == kFloat) return f.bits == 32 ? load<float>(at) : static_cast<float>(load<double>(at));
  switch (f.bits) {
    case 8:
      return (static_cast<float>(at[0]) - 128.0f) / 128.0f;
    case 16:
      return static_cast<float>(load<int16_t>(at)) / 32768.0f;
    case 24:
      return static_cast<float>(static_cast<int32_t>(static_cast<uint32_t>(at[0]) << 8 |
                                                     static_cast<uint32_t>(at[1]) << 16 |
                                                     static_cast<uint32_t>(at[2]) << 24)) /
             2147483648.0f;
    default:
      return static_cast<float>(load<int32_t>(at)) / 2147483648.0f;
  }
}

// Bytes in order, from memory or a file.
struct Source {
  std::function<size_t(uint8_t *, size_t)> read;  // up to so many bytes; fewer at the end only
  uint64_t left = UINT64_MAX;                     // bytes that follow; UINT64_MAX: unknown, as of a pipe

  size_t take(uint8_t *to, size_t bytes) {
    const size_t got = read(to, bytes);
    if (left != UINT64_MAX) left -= std::min<uint64_t>(left, got);
    return got;
  }
};

class WavReader {
 public:
  WavReader(Source source, const std::string &name, double most_seconds)
      : source_(std::move(source)), name_(name), most_seconds_(most_seconds), block_(size_t{1} << 16) {}

  std::vector<float> read() {
    uint8_t head[40];
    const size_t begin = source_.take(head, 12);
    if (begin == 0) bad("is empty");
    if (begin < 12 || std::memcmp(head, "RIFF", 4) != 0 || std::memcmp(head + 8, "WAVE", 4) != 0)
      bad("is not a WAV file: convert it first (16-bit PCM, 16 kHz, mono is best)");
    for (size_t passed = 0; source_.take(head, 8) == 8;) {
      const size_t length = load<uint32_t>(head + 4);  // writers to a pipe leave 0xFFFFFFFF
      if (std::memcmp(head, "data", 4) == 0) return samples(length);
      passed += 8 + length;
      if (passed > kMostBeforeData) bad("is a damaged WAV file: there is too much before its samples");
      size_t rest = length + length % 2;
      if (std::memcmp(head, "fmt ", 4) == 0 && length >= 16) {
        const size_t got = source_.take(head, std::min(rest, sizeof head));
        if (got < 16) break;
        rest -= got;
        format_.kind = load<uint16_t>(head);
        format_.channels = load<uint16_t>(head + 2);
        format_.rate = load<uint32_t>(head + 4);
        format_.bits = load<uint16_t>(head + 14);
        if (format_.kind == kExtensible && got >= 26) format_.kind = load<uint16_t>(head + 24);
      }
      skip(rest);
    }
    bad("is a damaged WAV file: it has no format or no data");
  }

 private:
  [[noreturn]] void bad(const std::string &why) const { fail(Status::BadAudio, "'" + name_ + "' " + why); }

  void skip(size_t bytes) {
    for (size_t n = 1; bytes > 0 && n > 0; bytes -= n) n = source_.take(block_.data(), std::min(bytes, block_.size()));
  }

  // The samples of a chunk of so many bytes, or up to the end. No more is read, or held, than may be told.
  std::vector<float> samples(size_t bytes) {
    const WavFormat &f = format_;
    if (f.channels == 0) bad("is a damaged WAV file: it has no format or no data");
    const bool known = (f.kind == kPcm && (f.bits == 8 || f.bits == 16 || f.bits == 24 || f.bits == 32)) ||
                       (f.kind == kFloat && (f.bits == 32 || f.bits == 64));
    if (!known) bad(format("is WAV of an unknown encoding (%u, %u bits): convert it to 16-bit PCM", f.kind, f.bits));
    if (f.channels > kMostChannels || f.rate < 1000 || f.rate > 1000000)
      bad(format("is damaged: %u channels at %u Hz", f.channels, f.rate));
    const size_t width = f.bits / 8, frame = width * f.channels, at_a_time = block_.size() / frame;
    const size_t most = static_cast<size_t>(std::min(static_cast<double>(kMostSamples), most_seconds_ * f.rate));
    size_t left = bytes / frame;
    std::vector<float> mono;
    if (source_.left != UINT64_MAX) {  // then nothing is read of what is too long
      left = static_cast<size_t>(std::min<uint64_t>(left, source_.left / frame));
      check(left, most);
      mono.reserve(left);
    }
    while (left > 0) {
      const size_t wanted = std::min(left, at_a_time), got = source_.take(block_.data(), wanted * frame) / frame;
      check(mono.size() + got, most);
      for (size_t i = 0; i < got; ++i) {
        float sum = 0;
        for (size_t c = 0; c < f.channels; ++c) sum += sample(block_.data() + i * frame + c * width, f);
        mono.push_back(sum / static_cast<float>(f.channels));
      }
      left = got < wanted ? 0 : left - got;
    }
    if (mono.empty()) bad("has no samples");
    return resample(mono, static_cast<int>(f.rate));
  }

  void check(size_t samples, size_t most) const {
    if (samples > most)
      fail(Status::TooLong, format("'%s' is longer than the %.0f s that are recognized at a time: cut it first",
                                   name_.c_str(), static_cast<double>(most) / format_.rate));
  }

  Source source_;
  const std::string &name_;
  const double most_seconds_;
  std::vector<uint8_t> block_;
  WavFormat format_;
};

}  // namespace

std::vector<float> decode_wav(const uint8_t *data, size_t size, const std::string &name, double most_seconds) {
  size_t at = 0;
  auto read = [&](uint8_t *to, size_t bytes) {
    bytes = std::min(bytes, size - at);
    if (bytes > 0) std::memcpy(to, data + at, bytes);
    at += bytes;
    return bytes;
  };
  return WavReader({read, size}, name, most_seconds).read();
}

std::vector<float> read_wav(const std::string &path, double most_seconds) {
  struct Close {
    void operator()(FILE *file) const { std::fclose(file); }
  };
#if defined(_WIN32)  // fopen takes the system's code page there
  std::unique_ptr<FILE, Close> file(_wfopen(to_wide(path).c_str(), L"rb"));
#else
  std::unique_ptr<FILE, Close> file(std::fopen(path.c_str(), "rb"));
#endif
  if (!file) fail(Status::BadAudio, format("cannot open audio file '%s': %s", path.c_str(), std::strerror(errno)));
  Source source;
  source.read = [&](uint8_t *to, size_t bytes) {
    const size_t got = std::fread(to, 1, bytes, file.get());
    if (got < bytes && std::ferror(file.get()))
      fail(Status::BadAudio, format("cannot read audio file '%s': %s", path.c_str(), std::strerror(errno)));
    return got;
  };
  std::error_code unknown;
  const auto size = std::filesystem::file_size(std::filesystem::u8path(path), unknown);  // of regular files only
  if (!unknown) source.left = size;
  return WavReader(std::move(source), path, most_seconds).read();
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
