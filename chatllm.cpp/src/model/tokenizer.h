// Qwen2's byte-level BPE: NFC, the GPT-2 byte alphabet, Qwen2's split pattern, special tokens by name.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/ggmm.h"

namespace chatllm {

class Tokenizer {
 public:
  explicit Tokenizer(const GgmmFile &file);

  // Ids of a text; with `specials`, names of special tokens in it become their ids, else they are plain text.
  std::vector<int32_t> encode(const std::string &text, bool specials = false) const;
  // The bytes that a token stands for (may be part of a character); the name of a special token; "" for an unused id.
  const std::string &bytes(int32_t id) const;
  bool is_special(int32_t id) const { return special_names_.count(id) != 0; }
  // The id of a special token, -1 when the file has none of that name.
  int32_t special(const std::string &name) const;
  int32_t size() const { return vocab_size_; }

 private:
  void encode_piece(const std::string &alphabet, std::vector<int32_t> *ids) const;

  int32_t vocab_size_;
  std::vector<std::string> bytes_;
  std::unordered_map<std::string_view, int32_t> ids_, ranks_;  // point into the file's words
  std::unordered_map<std::string, int32_t> specials_;
  std::unordered_map<int32_t, std::string> special_names_;
};

}  // namespace chatllm
