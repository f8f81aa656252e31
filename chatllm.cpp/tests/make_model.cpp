// Writes the random model that the C test runs on.
#include <cstdio>

#include "synthetic_model.h"

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  test::ModelSpec spec;
  spec.hidden = 96;
  spec.layers = 3;
  spec.words = {"\xE4\xBD\xA0"};
  const auto model = test::build_model(spec);
  FILE *file = std::fopen(argv[1], "wb");
  if (file == nullptr) return 1;
  const bool written = std::fwrite(model.bytes.data(), 1, model.bytes.size(), file) == model.bytes.size();
  return std::fclose(file) == 0 && written ? 0 : 1;
}
