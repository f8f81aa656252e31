#include "model/ggmm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace chatllm {

namespace {

constexpr int32_t kMaxVocabulary = 1 << 21, kMaxTokenBytes = 1 << 12, kMaxMerges = 1 << 22, kMaxTensors = 1 << 16,
                  kMaxNameBytes = 256, kMaxDimensions = 4;

constexpr size_t kMaxHead = size_t{1} << 28;  // bytes before the tensors; real files have six million

// Reads little-endian values between two offsets; every overrun ends in Error. What is not in memory is read a block at
// a time.
class Cursor {
 public:
  Cursor(const InputFile &file, const std::vector<uint8_t> &head, size_t begin, size_t end, const char *part)
      : file_(file), block_(head.data()), block_end_(head.size()), at_(begin), end_(end), part_(part) {}

  size_t at() const { return at_; }
  bool done() const { return at_ == end_; }

  // Of a block that is not in memory: valid until the next call.
  const uint8_t *bytes(size_t n) {
    check(n);
    if (at_ < block_at_ || at_ + n > block_end_) {
      own_.resize(std::max(n, std::min<size_t>(end_ - at_, 4096)));
      file_.read(at_, own_.data(), own_.size());
      block_ = own_.data();
      block_at_ = at_;
      block_end_ = at_ + own_.size();
    }
    const uint8_t *data = block_ + (at_ - block_at_);
    at_ += n;
    return data;
  }
  void skip(size_t n) {
    check(n);
    at_ += n;
  }
  int32_t i32() {
    int32_t value;
    std::memcpy(&value, bytes(4), 4);
    return value;
  }
  float f32() {
    float value;
    std::memcpy(&value, bytes(4), 4);
    return value;
  }
  std::string_view string(int32_t length) {
    return {reinterpret_cast<const char *>(bytes(static_cast<size_t>(length))), static_cast<size_t>(length)};
  }
  void align(size_t multiple) { skip((multiple - at_ % multiple) % multiple); }

 private:
  void check(size_t n) const {
    if (n > end_ - at_)
      fail(Status::BadModel,
           format("model file '%s' is truncated or damaged at byte %zu, in its %s: copy or download it again",
                  file_.path().c_str(), at_, part_));
  }

  const InputFile &file_;
  std::vector<uint8_t> own_;
  const uint8_t *block_;
  size_t block_at_ = 0, block_end_, at_, end_;
  const char *part_;
};

}  // namespace

int64_t Tensor::rows() const {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}

GgmmFile::GgmmFile(const std::string &path, bool whole) : file_(std::make_unique<InputFile>(path)) {
  read_header(whole);
  if (!whole) return;
  read_vocabulary();
  read_tensors();
}

void GgmmFile::bad(const std::string &why) const {
  fail(Status::BadModel, format("model file '%s' %s", file_->path().c_str(), why.c_str()));
}

void GgmmFile::read_header(bool whole) {
  head_.resize(std::min<size_t>(file_->size(), 20));
  file_->read(0, head_.data(), head_.size());
  Cursor head(*file_, head_, 0, head_.size(), "header");
  if (head_.size() >= 4 && std::memcmp(head_.data(), "GGUF", 4) == 0)
    bad("is a GGUF file, llama.cpp's format; this engine reads GGMM, chatllm.cpp's format (usually *.bin)");
  if (head_.size() < 20 || std::memcmp(head.bytes(4), "ggmm", 4) != 0)
    bad("is not a GGMM model (chatllm.cpp's format, usually *.bin): its first bytes are not 'ggmm'");
  const int32_t version = head.i32();
  if (version != 1) bad(format("has GGMM version %d; this engine reads version 1", version));
  const int32_t metadata_end = head.i32(), config_end = head.i32(), vocabulary_end = head.i32();
  const struct {
    const char *name;
    int32_t least, value;
  } ends[] = {{"metadata", 20, metadata_end},
              {"configuration", metadata_end, config_end},
              {"vocabulary", config_end, vocabulary_end}};
  for (const auto &end : ends)
    if (end.value < end.least || static_cast<size_t>(end.value) > file_->size())
      bad(format("is truncated or damaged: the end of its %s would be at byte %d of %zu", end.name, end.value,
                 file_->size()));
  config_at_ = static_cast<size_t>(metadata_end);
  vocabulary_at_ = static_cast<size_t>(config_end);
  tensors_at_ = static_cast<size_t>(vocabulary_end);

  const size_t needed = whole ? tensors_at_ : vocabulary_at_;
  if (needed > kMaxHead) bad(format("is damaged: %zu bytes come before its tensors", needed));
  head_.resize(needed);
  file_->read(0, head_.data(), head_.size());
  const char *text = reinterpret_cast<const char *>(head_.data()) + 20;
  size_t size = config_at_ - 20;
  while (size > 0 && text[size - 1] == '\0') --size;  // padding
  metadata_ = naming(file_->path(), [&] { return Json::parse(text, size); });

  Cursor config(*file_, head_, config_at_, vocabulary_at_, "configuration");
  GgmmHeader &h = header_;
  h.model_type = config.i32();
  if (h.model_type != kModelQwen3Asr && h.model_type != kModelQwen3ForcedAligner)
    bad(format("holds a model of type 0x%08X; this engine runs Qwen3-ASR (0x%08X)", static_cast<unsigned>(h.model_type),
               static_cast<unsigned>(kModelQwen3Asr)));
  const int32_t revision = config.i32();
  if (revision != 1) bad(format("has model revision %d; this engine reads revision 1", revision));
  auto size_field = [&](const char *name, int32_t low, int32_t high) {
    const int32_t value = config.i32();
    if (value < low || value > high) bad(format("is damaged: its %s is %d", name, value));
    return value;
  };
  h.type = static_cast<DType>(config.i32());
  if (block_shape(h.type).values == 0)
    bad(format("has tensor type %d, which this engine does not read", static_cast<int>(h.type)));
  h.vocab_size = size_field("vocabulary size", 1, kMaxVocabulary);
  h.hidden = size_field("hidden size", 1, 1 << 16);
  h.heads = size_field("number of heads", 1, 1 << 10);
  h.layers = size_field("number of layers", 1, 1 << 10);
  h.ffn = size_field("feed-forward size", 1, 1 << 20);
  h.max_positions = size_field("number of positions", 1, 1 << 24);
  for (int i = 0; i < 4; ++i) config.i32();  // bos, eos, pad, sep: the special tokens are found by name
  h.kv_heads = size_field("number of KV heads", 1, h.heads);
  if (h.heads % h.kv_heads != 0) bad(format("is damaged: %d heads cannot share %d KV heads", h.heads, h.kv_heads));
  h.head_dim = size_field("head size", 2, 1 << 12);
  if (h.head_dim % 2 != 0) bad(format("is damaged: its head size, %d, is odd", h.head_dim));
  h.rope_theta = config.f32();
  if (!(h.rope_theta > 1) || !std::isfinite(h.rope_theta)) bad("is damaged: its rotary base is not a number above 1");
  config.f32();                              // rotary factor: unused by this architecture
  for (int i = 0; i < 6; ++i) config.i32();  // original positions, mixture of experts
  h.tied_embeddings = config.i32() != 0;
  config.bytes(4 * 128);
  config.bytes(4 * 4);  // rotary sections: the three axes coincide for audio
  if (h.model_type == kModelQwen3ForcedAligner) h.classify_num = size_field("number of time classes", 1, 1 << 20);
}

