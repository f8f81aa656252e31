// RIFF/WAVE audio -> 16 kHz mono float32. Headers are checked before use; nothing is read past the data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace chatllm {

// PCM of 8, 16, 24 or 32 bits and float of 32 or 64 bits, any channel count (averaged) and rate (resampled). Throws
// Error: BAD_AUDIO, or TOO_LONG for more than most_seconds, before there is memory for them; `name` is what the message
// calls the data.
std::vector<float> decode_wav(const uint8_t *data, size_t size, const std::string &name, double most_seconds);

// A WAV file, or a pipe.
std::vector<float> read_wav(const std::string &path, double most_seconds);

// Windowed-sinc resampling to 16 kHz.
std::vector<float> resample(const std::vector<float> &pcm, int rate);

// RFC 4648 with or without padding and line breaks. Throws Error (BAD_ARGUMENT).
std::vector<uint8_t> decode_base64(const char *text);

}  // namespace chatllm
