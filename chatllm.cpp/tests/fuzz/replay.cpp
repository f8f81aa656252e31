// Runs a fuzz target on the inputs of a corpus, for compilers without a fuzzer: each line of a file is one, in
// hexadecimal; '#' begins a remark.
#include <fstream>

#include "fuzz.h"

namespace {

int digit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

}  // namespace

int main(int argc, char **argv) {
  size_t inputs = 0;
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i]);
    std::string line;
    while (std::getline(file, line)) {
      if (line.empty() || line[0] == '#') continue;
      std::vector<uint8_t> bytes;
      for (size_t at = 0; at + 1 < line.size() && digit(line[at]) >= 0; at += 2)
        bytes.push_back(static_cast<uint8_t>(digit(line[at]) << 4 | digit(line[at + 1])));
      const std::vector<uint8_t> exact(bytes);  // no spare room behind it
      LLVMFuzzerTestOneInput(exact.data(), exact.size());
      ++inputs;
    }
  }
  std::printf("%zu inputs\n", inputs);
  return inputs > 0 ? 0 : 1;
}
