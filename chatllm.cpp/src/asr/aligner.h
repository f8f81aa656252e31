// The pass of a forced aligner (Qwen3-ForcedAligner): one causal pass tells when each unit of a text is said.
#pragma once

#include <string>
#include <vector>

#include "asr/decoder.h"
#include "asr/prompt.h"

namespace chatllm {

struct AlignmentPrompt {
  Prompt prompt;
  std::vector<int64_t> slots;  // positions whose scores are a unit's start, its end, the next one's start, ...
};

// <|audio_start|><|audio_pad|>...<|audio_end|>unit<timestamp><timestamp>unit<timestamp><timestamp>...
// Names of special tokens inside a unit are plain text. Throws Error when the file lacks a special token.
AlignmentPrompt alignment_prompt(const Tokenizer &tokenizer, int64_t audio_tokens,
                                 const std::vector<std::string> &units);

// Times of slots in milliseconds, as the official package repairs them: those outside the longest subsequence that does
// not decrease take the nearest neighbours' values (runs of one or two) or lie evenly between them; whole milliseconds.
// Afterwards none is less than the one before.
void repair_times(std::vector<double> *times);

}  // namespace chatllm
