// Fuzz target: any text through the tokenizer, normalization and the aligner's units.
#include "asr/units.h"
#include "base/error.h"
#include "base/utf8.h"
#include "fuzz.h"
#include "model/tokenizer.h"
#include "model/unicode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const auto *const file = new chatllm::GgmmFile(fuzz::small_recognizer());
  static const auto *const tokenizer = new chatllm::Tokenizer(*file);
  const std::string text(reinterpret_cast<const char *>(data), size);
  std::string normal, spelled;
  for (const uint32_t code : chatllm::to_nfc(text)) chatllm::append_utf8(normal, code);
  for (const int32_t id : tokenizer->encode(text)) {
    EXPECT(id >= 0 && id < tokenizer->size() && !tokenizer->is_special(id));
    spelled += tokenizer->bytes(id);
  }
  EXPECT(spelled == normal);  // every byte is in the vocabulary
  for (const int32_t id : tokenizer->encode(text, true)) EXPECT(id >= 0 && id < tokenizer->size());
  std::string again;
  for (const uint32_t code : chatllm::to_nfc(normal)) chatllm::append_utf8(again, code);
  EXPECT(again == normal);
  for (const std::string &unit : chatllm::split_units(text)) EXPECT(!unit.empty());
  EXPECT(chatllm::unfinished_bytes(text) <= 3);
  return 0;
}
