// GGMM, chatllm.cpp's model file: a reader that trusts nothing. Every offset, count, length and type is checked against
// the file before it is used. The header, the metadata and the vocabulary are held in memory, tensors are read when
// they are needed.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "base/input_file.h"
#include "base/json.h"
#include "nn/blocks.h"

namespace chatllm {

constexpr int32_t kModelQwen3Asr = 0x1000010F;
constexpr int32_t kModelQwen3ForcedAligner = 0x04000002;

struct Tensor {
  DType type = DType::F32;
  std::vector<int64_t> shape;  // PyTorch's order, outermost first
  size_t at = 0;               // in the file
  size_t bytes = 0;

  int64_t cols() const { return shape.back(); }  // the dimension that blocks run along
  int64_t rows() const;                          // all others together
  size_t row_bytes() const { return bytes / static_cast<size_t>(rows()); }
};

struct GgmmHeader {
  int32_t model_type = 0;
  DType type = DType::F32;
  int vocab_size = 0, hidden = 0, heads = 0, layers = 0, ffn = 0, max_positions = 0, kv_heads = 0, head_dim = 0;
  float rope_theta = 0;
  bool tied_embeddings = false;
  int classify_num = 0;  // forced aligner
};

class GgmmFile {
 public:
  // Reads the header and metadata; the vocabulary and the directory of tensors too when `whole`. Throws Error
  // (BAD_MODEL).
  explicit GgmmFile(const std::string &path, bool whole = true);

  const InputFile &file() const { return *file_; }
  const GgmmHeader &header() const { return header_; }
  const Json &metadata() const { return metadata_; }
  const std::vector<std::string_view> &vocabulary() const { return vocabulary_; }  // GPT-2 byte alphabet
  const std::vector<std::string_view> &merges() const { return merges_; }          // "left right", by rank
  const std::unordered_map<std::string, Tensor> &tensors() const { return tensors_; }

  const Tensor *find(const std::string &name) const;
  // The tensor with exactly this shape; throws Error naming it otherwise.
  const Tensor &get(const std::string &name, const std::vector<int64_t> &shape) const;

 private:
  void read_header(bool whole);
  void read_vocabulary();
  void read_tensors();
  [[noreturn]] void bad(const std::string &why) const;

  std::unique_ptr<InputFile> file_;
  std::vector<uint8_t> head_;  // the file up to the tensors, or the vocabulary; words point into it
  size_t config_at_ = 0, vocabulary_at_ = 0, tensors_at_ = 0;
  GgmmHeader header_;
  Json metadata_;
  std::vector<std::string_view> vocabulary_, merges_;
  std::unordered_map<std::string, Tensor> tensors_;
};

// Calls f(). Sentences about what a model file says begin with "the model file": this is where they get its name.
template <class F>
auto naming(const std::string &path, F &&f) {
  try {
    return f();
  } catch (const Error &e) {
    static constexpr char kBegin[] = "the model file ";
    const std::string message = e.what();
    if (e.status() != Status::BadModel || message.rfind(kBegin, 0) != 0) throw;
    fail(Status::BadModel, "model file '" + path + "' " + message.substr(sizeof kBegin - 1));
  }
}

}  // namespace chatllm
