// The machine and its scheduler: one loaded model on a thread of its own, and any number of utterances. One of them at
// a time is prepared (log-mel, encoder, prefill), in parts between which one step of the decoder serves all that are
// being decoded.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "asr/decoder.h"
#include "asr/encoder.h"
#include "asr/prompt.h"
#include "asr/search.h"
#include "asr/utterance.h"
#include "audio/mel.h"
#include "base/machine.h"

namespace chatllm {

struct RecognizerSettings {
  std::string model_path, kernels = "auto";
  int threads = 0;          // 0: the CPUs that the process may use
  int64_t max_context = 0;  // 0: the model's
  int batch = 8;            // utterances that are worked on at a time
};

class Recognizer {
 public:
  explicit Recognizer(const RecognizerSettings &settings);
  ~Recognizer();  // closes it
  // Takes no further utterances, cancels all, and waits for their ends; not from a listener.
  void close();
  Recognizer(const Recognizer &) = delete;
  Recognizer &operator=(const Recognizer &) = delete;

  // Queues an utterance and returns at once. The listener is called on the recognizer's thread, perhaps before this
  // returns; it must not block. Throws Error, std::bad_alloc.
  std::shared_ptr<Utterance> submit(Request request, Listener listener);
  bool idle() const;              // every utterance has ended; of one its listener may be hearing that
  bool on_worker_thread() const;  // the caller is a listener

  // An empty one. Not while an utterance has it: its owner's.
  std::shared_ptr<Conversation> conversation() { return std::make_shared<Conversation>(decoder_.sequence()); }

  // Intermediate results, on the caller's thread, between the parts of what else is done. Short audio is not padded.
  std::vector<float> log_mel(const float *pcm, int64_t samples, int64_t shape[2]);
  // Throw Error when `abort` is set meanwhile.
  std::vector<float> encode(const float *pcm, int64_t samples, bool full_attention, int64_t shape[2],
                            const AbortFlag &abort);
  std::vector<float> prefill_logits(const float *pcm, int64_t samples, const RunSettings &settings, int64_t shape[2],
                                    const AbortFlag &abort);
  // Of a forced aligner: the scores [2 * units][classes] of each unit's start and end.
  std::vector<float> align_scores(const float *pcm, int64_t samples, const std::vector<std::string> &units,
                                  bool full_attention, int64_t shape[2], const AbortFlag &abort);
  // Of a forced aligner: each unit's start and end, [2 * units] milliseconds, repaired.
  std::vector<double> align(const float *pcm, int64_t samples, const std::vector<std::string> &units,
                            bool full_attention, const AbortFlag &abort);
  std::vector<int32_t> prompt_ids(int64_t samples, const RunSettings &settings) const;

  const Model &model() const { return *model_; }
  const RecognizerSettings &settings() const { return settings_; }
  const Kernels &kernels() const { return kernels_; }
  int threads() const { return pool_->size(); }
  void set_load_ms(double ms) { load_ms_ = ms; }  // before the first utterance

 private:
  using Pointer = std::shared_ptr<Utterance>;
  // An event that is told once the machine is free for others.
  struct Told {
    Pointer utterance;
    Event::Kind kind;
    Token token;
    Timings timings;
    std::shared_ptr<const Error> error;
  };

  // The scheduler.
  void work();
  bool wait_for_work();
  void end_cancelled();
  bool admit();
  bool fits(const Utterance &u) const;
  void prepare();
  void decode();
  void decode_group(const std::vector<Pointer> &group);
  void tell_all();
  template <class F>
  bool guarded(const Pointer &u, F &&f);

  // The stages of an utterance.
  void begin(const Pointer &u);
  void take_audio(Utterance &u);
  void advance(const Pointer &u);
  void compute_mel(Utterance &u);
  void begin_encode(Utterance &u);
  void end_encode(Utterance &u);
  void begin_prefill(Utterance &u);
  void begin_continuation(Utterance &u);
  void begin_decode(const Pointer &u);
  std::vector<int32_t> next_rows(const Utterance &u, int64_t most) const;
  void take_scores(const Pointer &u, const std::vector<int32_t> &fed, const Choice *choices);
  Finish take(const Pointer &u, Choice choice, int64_t length);
  void finish(const Pointer &u, Finish finish);
  void fail(const Pointer &u, std::shared_ptr<const Error> error);
  void leave(const Pointer &u, Event::Kind kind, std::shared_ptr<const Error> error);
  void keep_prefix(Utterance &u);
  void give_memory_back();

  void check_audio(const float *pcm, int64_t samples, int64_t first = 0) const;
  std::vector<float> score_prompt(const Prompt &prompt, const std::vector<float> &audio,
                                  const std::vector<int64_t> &positions, const AbortFlag &abort);
  template <class F>
  void align_pass(const float *pcm, int64_t samples, const std::vector<std::string> &units, bool full_attention,
                  const AbortFlag &abort, F &&f);
  Prompt build_prompt(int64_t samples, const RunSettings &settings) const;

  const Kernels &kernels_;
  const std::shared_ptr<ThreadPool> pool_;
  RecognizerSettings settings_;
  const std::shared_ptr<const Model> model_;
  const LogMel mel_;
  const PromptBuilder prompts_;
  Products products_;
  Encoder encoder_;
  Decoder decoder_;
  double load_ms_ = 0;

  Pointer preparing_;
  std::vector<Pointer> active_;  // being decoded
  std::vector<Told> told_;
  bool long_audio_ = false;              // has been worked on: its intermediate memory is to be given back
  std::shared_ptr<Conversation> spare_;  // of an utterance that has ended: the text before its audio may come again
  uint64_t works_ = 0;                   // of the encoder
  Buffer<float> x_, scores_;

  const std::shared_ptr<Desk> desk_ = std::make_shared<Desk>();
  bool stop_ = false;  // under the desk's lock
  std::thread thread_;
};

}  // namespace chatllm
