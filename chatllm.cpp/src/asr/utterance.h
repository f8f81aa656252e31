// One request to a recognizer: audio that goes in, events that come out, and what the recognizer knows of it meanwhile.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "asr/loop_guard.h"
#include "asr/prompt.h"
#include "asr/sequence.h"
#include "base/abort.h"
#include "base/error.h"
#include "base/memory.h"

namespace chatllm {

struct RunSettings {
  std::string language;  // as the user wrote it
  std::string context, prefix;
  int64_t max_new_tokens = -1;  // -1: derived from the length of the audio
  bool full_attention = false, ignore_stop = false;
};

enum class Finish { None, Stop, Length, Abort, Loop };

struct Token {
  int32_t id;
  float logprob;
  int64_t time_ns;
  const std::string *bytes;  // the tokenizer's
  bool special;
};

// Of one hypothesis; the counters of windows and drafts are of the whole utterance.
struct Timings {
  Finish finish = Finish::None;
  int32_t audio_tokens = 0, prompt_tokens = 0, new_tokens = 0, threads = 0;
  int64_t start_ns = 0, first_token_ns = 0;
  double audio_ms = 0, load_ms = 0, mel_ms = 0, encode_ms = 0, prefill_ms = 0, first_token_ms = 0, decode_ms = 0,
         total_ms = 0, wait_ms = 0;
  int32_t reused_tokens = 0;       // of the prompt: their keys and values were there
  int32_t encoded_windows = 0;     // of the encoder
  int32_t recomputed_windows = 0;  // of these, because the clip had become louder
  int32_t drafted_tokens = 0;      // of earlier hypotheses, verified several at a time
  int32_t saved_steps = 0;         // of the decoder, by drafts that were right
};

// What happened to an utterance. Pointers are valid during the call.
struct Event {
  enum class Kind { Begin, Token, Step, End };
  Kind kind;
  const Token *token = nullptr;      // Token
  const Timings *timings = nullptr;  // Step, End
  const Error *error = nullptr;      // End: null when nothing went wrong
};

using Listener = std::function<void(const Event &)>;

// A dialogue that outlives its utterances: an answer can be continued, and what the cache holds is used again.
struct Conversation {
  explicit Conversation(Sequence s) : sequence(std::move(s)) {}
  Sequence sequence;
  int32_t pending = -1;  // the last token, when the cache does not hold it yet
  bool answered = false;
};

struct Request {
  std::vector<float> audio;
  RunSettings settings;
  bool live = false;                           // more audio comes by feed
  std::shared_ptr<Conversation> conversation;  // null: one of its own
  bool continues = false;                      // the conversation's last answer goes on after `suffix`
  std::string suffix;
};

class Utterance;

// The recognizer's door: what its owners' threads and its own share. It outlives the recognizer as long as an utterance
// does.
struct Desk {
  std::mutex mutex;  // guards all that is shared of the utterances, too
  std::condition_variable changed;
  std::vector<std::shared_ptr<Utterance>> open;  // not ended
  uint64_t arrivals = 0;
  bool news = false;  // since the recognizer looked
  std::thread::id worker;
};

class Utterance {
 public:
  Utterance(std::shared_ptr<Desk> desk, Request request, Listener listener);

  // The functions for any thread.
  // More audio of a live utterance; `last`: there is no more. Throws Error when it takes none.
  void feed(const float *pcm, int64_t samples, bool last);
  // Ends it within one step; its end is told as for any other.
  void cancel();
  // Cancels it, and nothing is told any more once this has returned; called by the listener, after that call.
  void detach();

 private:
  friend class Recognizer;

  void wake();                    // with the desk's lock: there is something to do for it
  void tell(const Event &event);  // from the recognizer's thread, without locks

  const std::shared_ptr<Desk> desk_;
  const RunSettings settings_;
  const bool live_, continues_;
  const std::string suffix_;
  const Listener listener_;
  AbortFlag cancelled_{false};

  // Under the desk's lock.
  std::vector<float> arrived_;  // audio that the recognizer has not taken yet
  uint64_t news_ = 0;           // when there came something to do: a number that grows; 0: nothing
  int64_t news_ns_ = 0;
  bool last_, ended_ = false, detached_ = false, telling_ = false;

  // All below is the recognizer's own.
  enum class Stage { Waiting, Mel, Encode, Prefill, Decode, Ended };
  Stage stage_ = Stage::Waiting;
  bool begun_ = false, final_ = false;  // this hypothesis is the last

  // The audio, and what is computed of it. Of a live utterance the frames and windows that no later audio changes are
  // kept.
  std::vector<float> audio_;
  int64_t checked_ = 0;  // samples that are known to be finite
  std::vector<float> padded_;
  Buffer<float> power_;  // log-mel power, [frames][bins]
  int64_t frames_ = 0, final_frames_ = 0;
  float final_top_ = -10, top_ = -10;  // largest of the final frames, of all
  Buffer<float> rows_;                 // of the encoder
  std::vector<uint64_t> windows_;      // final ones: the number of the work that encoded each
  float windows_top_ = 0;              // the clip's maximum that they were made with
  uint64_t work_ = 0;                  // that encodes the others

  Prompt prompt_;
  std::vector<PositionKey> keys_;  // of the prompt
  std::shared_ptr<Conversation> conversation_;
  int64_t length_before_ = 0;  // of the conversation's sequence, and its pending token: an aborted continuation leaves
  int32_t pending_before_ = -1;  // no trace

  // The hypothesis.
  std::vector<int32_t> ids_, draft_;
  bool drafting_ = false;  // the draft agrees so far
  LoopGuard guard_;
  int64_t limit_ = 0;
  Timings timings_;
};

}  // namespace chatllm
