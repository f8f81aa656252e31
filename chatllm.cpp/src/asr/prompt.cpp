#include "asr/prompt.h"

#include "base/error.h"

namespace chatllm {

PromptBuilder::PromptBuilder(const Tokenizer &tokenizer) : tokenizer_(tokenizer) {
  auto special = [&](const char *name) {
    const int32_t id = tokenizer.special(name);
    if (id < 0)
      fail(Status::BadModel, format("the model file lacks the special token %s: it is not a Qwen3-ASR model", name));
    return id;
  };
  im_start_ = special("<|im_start|>");
  im_end_ = special("<|im_end|>");
  end_of_text_ = special("<|endoftext|>");
  audio_start_ = special("<|audio_start|>");
  audio_end_ = special("<|audio_end|>");
  audio_pad_ = special("<|audio_pad|>");
  asr_text_ = special("<asr_text>");
}

Prompt PromptBuilder::build(int64_t audio_tokens, const std::string &context, const std::string &language,
                            const std::string &prefix) const {
  Prompt prompt;
  auto &ids = prompt.ids;
  auto add_text = [&](const std::string &text) {
    const auto more = tokenizer_.encode(text);
    ids.insert(ids.end(), more.begin(), more.end());
  };
  ids.push_back(im_start_);
  add_text("system\n" + context);
  ids.push_back(im_end_);
  add_text("\n");
  ids.push_back(im_start_);
  add_text("user\n");
  ids.push_back(audio_start_);
  prompt.audio_at = static_cast<int64_t>(ids.size());
  ids.insert(ids.end(), static_cast<size_t>(audio_tokens), audio_pad_);
  ids.push_back(audio_end_);
  ids.push_back(im_end_);
  add_text("\n");
  ids.push_back(im_start_);
  if (language.empty()) {
    add_text("assistant\n" + prefix);
  } else {
    add_text("assistant\nlanguage " + language);
    ids.push_back(asr_text_);
    add_text(prefix);
  }
  return prompt;
}

std::string resolve_language(const std::vector<std::string> &languages, const std::string &name) {
  auto lower = [](std::string text) {
    for (char &c : text)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    return text;
  };
  const std::string wanted = lower(name);
  if (wanted.empty() || wanted == "auto") return "";
  std::string known;
  for (const std::string &language : languages) {
    if (lower(language) == wanted) return language;
    known += (known.empty() ? "" : ", ") + language;
  }
  fail(Status::BadArgument, format("unknown language '%s': use auto or one of %s", name.c_str(), known.c_str()));
}

}  // namespace chatllm
