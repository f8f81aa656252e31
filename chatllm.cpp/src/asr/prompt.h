// The prompt of Qwen3-ASR:
//   <|im_start|>system\n{context}<|im_end|>\n<|im_start|>user\n<|audio_start|><|audio_pad|>...<|audio_end|><|im_end|>\n
//   <|im_start|>assistant\n[language {language}<asr_text>][{prefix}]
#pragma once

#include <string>
#include <vector>

#include "model/tokenizer.h"

namespace chatllm {

struct Prompt {
  std::vector<int32_t> ids;
  int64_t audio_at = 0;  // position of the first <|audio_pad|>
};

class PromptBuilder {
 public:
  explicit PromptBuilder(const Tokenizer &tokenizer);  // throws Error when the file lacks a special token

  // `language` empty: the model detects it.
  Prompt build(int64_t audio_tokens, const std::string &context, const std::string &language,
               const std::string &prefix) const;
  bool is_stop(int32_t id) const { return id == im_end_ || id == end_of_text_; }

 private:
  const Tokenizer &tokenizer_;
  int32_t im_start_, im_end_, end_of_text_, audio_start_, audio_end_, audio_pad_, asr_text_;
};

// The model's own spelling of a language named in any case; "" for nothing and "auto". Throws Error listing the
// languages.
std::string resolve_language(const std::vector<std::string> &languages, const std::string &name);

}  // namespace chatllm
