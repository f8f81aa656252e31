// The words of chatllm_append_param.
#pragma once

#include <string>
#include <vector>

#include "asr/recognizer.h"

namespace chatllm {

struct Options {
  RecognizerSettings recognizer;
  std::string language, context, ai_prefix;
  std::string tag_open, tag_close;  // of file tags; empty: none
  std::string delimiter;            // of the pieces of text that a forced aligner tells the times of
  bool json = false;                // instead of SRT
  int64_t max_new_tokens = -1;
  bool full_attention = false;
  std::vector<std::string> notes;  // what was accepted and has no effect

  // Throws Error (BAD_ARGUMENT) naming the word that is wrong.
  static Options parse(const std::vector<std::string> &words);
  // One of upstream's settings, --set KEY VALUE. Throws Error (BAD_ARGUMENT).
  void set(const std::string &key, const std::string &value);
};

}  // namespace chatllm
