// Fuzz target: a model file. The input is a recipe: a good small model and what is done to its header, metadata,
// vocabulary and tensors; or the bytes of the file, or of its metadata, as they are. What loads also runs.
#include <algorithm>

#include "fuzz.h"

namespace {

using Bytes = std::vector<uint8_t>;

constexpr size_t kHeader = 20;
constexpr int32_t kValues[] = {
    0,         1,     2,     3,       4,   5,   7,    8,       15,      16,      17,         31,        32,
    33,        64,    100,   127,     128, 255, 256,  257,     512,     1023,    1024,       4095,      4096,
    16384,     65535, 65536, 1 << 20, -1,  -2,  -128, 1 << 21, 1 << 24, 1 << 30, 0x7FFFFFFF, INT32_MIN, INT32_MIN + 1,
    0x3F800000};

const test::ModelBytes &base(size_t which) {
  static const auto *const models = [] {
    auto *all = new std::vector<test::ModelBytes>;
    test::ModelSpec spec = test::small_spec();
    all->push_back(test::build_model(spec));
    spec.tied = true;
    spec.seed = 2;
    all->push_back(test::build_model(spec));
    spec.tied = false;
    spec.classes = 40;
    all->push_back(test::build_model(spec));
    spec = test::small_spec();
    spec.mixed = false;
    spec.type = chatllm::DType::Q4_K;
    spec.hidden = 256;
    spec.ffn = 256;
    all->push_back(test::build_model(spec));
    return all;
  }();
  return (*models)[which % models->size()];
}

int32_t load(const Bytes &file, size_t at) {
  int32_t value = 0;
  if (at + 4 <= file.size()) std::memcpy(&value, &file[at], 4);
  return value;
}
void store(Bytes *file, size_t at, int32_t value) {
  if (at + 4 <= file->size()) std::memcpy(&(*file)[at], &value, 4);
}

// Puts other metadata into the file; what follows keeps its alignment.
void replace_metadata(Bytes *file, const std::string &json) {
  const int64_t end = load(*file, 8);
  if (end < static_cast<int64_t>(kHeader) || static_cast<size_t>(end) > file->size()) return;
  std::string padded = json;
  while ((kHeader + padded.size()) % 16 != static_cast<size_t>(end) % 16) padded += '\0';
  const int32_t moved = static_cast<int32_t>(static_cast<int64_t>(kHeader + padded.size()) - end);
  file->erase(file->begin() + kHeader, file->begin() + end);
  file->insert(file->begin() + kHeader, padded.begin(), padded.end());
  for (size_t at = 8; at <= 16; at += 4)
    store(file, at, static_cast<int32_t>(static_cast<uint32_t>(load(*file, at)) + static_cast<uint32_t>(moved)));
}

// The n-th value of the metadata becomes another one.
void change_metadata(Bytes *file, size_t which, const std::string &value) {
  const int64_t end = load(*file, 8);
  if (end < static_cast<int64_t>(kHeader) || static_cast<size_t>(end) > file->size()) return;
  std::string json(file->begin() + kHeader, file->begin() + end);
  std::vector<size_t> places;
  for (size_t at = json.find(": "); at != std::string::npos; at = json.find(": ", at + 1)) places.push_back(at + 2);
  if (places.empty()) return;
  const size_t from = places[which % places.size()], to = std::min(json.find_first_of(",}]", from), json.size());
  replace_metadata(file, json.substr(0, from) + value + json.substr(to));
}

Bytes edited(fuzz::Choices *choices) {
  const test::ModelBytes &model = base(choices->byte());
  Bytes file = model.bytes;
  for (int edits = 0; edits < 16 && !choices->done(); ++edits) {
    const size_t way = choices->below(10);
    // Parts of the good file; after an edit that moves them they still lie near.
    const size_t part = model.boundaries[choices->below(model.boundaries.size())];
    const size_t at = std::min(part + choices->byte(), file.size());
    switch (way) {
      case 0:
        store(&file, at / 4 * 4, choices->of(kValues));
        break;
      case 1:
        store(&file, at, choices->word());
        break;
      case 2:
        if (at < file.size()) file[at] = choices->byte();
        break;
      case 3:
        file.resize(at);
        break;
      case 4:
        file.insert(file.begin() + static_cast<std::ptrdiff_t>(at), 1 + choices->below(32), choices->byte());
        break;
      case 5:
        file.erase(file.begin() + static_cast<std::ptrdiff_t>(at),
                   file.begin() + static_cast<std::ptrdiff_t>(std::min(file.size(), at + 1 + choices->below(64))));
        break;
      case 6:
        change_metadata(&file, at, std::to_string(choices->of(kValues)));
        break;
      case 7: {
        static constexpr const char *kOther[] = {"null", "true", "\"\"", "[]", "{}", "1e308", "0.5", "\"x\"", "1e-320"};
        change_metadata(&file, at, choices->of(kOther));
        break;
      }
      case 8: {  // a part once more, at the end
        const size_t end = std::min(file.size(), at + 16 * choices->below(64));
        const Bytes copy(file.begin() + static_cast<std::ptrdiff_t>(at),
                         file.begin() + static_cast<std::ptrdiff_t>(end));
        file.insert(file.end(), copy.begin(), copy.end());
        break;
      }
      default:
        store(&file, 4 * choices->below(5), static_cast<int32_t>(at));
    }
  }
  return file;
}

void load_and_run(const std::string &path, const char *kernels) {
  static const std::vector<float> pcm = test::sound(0.3);
  const int64_t samples = static_cast<int64_t>(pcm.size());
  fuzz::told(chatllm_inspect_model(path.c_str()));
  struct chatllm_obj *obj = chatllm_create();
  for (const char *word : {"-m", path.c_str(), "-n", "1", "--max_new_tokens", "2", "--kernels", kernels})
    chatllm_append_param(obj, word);
  if (fuzz::checked(chatllm_start(obj, nullptr, nullptr, nullptr), obj) == CHATLLM_ASR_OK) {
    fuzz::checked(chatllm_asr_run(obj, pcm.data(), samples, nullptr), obj);
    const char *const units[] = {"a", "\xE4\xBD\xA0"};
    double times[4];
    fuzz::checked(chatllm_asr_align(obj, pcm.data(), samples, units, 2, 1, times), obj);
    chatllm_text_tokenize(obj, "a<asr_text> b's \xE4\xBD\xA0");
    int count = 0, width = 0;
    EXPECT(chatllm_get_token_vocab(obj, &count, &width) != nullptr && count > 0 && width > 0);
    EXPECT(chatllm_asr_model_info(obj) != nullptr);
  }
  EXPECT(chatllm_destroy(obj) == CHATLLM_ASR_OK);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const test::TempFile *const file = new test::TempFile({});
  fuzz::Choices choices(data, size);
  const uint8_t kind = choices.byte();
  Bytes bytes;
  if (kind % 8 == 0) {
    const std::string rest = choices.rest();
    bytes.assign(rest.begin(), rest.end());
  } else if (kind % 8 == 1) {
    bytes = base(0).bytes;
    replace_metadata(&bytes, choices.rest());
  } else {
    bytes = edited(&choices);
  }
  file->write(bytes);
  load_and_run(file->path(), kind & 128 ? "auto" : "generic");
  return 0;
}
