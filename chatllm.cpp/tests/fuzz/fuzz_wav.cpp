// Fuzz target: WAV from memory and from a file, and base64.
#include <cmath>

#include "audio/wav.h"
#include "base/error.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const test::TempFile *const file = new test::TempFile({}, ".wav");
  std::vector<float> from_memory, from_file;
  std::string memory_error, file_error;
  try {
    from_memory = chatllm::decode_wav(data, size, file->path(), 60);
    EXPECT(from_memory.size() <= 60 * 16000);
  } catch (const chatllm::Error &e) {
    memory_error = e.what();
    EXPECT(memory_error.find(file->path()) != std::string::npos);
  }
  if (size % 8 == 0) {  // a file costs much more time
    file->write({data, data + size});
    try {
      from_file = chatllm::read_wav(file->path(), 60);
    } catch (const chatllm::Error &e) {
      file_error = e.what();
    }
    EXPECT(memory_error == file_error);
    EXPECT(from_memory.size() == from_file.size());
    for (size_t i = 0; i < from_file.size(); ++i)
      EXPECT(from_memory[i] == from_file[i] || (std::isnan(from_memory[i]) && std::isnan(from_file[i])));
  }
  try {
    EXPECT(chatllm::decode_base64(std::string(reinterpret_cast<const char *>(data), size).c_str()).size() <= size);
  } catch (const chatllm::Error &) {
  }
  return 0;
}
