// Fuzz target: a model file. What loads also runs on a short sound. Without a corpus it starts from a good small model:
// the mutator changes that one's bytes.
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "session_helpers.h"

namespace {

const std::vector<uint8_t> &good_model() {
  static const auto *const bytes = [] {
    test::ModelSpec spec;
    spec.d_model = 8;
    spec.encoder_layers = 1;
    spec.encoder_ffn = 8;
    spec.conv_channels = 2;
    spec.hidden = 32;
    spec.layers = 1;
    spec.heads = 2;
    spec.kv_heads = 1;
    spec.head_dim = 6;
    spec.ffn = 32;
    spec.max_positions = 4096;
    spec.mel_bins = 16;
    spec.mixed = true;
    spec.words = {"ab"};
    spec.merges = {"a b"};
    return new std::vector<uint8_t>(test::build_model(spec).bytes);
  }();
  return *bytes;
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  const auto &good = good_model();
  if (size < 64 && good.size() <= max_size) {
    std::memcpy(data, good.data(), good.size());
    size = good.size();
  }
  test::Random random(seed);
  if (random.below(2) == 0 || size < 8) return LLVMFuzzerMutate(data, size, max_size);
  for (uint64_t i = 0; i <= random.below(3); ++i)
    data[random.below(random.below(2) ? size : std::min<size_t>(size, 6000))] = static_cast<uint8_t>(random.next());
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const test::TempFile *const file = new test::TempFile({});
  static const std::vector<float> pcm = test::sound(0.3);
  file->write({data, data + size});
  try {
    const auto session = test::open_session(file->path(), size % 2 ? "generic" : "auto", 1);
    test::recognize(*session, pcm, 2);
    session->model().tokenizer().encode("a<asr_text> b's \xE4\xBD\xA0", true);
  } catch (const chatllm::Error &) {
  } catch (const std::bad_alloc &) {
  }
  return 0;
}
