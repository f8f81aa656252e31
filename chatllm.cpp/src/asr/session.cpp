#include "asr/session.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "asr/aligner.h"
#include "asr/loop_guard.h"
#include "base/clock.h"
#include "base/error.h"

namespace chatllm {

namespace {

constexpr int64_t kShortest = kSampleRate / 2;  // shorter audio is padded to this
constexpr int64_t kKeepPositions = 512;         // of the KV cache between runs
constexpr double kKeepMs = 32000;               // audio whose intermediate memory is kept for the next run

}  // namespace

Session::Session(const SessionSettings &settings)
    : kernels_(choose_kernels(settings.kernels.c_str())),
      pool_(thread_count(settings.threads)),
      settings_(settings),
      model_(Model::open(settings.model_path, kernels_, pool_)),
      mel_(model_->config().encoder.mel_bins),
      prompts_(model_->tokenizer()),
      products_(kernels_, pool_),
      encoder_(*model_, products_),
      decoder_(*model_, products_) {
  if (settings_.max_context <= 0 || settings_.max_context > model_->config().decoder.max_positions)
    settings_.max_context = model_->config().decoder.max_positions;
}

void Session::check_audio(const float *pcm, int64_t samples) const {
  if (pcm == nullptr || samples <= 0) fail(Status::BadAudio, "the audio has no samples");
  for (int64_t i = 0; i < samples; ++i)
    if (!std::isfinite(pcm[i]))
      fail(Status::BadAudio, format("sample %lld of the audio is not a finite number: clean the recording first",
                                    static_cast<long long>(i)));
  if (mel_.frames(samples) < 1) fail(Status::BadAudio, "the audio is shorter than one frame (10 ms)");
}

const float *Session::padded(const float *pcm, int64_t *samples) {
  if (pcm == nullptr || *samples <= 0 || *samples >= kShortest) return pcm;
  float *copy = padded_.reserve(static_cast<size_t>(kShortest));
  std::copy(pcm, pcm + *samples, copy);
  std::fill(copy + *samples, copy + kShortest, 0.0f);
  *samples = kShortest;
  return copy;
}

Prompt Session::build_prompt(int64_t samples, const RunSettings &settings) const {
  if (model_->config().aligner)
    fail(Status::BadModel,
         format("model file '%s' holds the forced aligner, which does not transcribe: use a Qwen3-ASR model",
                settings_.model_path.c_str()));
  const int64_t tokens = model_->config().encoder.total_tokens(mel_.frames(samples));
  auto check = [&](int64_t count) {
    if (count >= settings_.max_context)
      fail(Status::TooLong,
           format("the prompt of %lld tokens does not fit the context of %lld: give shorter audio or context text",
                  static_cast<long long>(count), static_cast<long long>(settings_.max_context)));
  };
  check(tokens);  // before there is a prompt of that length
  Prompt prompt = prompts_.build(tokens, settings.context,
                                 resolve_language(model_->config().languages, settings.language), settings.prefix);
  check(static_cast<int64_t>(prompt.ids.size()));
  return prompt;
}

void Session::forget() {
  decoder_.truncate(0);
  before_audio_.clear();
  pending_ = -1;
  answered_ = false;
}

void Session::set_cursor(int64_t position) {
  if (position < 0 || position > decoder_.length())
    fail(Status::BadArgument, format("the cursor must be from 0 to %lld", static_cast<long long>(decoder_.length())));
  decoder_.truncate(position);
  if (position < static_cast<int64_t>(before_audio_.size())) before_audio_.clear();
  pending_ = -1;
}

// Starts a conversation with this prompt; returns how many of its first tokens the cache holds from the last one: the
// text before the audio is the same as long as the context is. Not for prompts of a few tokens: those would take other
// kernels then, and the same audio should give the same scores whatever came before it.
int64_t Session::reuse_prompt(const Prompt &prompt) {
  constexpr int64_t kFew = 64;
  const auto begin = prompt.ids.begin(), audio = begin + prompt.audio_at;
  const bool same = static_cast<int64_t>(before_audio_.size()) == prompt.audio_at &&
                    std::equal(begin, audio, before_audio_.begin()) && decoder_.length() >= prompt.audio_at &&
                    prompt.ids.end() - audio >= kFew;
  const int64_t reused = same ? prompt.audio_at : 0;
  forget();
  decoder_.truncate(reused);
  return reused;
}

// Embeddings of the prompt's tokens from `first` on, but those that stand for audio.
void Session::embed_text(const Prompt &prompt, int64_t first, int64_t audio_tokens, float *x) {
  const int64_t stride = row_stride(model_->config().decoder.hidden);
  for (int64_t i = first; i < static_cast<int64_t>(prompt.ids.size()); ++i)
    if (i < prompt.audio_at || i >= prompt.audio_at + audio_tokens)
      model_->embed(prompt.ids[static_cast<size_t>(i)], x + i * stride);
}

// Mel, encoder and prompt, up to the scores of the first token.
void Session::prefill(const float *pcm, int64_t samples, const RunSettings &settings, float *logits,
                      const AbortFlag &abort) {
  check_audio(pcm, samples);
  const Prompt prompt = build_prompt(samples, settings);
  const int64_t stride = row_stride(model_->config().decoder.hidden), count = static_cast<int64_t>(prompt.ids.size());
  const int64_t reused = reuse_prompt(prompt);

  int64_t start = now_ns();
  const int64_t frames = mel_.frames(samples);
  float *mel = mel_data_.reserve(static_cast<size_t>(frames * mel_.bins()));
  mel_.compute(pcm, samples, mel, pool_);
  timings_.mel_ms = elapsed_ms(start);

  start = now_ns();
  const int64_t audio_tokens = model_->config().encoder.total_tokens(frames);
  timings_.audio_tokens = static_cast<int32_t>(audio_tokens);
  timings_.prompt_tokens = static_cast<int32_t>(count);
  float *x = embeddings_.reserve(static_cast<size_t>(count * stride));
  encoder_.run(mel, frames, settings.full_attention, x + prompt.audio_at * stride, stride, abort);
  timings_.encode_ms = elapsed_ms(start);

  start = now_ns();
  embed_text(prompt, reused, audio_tokens, x);
  decoder_.forward(x + reused * stride, count - reused, logits, abort);
  before_audio_.assign(prompt.ids.begin(), prompt.ids.begin() + prompt.audio_at);
  timings_.prefill_ms = elapsed_ms(start);
}

// The token with the highest score, the first of equals, and the logarithm of its probability.
int32_t Session::choose(const float *logits, float *logprob) {
  constexpr int64_t kChunk = 256;  // so small that even the built-in model's vocabulary has more than one
  const int64_t vocab = model_->config().decoder.vocab, chunks = (vocab + kChunk - 1) / kChunk;
  struct Part {
    float top;
    double sum;  // of exp(score - top)
  };
  std::vector<Part> parts(static_cast<size_t>(chunks));
  pool_.run(chunks, [&](int64_t c, int) {
    const float *first = logits + c * kChunk;
    const int64_t count = std::min(kChunk, vocab - c * kChunk);
    const float top = kernels_.max(first, count);
    parts[static_cast<size_t>(c)] = {top, kernels_.sum_exp(first, count, top)};
  });
  const auto best = std::max_element(parts.begin(), parts.end(), [](Part a, Part b) { return a.top < b.top; });
  double sum = 0;
  for (const Part &part : parts) sum += part.sum * std::exp(static_cast<double>(part.top) - best->top);
  *logprob = static_cast<float>(-std::log(sum));
  const float *token = std::find(logits + (best - parts.begin()) * kChunk, logits + vocab, best->top);
  return token == logits + vocab ? 0 : static_cast<int32_t>(token - logits);  // not found: the scores are NaN
}

// Greedy search from the given scores.
void Session::generate(float *logits, int64_t limit, bool ignore_stop, const TokenSink &sink, const AbortFlag &abort) {
  LoopGuard guard;
  Buffer<float> embedding(static_cast<size_t>(model_->config().decoder.hidden));
  timings_.finish = CHATLLM_ASR_FINISH_LENGTH;
  int64_t decode_start = 0;
  while (timings_.new_tokens < limit) {
    check_abort(abort);
    chatllm_asr_token token{};
    token.id = choose(logits, &token.logprob);
    token.time_ns = now_ns();
    if (timings_.first_token_ns == 0) {
      timings_.first_token_ns = token.time_ns;
      timings_.first_token_ms = static_cast<double>(token.time_ns - timings_.start_ns) / 1e6;
      decode_start = token.time_ns;
    }
    timings_.decode_ms = static_cast<double>(token.time_ns - decode_start) / 1e6;
    if (!ignore_stop && prompts_.is_stop(token.id)) {
      timings_.finish = CHATLLM_ASR_FINISH_STOP;
      break;
    }
    const std::string &bytes = model_->tokenizer().bytes(token.id);
    token.text = bytes.data();
    token.text_len = static_cast<int32_t>(bytes.size());
    token.special = model_->tokenizer().is_special(token.id);
    ++timings_.new_tokens;
    pending_ = token.id;
    sink(token);
    if (!ignore_stop && guard.push(token.id)) {
      timings_.finish = CHATLLM_ASR_FINISH_LOOP;
      break;
    }
    if (timings_.new_tokens == limit || decoder_.length() + 1 >= settings_.max_context) break;
    model_->embed(token.id, embedding.data());
    decoder_.forward(embedding.data(), 1, logits, abort);
    pending_ = -1;
  }
  answered_ = true;
}

// Common frame of a run: clocks, the outcome of an abort, memory that is not kept.
template <class F>
void Session::timed_run(F &&body) {
  const double load_ms = timings_.load_ms;
  timings_ = {};
  timings_.size = sizeof timings_;
  timings_.threads = pool_.size();
  timings_.load_ms = load_ms;
  timings_.start_ns = now_ns();
  struct Cleanup {  // also when a run fails
    Session &s;
    ~Cleanup() {
      s.timings_.total_ms = elapsed_ms(s.timings_.start_ns);
      s.decoder_.shrink_cache(std::max(s.decoder_.length(), kKeepPositions));
      if (s.timings_.audio_ms <= kKeepMs) return;  // fresh pages cost more time than the few that a short clip needs
      s.encoder_.release();
      s.products_.release();
      s.decoder_.release();
      for (Buffer<float> *buffer : {&s.padded_, &s.mel_data_, &s.embeddings_}) buffer->release();
    }
  } cleanup{*this};
  try {
    body();
  } catch (const Aborted &) {
    timings_.finish = CHATLLM_ASR_FINISH_ABORT;
  } catch (...) {
    timings_.finish = CHATLLM_ASR_FINISH_NONE;
    throw;
  }
}

void Session::run(const float *pcm, int64_t samples, const RunSettings &settings, const TokenSink &sink,
                  const AbortFlag &abort) {
  timed_run([&] {
    timings_.audio_ms = static_cast<double>(samples) * 1000.0 / kSampleRate;
    pcm = padded(pcm, &samples);
    float *logits = logits_.reserve(static_cast<size_t>(model_->config().decoder.vocab));
    prefill(pcm, samples, settings, logits, abort);
    // Fast speech in any language stays below three tokens per audio token (37 a second).
    const int64_t limit =
        settings.max_new_tokens >= 0 ? settings.max_new_tokens : 64 + 3 * static_cast<int64_t>(timings_.audio_tokens);
    generate(logits, limit, settings.ignore_stop, sink, abort);
  });
}

void Session::continue_with(const std::string &suffix, int64_t max_new_tokens, const TokenSink &sink) {
  if (!answered_) fail(Status::BadArgument, "there is no answer to continue: run on audio first");
  timed_run([&] {
    std::vector<int32_t> ids = model_->tokenizer().encode(suffix);
    if (pending_ >= 0) ids.insert(ids.begin(), pending_);
    if (ids.empty()) fail(Status::BadArgument, "the answer is complete: give a suffix to continue after");
    if (decoder_.length() + static_cast<int64_t>(ids.size()) >= settings_.max_context)
      fail(Status::TooLong, format("the conversation does not fit the context of %lld tokens",
                                   static_cast<long long>(settings_.max_context)));
    const int64_t stride = row_stride(model_->config().decoder.hidden);
    float *x = embeddings_.reserve(ids.size() * static_cast<size_t>(stride));
    for (size_t i = 0; i < ids.size(); ++i) model_->embed(ids[i], x + static_cast<int64_t>(i) * stride);
    float *logits = logits_.reserve(static_cast<size_t>(model_->config().decoder.vocab));
    decoder_.forward(x, static_cast<int64_t>(ids.size()), logits, abort_);
    pending_ = -1;
    generate(logits, max_new_tokens >= 0 ? max_new_tokens : 256, false, sink, abort_);
  });
}

std::vector<float> Session::log_mel(const float *pcm, int64_t samples, int64_t shape[2]) {
  check_audio(pcm, samples);
  shape[0] = mel_.bins();
  shape[1] = mel_.frames(samples);
  std::vector<float> mel(static_cast<size_t>(shape[0] * shape[1]));
  mel_.compute(pcm, samples, mel.data(), pool_);
  return mel;
}

std::vector<float> Session::encode(const float *pcm, int64_t samples, bool full_attention, int64_t shape[2]) {
  std::vector<float> out;
  timed_run([&] {
    timings_.audio_ms = static_cast<double>(samples) * 1000.0 / kSampleRate;
    int64_t mel_shape[2];
    const std::vector<float> mel = log_mel(pcm, samples, mel_shape);
    shape[0] = model_->config().encoder.total_tokens(mel_shape[1]);
    shape[1] = model_->config().encoder.output_dim;
    out.resize(static_cast<size_t>(shape[0] * shape[1]));
    encoder_.run(mel.data(), mel_shape[1], full_attention, out.data(), shape[1], abort_);
  });
  if (timings_.finish == CHATLLM_ASR_FINISH_ABORT) fail(Status::Error, "encoding was aborted");
  return out;
}

std::vector<float> Session::prefill_logits(const float *pcm, int64_t samples, const RunSettings &settings,
                                           int64_t shape[2]) {
  std::vector<float> out(static_cast<size_t>(model_->config().decoder.vocab));
  shape[0] = 1;
  shape[1] = static_cast<int64_t>(out.size());
  timed_run([&] {
    timings_.audio_ms = static_cast<double>(samples) * 1000.0 / kSampleRate;
    prefill(pcm, samples, settings, out.data(), abort_);
  });
  if (timings_.finish == CHATLLM_ASR_FINISH_ABORT) fail(Status::Error, "prefill was aborted");
  return out;
}

std::vector<float> Session::align_scores(const float *pcm, int64_t samples, const std::vector<std::string> &units,
                                         bool full_attention, int64_t shape[2]) {
  const Config &config = model_->config();
  if (!config.aligner)
    fail(Status::BadModel, format("model file '%s' holds no forced aligner, which word times need: use a "
                                  "Qwen3-ForcedAligner model",
                                  settings_.model_path.c_str()));
  shape[0] = 2 * static_cast<int64_t>(units.size());
  shape[1] = config.classes;
  std::vector<float> scores;
  timed_run([&] {
    timings_.audio_ms = static_cast<double>(samples) * 1000.0 / kSampleRate;
    check_audio(pcm, samples);
    if (timings_.audio_ms > config.classes * config.class_ms)
      fail(Status::TooLong, format("the audio of %.0f s is longer than the %.0f s that the aligner can tell: align it "
                                   "in pieces",
                                   timings_.audio_ms / 1000, config.classes * config.class_ms / 1000));
    int64_t start = now_ns();
    const int64_t frames = mel_.frames(samples), audio_tokens = config.encoder.total_tokens(frames);
    const AlignmentPrompt made = alignment_prompt(model_->tokenizer(), audio_tokens, units);
    const int64_t count = static_cast<int64_t>(made.prompt.ids.size()), stride = row_stride(config.decoder.hidden);
    if (count > settings_.max_context)
      fail(Status::TooLong, format("audio and text of %lld tokens do not fit the context of %lld: align shorter pieces",
                                   static_cast<long long>(count), static_cast<long long>(settings_.max_context)));
    timings_.audio_tokens = static_cast<int32_t>(audio_tokens);
    timings_.prompt_tokens = static_cast<int32_t>(count);
    float *mel = mel_data_.reserve(static_cast<size_t>(frames * mel_.bins()));
    mel_.compute(pcm, samples, mel, pool_);
    timings_.mel_ms = elapsed_ms(start);

    start = now_ns();
    float *x = embeddings_.reserve(static_cast<size_t>(count * stride));
    encoder_.run(mel, frames, full_attention, x + made.prompt.audio_at * stride, stride, abort_);
    timings_.encode_ms = elapsed_ms(start);

    start = now_ns();
    embed_text(made.prompt, 0, audio_tokens, x);
    scores.resize(static_cast<size_t>(shape[0] * shape[1]));
    forget();
    decoder_.forward(x, count, made.slots, scores.data(), abort_);
    forget();
    timings_.prefill_ms = elapsed_ms(start);
    timings_.finish = CHATLLM_ASR_FINISH_STOP;
  });
  if (timings_.finish == CHATLLM_ASR_FINISH_ABORT) fail(Status::Error, "the alignment was aborted");
  return scores;
}

std::vector<double> Session::align(const float *pcm, int64_t samples, const std::vector<std::string> &units,
                                   bool full_attention) {
  int64_t shape[2];
  const std::vector<float> scores = align_scores(pcm, samples, units, full_attention, shape);
  std::vector<double> times;
  for (int64_t slot = 0; slot < shape[0]; ++slot) {
    const float *first = scores.data() + slot * shape[1];
    times.push_back(static_cast<double>(std::max_element(first, first + shape[1]) - first) * model_->config().class_ms);
  }
  repair_times(&times);
  return times;
}

std::vector<int32_t> Session::prompt_ids(int64_t samples, const RunSettings &settings) const {
  return build_prompt(std::max(samples, kShortest), settings).ids;
}

std::string Session::info() const {
  const Config &c = model_->config();
  std::string languages;
  for (const auto &language : c.languages) languages += (languages.empty() ? "" : ", ") + json_quote(language);
  return "{\"name\": " + json_quote(c.name) + ", \"path\": " + json_quote(settings_.model_path) +
         format(", \"kernels\": \"%s\", \"threads\": %d, \"tensor_type\": \"%s\", \"context_length\": %lld",
                kernels_.name, pool_.size(), type_name(model_->file().header().type),
                static_cast<long long>(settings_.max_context)) +
         format(
             ", \"vocab_size\": %d, \"hidden_size\": %d, \"layers\": %d, \"heads\": %d, \"kv_heads\": %d, "
             "\"head_dim\": %d",
             c.decoder.vocab, c.decoder.hidden, c.decoder.layers, c.decoder.heads, c.decoder.kv_heads,
             c.decoder.head_dim) +
         format(", \"encoder_width\": %d, \"encoder_layers\": %d, \"mel_bins\": %d", c.encoder.d_model,
                c.encoder.layers, c.encoder.mel_bins) +
         format(", \"purpose\": \"%s\", \"classes\": %d, \"class_ms\": %g", c.aligner ? "ForcedAligner" : "ASR",
                c.classes, c.class_ms) +
         ", \"languages\": [" + languages + "]}";
}

}  // namespace chatllm
