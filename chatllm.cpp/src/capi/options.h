// The words of chatllm_append_param.
#pragma once

#include <string>
#include <vector>

#include "asr/session.h"

namespace chatllm {

struct Options {
  SessionSettings session;
  std::string language, context, ai_prefix;
  std::string tag_open, tag_close;  // of file tags; empty: none
  int64_t max_new_tokens = -1;
  bool full_attention = false;
  std::vector<std::string> notes;  // what was accepted and has no effect

  // Throws Error (BAD_ARGUMENT) naming the word that is wrong.
  static Options parse(const std::vector<std::string> &words);
};

}  // namespace chatllm
