// Writes the random models that the C test runs on.
//   make_model FILE          a recognizer
//   make_model FILE CLASSES  a forced aligner
#include <cstdio>
#include <cstdlib>

#include "synthetic_model.h"

int main(int argc, char **argv) {
  if (argc != 2 && argc != 3) return 2;
  test::ModelSpec spec;
  spec.hidden = 96;
  spec.layers = 3;
  spec.words = {"\xE4\xBD\xA0"};
  if (argc == 3) spec.classes = std::atoi(argv[2]);
  const auto model = test::build_model(spec);
  FILE *file = std::fopen(argv[1], "wb");
  if (file == nullptr) return 1;
  const bool written = std::fwrite(model.bytes.data(), 1, model.bytes.size(), file) == model.bytes.size();
  return std::fclose(file) == 0 && written ? 0 : 1;
}
