// Fuzz target: audio files and base64.
#include "audio/wav.h"
#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  try {
    chatllm::decode_wav(data, size, "fuzz.wav", 3600);
  } catch (const chatllm::Error &) {
  }
  try {
    chatllm::decode_base64(std::string(reinterpret_cast<const char *>(data), size).c_str());
  } catch (const chatllm::Error &) {
  }
  return 0;
}