void GgmmFile::read_vocabulary() {
  Cursor in(*file_, head_, vocabulary_at_, tensors_at_, "vocabulary");
  for (int32_t length; (length = in.i32()) != -1;) {
    if (length < 0 || length > kMaxTokenBytes || vocabulary_.size() >= static_cast<size_t>(header_.vocab_size))
      bad(format("is damaged: token %zu of its vocabulary (%d in its header) has a length of %d", vocabulary_.size(),
                 header_.vocab_size, length));
    vocabulary_.push_back(in.string(length));
    in.bytes(1);
  }
  for (int32_t length; (length = in.i32()) != -1;) {
    if (length < 0 || length > kMaxTokenBytes || merges_.size() >= static_cast<size_t>(kMaxMerges))
      bad(format("is damaged: merge %zu of its vocabulary has a length of %d", merges_.size(), length));
    merges_.push_back(in.string(length));
  }
}

void GgmmFile::read_tensors() {
  Cursor in(*file_, {}, tensors_at_, file_->size(), "tensors");
  while (!in.done()) {
    const int32_t length = in.i32();
    if (length <= 0 || length > kMaxNameBytes || tensors_.size() >= static_cast<size_t>(kMaxTensors))
      bad(format("is truncated or damaged at byte %zu: no tensor starts there", in.at()));
    const std::string name(in.string(length));
    Tensor tensor;
    const int32_t dimensions = in.i32();
    if (dimensions < 1 || dimensions > kMaxDimensions)
      bad(format("is damaged: tensor '%s' has %d dimensions", name.c_str(), dimensions));
    uint64_t values = 1;
    for (int32_t i = 0; i < dimensions; ++i) {
      const int32_t extent = in.i32();
      if (extent < 1) bad(format("is damaged: tensor '%s' has an extent of %d", name.c_str(), extent));
      tensor.shape.push_back(extent);
      values *= static_cast<uint64_t>(extent);
      if (values > (uint64_t{1} << 40)) bad(format("is damaged: tensor '%s' is larger than any file", name.c_str()));
    }
    tensor.type = static_cast<DType>(in.i32());
    const BlockShape block = block_shape(tensor.type);
    if (block.values == 0)
      bad(format("has tensor '%s' of type %d, which this engine does not read", name.c_str(),
                 static_cast<int>(tensor.type)));
    if (tensor.cols() % block.values != 0)
      bad(format("is damaged: rows of tensor '%s' are no whole number of %s blocks", name.c_str(),
                 type_name(tensor.type)));
    tensor.bytes =
        static_cast<size_t>(values / static_cast<uint64_t>(block.values) * static_cast<uint64_t>(block.bytes));
    in.align(16);
    tensor.at = in.at();
    in.skip(tensor.bytes);
    if (!tensors_.emplace(name, std::move(tensor)).second)
      bad(format("is damaged: it has tensor '%s' twice", name.c_str()));
  }
}

const Tensor *GgmmFile::find(const std::string &name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

const Tensor &GgmmFile::get(const std::string &name, const std::vector<int64_t> &shape) const {
  const Tensor *tensor = find(name);
  if (tensor == nullptr)
    bad(format("lacks tensor '%s': it is truncated or was made by another converter", name.c_str()));
  if (tensor->shape != shape) {
    std::string found, wanted;
    for (int64_t n : tensor->shape) found += (found.empty() ? "" : " x ") + std::to_string(n);
    for (int64_t n : shape) wanted += (wanted.empty() ? "" : " x ") + std::to_string(n);
    bad(format("is damaged: tensor '%s' is %s where its header asks for %s", name.c_str(), found.c_str(),
               wanted.c_str()));
  }
  return *tensor;
}

}  // namespace chatllm
