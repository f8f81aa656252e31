// A recognizer: one loaded model, its threads and its memory of the last run. Not for several threads at a time, but
// abort().
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "asr/decoder.h"
#include "asr/encoder.h"
#include "asr/prompt.h"
#include "audio/mel.h"
#include "base/abort.h"
#include "libchatllm_asr.h"

namespace chatllm {

struct SessionSettings {
  std::string model_path, kernels = "auto";
  int threads = 0;          // 0: the CPUs that the process may use
  int64_t max_context = 0;  // 0: the model's
  int batch = 8;            // utterances that are worked on at a time
};

struct RunSettings {
  std::string language;  // as the user wrote it
  std::string context, prefix;
  int64_t max_new_tokens = -1;  // -1: derived from the length of the audio
  bool full_attention = false, ignore_stop = false;
};

class Session {
 public:
  using TokenSink = std::function<void(const chatllm_asr_token &)>;

  explicit Session(const SessionSettings &settings);

  // Recognizes 16 kHz mono samples. Tokens go to the sink as they are made.
  void run(const float *pcm, int64_t samples, const RunSettings &settings, const TokenSink &sink) {
    run(pcm, samples, settings, sink, abort_);
  }
  void run(const float *pcm, int64_t samples, const RunSettings &settings, const TokenSink &sink,
           const AbortFlag &abort);
  // Goes on after the last answer and a suffix. Throws Error when there is none.
  void continue_with(const std::string &suffix, int64_t max_new_tokens, const TokenSink &sink);
  void abort() { abort_ = true; }  // the run that is under way, or is about to begin
  void clear_abort() { abort_ = false; }
  void forget();  // the conversation

  std::vector<float> log_mel(const float *pcm, int64_t samples, int64_t shape[2]);
  std::vector<float> encode(const float *pcm, int64_t samples, bool full_attention, int64_t shape[2]);
  std::vector<float> prefill_logits(const float *pcm, int64_t samples, const RunSettings &settings, int64_t shape[2]);
  // Of a forced aligner: the scores [2 * units][classes] of each unit's start and end.
  std::vector<float> align_scores(const float *pcm, int64_t samples, const std::vector<std::string> &units,
                                  bool full_attention, int64_t shape[2]);
  // Of a forced aligner: each unit's start and end, [2 * units] milliseconds, repaired.
  std::vector<double> align(const float *pcm, int64_t samples, const std::vector<std::string> &units,
                            bool full_attention);
  std::vector<int32_t> prompt_ids(int64_t samples, const RunSettings &settings) const;

  const Model &model() const { return *model_; }
  const chatllm_asr_timings &timings() const { return timings_; }
  void set_load_ms(double ms) { timings_.load_ms = ms; }
  int64_t cursor() const { return decoder_.length(); }
  void set_cursor(int64_t position);
  std::string info() const;  // JSON

 private:
  const float *padded(const float *pcm, int64_t *samples);
  void check_audio(const float *pcm, int64_t samples) const;
  void embed_text(const Prompt &prompt, int64_t first, int64_t audio_tokens, float *x);
  Prompt build_prompt(int64_t samples, const RunSettings &settings) const;
  int64_t reuse_prompt(const Prompt &prompt);
  void prefill(const float *pcm, int64_t samples, const RunSettings &settings, float *logits, const AbortFlag &abort);
  void generate(float *logits, int64_t limit, bool ignore_stop, const TokenSink &sink, const AbortFlag &abort);
  int32_t choose(const float *logits, float *logprob);
  template <class F>
  void timed_run(F &&body);

  const Kernels &kernels_;
  ThreadPool pool_;
  SessionSettings settings_;
  std::shared_ptr<const Model> model_;
  LogMel mel_;
  PromptBuilder prompts_;
  Products products_;
  Encoder encoder_;
  Decoder decoder_;
  AbortFlag abort_{false};
  int32_t pending_ = -1;  // the last token, when the cache does not hold it yet
  bool answered_ = false;
  std::vector<int32_t> before_audio_;  // what the cache holds of the last prompt, up to its audio
  chatllm_asr_timings timings_{};
  Buffer<float> padded_, mel_data_, embeddings_, logits_;
};

}  // namespace chatllm
