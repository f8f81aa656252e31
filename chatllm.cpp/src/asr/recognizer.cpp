#include "asr/recognizer.h"

#include <algorithm>
#include <cmath>

#include "asr/aligner.h"
#include "asr/one_pass.h"
#include "base/clock.h"
#include "base/error.h"

namespace chatllm {

namespace {

constexpr int64_t kShortest = kSampleRate / 2;  // shorter audio is padded to this
constexpr double kKeepMs = 32000;               // audio whose intermediate memory is kept for the next utterance
constexpr int64_t kStandStillNs = 110000000;    // for which those that are being decoded wait for a preparation
constexpr int64_t kReserveBytes = 256 << 20;    // of the system's memory that no further utterance may take
constexpr size_t kMostTold = 32;                // events that a part of the work may leave untold, but for its own

std::shared_ptr<const Error> memory_is_short() {
  static const auto *const error = new std::shared_ptr<const Error>(std::make_shared<const Error>(  // never destroyed
      Status::NoMemory, "memory is short: close other models or programs, or use a smaller model"));
  return *error;
}

template <class... From>
std::shared_ptr<const Error> make_error(const From &...from) noexcept {
  try {
    return std::make_shared<const Error>(from...);
  } catch (const std::bad_alloc &) {
    return memory_is_short();
  }
}

// Runs part() until it is true, one turn of the machine each.
template <class F>
void in_parts(const AbortFlag &abort, const char *what, F &&part) {
  for (bool done = false; !done;) {
    if (abort) fail(Status::Error, format("%s was aborted", what));
    std::lock_guard<FairMutex> turn(machine_turn());
    done = part();
  }
}

}  // namespace

Recognizer::Recognizer(const RecognizerSettings &settings)
    : kernels_(choose_kernels(settings.kernels.c_str())),
      pool_(shared_pool(thread_count(settings.threads))),
      settings_(settings),
      model_(Model::open(settings.model_path, kernels_, *pool_)),
      mel_(model_->config().encoder.mel_bins),
      prompts_(naming(settings.model_path, [&] { return PromptBuilder(model_->tokenizer()); })),
      products_(kernels_, *pool_),
      encoder_(*model_, products_),
      decoder_(*model_, products_) {
  if (settings_.max_context <= 0 || settings_.max_context > model_->config().decoder.max_positions)
    settings_.max_context = model_->config().decoder.max_positions;
  // The scheduler itself takes no memory: what it needs to say that memory is short is there.
  memory_is_short();
  const size_t batch = static_cast<size_t>(settings_.batch);
  active_.reserve(batch + 1);
  told_.reserve(2 * kMostTold + 2 * batch + Decoder::kMostRows * (batch / Decoder::kMostRows + 1));
  thread_ = std::thread(&Recognizer::work, this);
  std::unique_lock<std::mutex> lock(desk_->mutex);
  desk_->changed.wait(lock, [&] { return desk_->worker != std::thread::id(); });
  if (!stop_) return;
  lock.unlock();
  thread_.join();
  throw std::bad_alloc();
}

Recognizer::~Recognizer() {
  close();
}

void Recognizer::close() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard<std::mutex> lock(desk_->mutex);
    stop_ = true;
    for (const Pointer &u : desk_->open) {
      u->cancelled_ = true;
      u->wake();
    }
  }
  desk_->changed.notify_all();
  thread_.join();
}

std::shared_ptr<Utterance> Recognizer::submit(Request request, Listener listener) {
  resolve_language(model_->config().languages, request.settings.language);  // says now that it is unknown
  const bool ready = !request.live || !request.audio.empty();
  const auto u = std::make_shared<Utterance>(desk_, std::move(request), std::move(listener));
  std::lock_guard<std::mutex> lock(desk_->mutex);
  if (stop_) chatllm::fail(Status::NotStarted, "the recognizer is being closed");
  desk_->open.push_back(u);
  if (ready) u->wake();
  return u;
}

bool Recognizer::idle() const {
  std::lock_guard<std::mutex> lock(desk_->mutex);
  return std::all_of(desk_->open.begin(), desk_->open.end(), [](const Pointer &u) { return u->ended_; });
}

bool Recognizer::on_worker_thread() const {
  return std::this_thread::get_id() == thread_.get_id();
}

// ---- the scheduler ----

void Recognizer::work() {
  {
    const bool ready = prepare_to_throw();
    std::lock_guard<std::mutex> lock(desk_->mutex);
    desk_->worker = std::this_thread::get_id();
    stop_ = !ready;
    desk_->changed.notify_all();
    if (!ready) return;
  }
  while (wait_for_work()) {
    end_cancelled();
    {
      std::lock_guard<FairMutex> turn(machine_turn());
      prepare();
    }
    tell_all();
    if (active_.empty()) continue;
    {
      std::lock_guard<FairMutex> turn(machine_turn());
      decode();
      give_memory_back();
    }
    tell_all();
  }
}

// False when the recognizer is closed and every utterance has ended.
bool Recognizer::wait_for_work() {
  if (preparing_ != nullptr || !active_.empty()) return true;
  std::unique_lock<std::mutex> lock(desk_->mutex);
  for (;;) {
    for (const Pointer &u : desk_->open)
      if (u->news_ != 0) return true;
    if (stop_ && desk_->open.empty()) return false;
    desk_->changed.wait(lock);
  }
}

// Of those that wait; the others are looked at by each part of the work.
void Recognizer::end_cancelled() {
  while (told_.size() < kMostTold) {
    Pointer cancelled;
    {
      std::lock_guard<std::mutex> lock(desk_->mutex);
      if (!desk_->news) return;
      for (const Pointer &u : desk_->open)
        if (u->cancelled_ && u->stage_ == Utterance::Stage::Waiting) cancelled = u;
      if (cancelled == nullptr) {
        desk_->news = false;
        return;
      }
    }
    finish(cancelled, Finish::Abort);
  }
}

// Makes the one that has waited longest the next to be prepared, if there is room.
bool Recognizer::admit() {
  if (static_cast<int>(active_.size()) >= settings_.batch) return false;
  Pointer first;
  {
    std::lock_guard<std::mutex> lock(desk_->mutex);
    for (const Pointer &u : desk_->open)
      if (u->stage_ == Utterance::Stage::Waiting && u->news_ != 0 && (first == nullptr || u->news_ < first->news_))
        first = u;
    if (first == nullptr || !(active_.empty() || fits(*first))) return false;
    first->news_ = 0;
  }
  preparing_ = first;
  guarded(first, [&] { begin(first); });
  return true;
}

// Whether there is memory for the keys and values of one more, and as much again. With the desk's lock.
bool Recognizer::fits(const Utterance &u) const {
  const double seconds = static_cast<double>(u.audio_.size() + u.arrived_.size()) / kSampleRate;
  const double positions = 64 + 26 * seconds;  // 13 of audio and as many of text a second
  const double bytes = positions * static_cast<double>(active_.front()->conversation_->sequence.position_bytes());
  return 2 * bytes + kReserveBytes <= static_cast<double>(available_memory());
}

// Runs f(); an exception ends this utterance and no other.
template <class F>
bool Recognizer::guarded(const Pointer &u, F &&f) {
  try {
    f();
    return true;
  } catch (const Aborted &) {
    finish(u, Finish::Abort);
  } catch (const Error &e) {
    fail(u, make_error(e));
  } catch (const std::bad_alloc &) {
    fail(u, memory_is_short());
  } catch (const std::exception &e) {
    fail(u, make_error(Status::Error, e.what()));
  }
  return false;
}

// Prepares utterances, part by part, for as long as those that are being decoded may stand still, or until a first
// token is to be told.
void Recognizer::prepare() {
  const int64_t start = now_ns();
  for (int64_t now = start, part = 0; now - start + part < kStandStillNs && told_.size() < kMostTold;) {
    if (preparing_ == nullptr && !admit()) return;
    const Pointer u = preparing_;
    if (u == nullptr) continue;  // it failed at once
    guarded(u, [&] { advance(u); });
    if (u->stage_ == Utterance::Stage::Decode) return;
    part = now_ns() - now;
    now += part;
  }
}

// One step for all. Where memory is short for all, the last one gives its place up.
void Recognizer::decode() {
  const Pointer last = active_.back();
  guarded(last, [&] {
    const std::vector<Pointer> all = active_;
    std::vector<Pointer> group;
    for (const Pointer &u : all) {
      if (u->cancelled_) {
        finish(u, Finish::Abort);
        continue;
      }
      group.push_back(u);
      if (static_cast<int64_t>(group.size()) == Decoder::kMostRows) {
        decode_group(group);
        group.clear();
      }
    }
    if (!group.empty()) decode_group(group);
  });
}

void Recognizer::decode_group(const std::vector<Pointer> &group) {
  const DecoderConfig &config = model_->config().decoder;
  const int64_t stride = row_stride(config.hidden);
  int64_t left = Decoder::kMostRows - static_cast<int64_t>(group.size());  // for drafts
  std::vector<Pointer> members;
  std::vector<std::vector<int32_t>> fed;
  std::vector<std::vector<PositionKey>> keys;
  std::vector<Rows> rows;
  std::vector<int64_t> lengths;
  for (const Pointer &u : group) {
    const bool room = guarded(u, [&] {
      auto ids = next_rows(*u, 1 + left);
      u->conversation_->sequence.reserve(static_cast<int64_t>(ids.size()));
      fed.push_back(std::move(ids));
    });
    if (!room) continue;
    left -= static_cast<int64_t>(fed.back().size()) - 1;
    keys.emplace_back();
    for (const int32_t id : fed.back()) keys.back().push_back(token_key(id));
    members.push_back(u);
    lengths.push_back(u->conversation_->sequence.length());
  }
  if (members.empty()) return;
  std::vector<Choice> choices(Decoder::kMostRows);
  const bool done = guarded(members.back(), [&] {
    float *x = x_.reserve(static_cast<size_t>(Decoder::kMostRows * stride));
    float *scores = scores_.reserve(static_cast<size_t>(Decoder::kMostRows * config.vocab));
    int64_t count = 0;
    for (size_t i = 0; i < members.size(); ++i) {
      for (const int32_t id : fed[i]) model_->embed(id, x + count++ * stride);
      rows.push_back({&members[i]->conversation_->sequence, keys[i].data(), static_cast<int64_t>(fed[i].size())});
    }
    decoder_.step(x, rows, scores);
    choose(kernels_, *pool_, scores, config.vocab, count, choices.data());
  });
  if (!done) {  // the others do this step again
    for (size_t i = 0; i + 1 < members.size(); ++i) members[i]->conversation_->sequence.truncate(lengths[i]);
    return;
  }
  const Choice *mine = choices.data();
  for (size_t i = 0; i < members.size(); ++i) {
    const Pointer &u = members[i];
    guarded(u, [&] { take_scores(u, fed[i], mine); });
    mine += fed[i].size();
  }
}

// Without the machine's turn: its listeners are told what has happened.
void Recognizer::tell_all() {
  for (Told &told : told_) {
    Utterance &u = *told.utterance;
    const bool end = told.kind == Event::Kind::End;
    if (end) {
      std::lock_guard<std::mutex> lock(desk_->mutex);
      u.ended_ = true;
    }
    Event event{told.kind};
    if (told.kind == Event::Kind::Token) event.token = &told.token;
    if (end || told.kind == Event::Kind::Step) event.timings = &told.timings;
    event.error = told.error.get();
    u.tell(event);
    if (!end) continue;
    std::lock_guard<std::mutex> lock(desk_->mutex);
    auto &open = desk_->open;
    open.erase(std::find(open.begin(), open.end(), told.utterance));
    desk_->changed.notify_all();
  }
  told_.clear();
}

// ---- the stages of an utterance ----

void Recognizer::take_audio(Utterance &u) {
  std::lock_guard<std::mutex> lock(desk_->mutex);
  if (u.audio_.empty())
    u.audio_ = std::move(u.arrived_);
  else
    u.audio_.insert(u.audio_.end(), u.arrived_.begin(), u.arrived_.end());
  u.arrived_ = {};
  u.final_ = u.last_;
  u.timings_.start_ns = u.news_ns_;
}

void Recognizer::begin(const Pointer &utterance) {
  Utterance &u = *utterance;
  Timings fresh;
  fresh.threads = pool_->size();
  fresh.load_ms = load_ms_;
  fresh.encoded_windows = u.timings_.encoded_windows;
  fresh.recomputed_windows = u.timings_.recomputed_windows;
  fresh.drafted_tokens = u.timings_.drafted_tokens;
  fresh.saved_steps = u.timings_.saved_steps;
  u.timings_ = fresh;
  u.ids_.clear();
  u.guard_ = {};
  take_audio(u);
  u.timings_.wait_ms = elapsed_ms(u.timings_.start_ns);
  check_abort(u.cancelled_);
  if (!u.begun_) told_.push_back({utterance, Event::Kind::Begin, {}, {}, nullptr});
  u.begun_ = true;
  if (u.continues_) return begin_continuation(u);
  const int64_t samples = static_cast<int64_t>(u.audio_.size());
  u.timings_.audio_ms = static_cast<double>(samples) * 1000.0 / kSampleRate;
  check_audio(u.audio_.data(), samples, u.checked_);
  u.checked_ = samples;
  u.prompt_ = build_prompt(std::max(samples, kShortest), u.settings_);
  u.stage_ = Utterance::Stage::Mel;
}

// The next part of an utterance's preparation.
void Recognizer::advance(const Pointer &utterance) {
  Utterance &u = *utterance;
  check_abort(u.cancelled_);
  const int64_t start = now_ns();
  switch (u.stage_) {
    case Utterance::Stage::Mel:
      compute_mel(u);
      u.timings_.mel_ms = elapsed_ms(start);
      begin_encode(u);
      break;
    case Utterance::Stage::Encode:
      if (encoder_.advance()) end_encode(u);
      u.timings_.encode_ms += elapsed_ms(start);
      break;
    case Utterance::Stage::Prefill: {
      const bool done = decoder_.advance_prefill();
      u.timings_.prefill_ms += elapsed_ms(start);
      if (done) begin_decode(utterance);
      break;
    }
    case Utterance::Stage::Waiting:
    case Utterance::Stage::Decode:
    case Utterance::Stage::Ended:
      break;
  }
}

void Recognizer::compute_mel(Utterance &u) {
  const int64_t samples = static_cast<int64_t>(u.audio_.size()), bins = mel_.bins();
  const bool more = u.live_ && !u.final_;
  if (samples < kShortest) {
    u.padded_ = u.audio_;
    u.padded_.resize(static_cast<size_t>(kShortest));
  }
  const float *pcm = samples < kShortest ? u.padded_.data() : u.audio_.data();
  const int64_t length = std::max(samples, kShortest);
  u.frames_ = mel_.frames(length);
  float *power = u.power_.grow(static_cast<size_t>(u.frames_ * bins), static_cast<size_t>(u.final_frames_ * bins));
  if (const int64_t end = mel_.final_frames(samples); more && end > u.final_frames_) {
    u.final_top_ =
        std::max(u.final_top_, mel_.power(pcm, length, u.final_frames_, end, power + u.final_frames_ * bins, *pool_));
    u.final_frames_ = end;
  }
  u.top_ = u.final_top_;
  if (u.frames_ > u.final_frames_)
    u.top_ =
        std::max(u.top_, mel_.power(pcm, length, u.final_frames_, u.frames_, power + u.final_frames_ * bins, *pool_));
  u.padded_ = {};
  if (!more) u.audio_ = {};
}

// A window's tokens depend on its frames and, by the floor, on the loudest of all: those of final frames are kept as
// long as that is the same.
void Recognizer::begin_encode(Utterance &u) {
  const int64_t stride = row_stride(model_->config().decoder.hidden),
                tokens = model_->config().encoder.total_tokens(u.frames_);
  if (u.settings_.full_attention || u.windows_top_ != u.top_) {
    u.timings_.recomputed_windows += static_cast<int32_t>(u.windows_.size());
    u.windows_.clear();
  }
  const int64_t kept = static_cast<int64_t>(u.windows_.size()), first = kept * encoder_.window_tokens();
  const int64_t windows = (u.frames_ + encoder_.window_frames() - 1) / encoder_.window_frames();
  u.timings_.audio_tokens = static_cast<int32_t>(tokens);
  u.timings_.encoded_windows += static_cast<int32_t>(windows - kept);
  u.work_ = ++works_;
  float *rows = u.rows_.grow(static_cast<size_t>(tokens * stride), static_cast<size_t>(first * stride));
  encoder_.begin({u.power_.data(), u.frames_, u.top_}, kept, u.settings_.full_attention, rows + first * stride, stride);
  u.stage_ = Utterance::Stage::Encode;
}

void Recognizer::end_encode(Utterance &u) {
  u.windows_top_ = u.top_;
  const size_t finished = u.settings_.full_attention || u.final_
                              ? u.windows_.size()
                              : static_cast<size_t>(u.final_frames_ / encoder_.window_frames());
  u.windows_.resize(finished, u.work_);
  if (u.final_) u.power_.release();
  begin_prefill(u);
}

void Recognizer::begin_prefill(Utterance &u) {
  const int64_t stride = row_stride(model_->config().decoder.hidden), audio_at = u.prompt_.audio_at;
  const int64_t tokens = u.timings_.audio_tokens, count = static_cast<int64_t>(u.prompt_.ids.size());
  u.timings_.prompt_tokens = static_cast<int32_t>(count);
  u.keys_.clear();
  for (const int32_t id : u.prompt_.ids) u.keys_.push_back(token_key(id));
  for (int64_t row = 0; row < tokens; ++row) {
    const size_t window = static_cast<size_t>(row / encoder_.window_tokens());
    u.keys_[static_cast<size_t>(audio_at + row)] =
        audio_key(window < u.windows_.size() ? u.windows_[window] : u.work_, row);
  }
  if (u.conversation_ == nullptr) u.conversation_ = spare_ != nullptr ? std::move(spare_) : conversation();
  Conversation &c = *u.conversation_;
  c.pending = -1;
  c.answered = false;
  c.sequence.truncate(std::min(c.sequence.common_prefix(u.keys_), count - 1));
  u.timings_.reused_tokens = static_cast<int32_t>(c.sequence.length());
  auto embed = [this, &u, stride, audio_at, tokens](int64_t first, int64_t n, float *x) {
    for (int64_t i = first; i < first + n; ++i, x += stride)
      if (i >= audio_at && i < audio_at + tokens)
        std::copy_n(u.rows_.data() + (i - audio_at) * stride, stride, x);
      else
        model_->embed(u.prompt_.ids[static_cast<size_t>(i)], x);
  };
  float *scores = scores_.reserve(static_cast<size_t>(Decoder::kMostRows * model_->config().decoder.vocab));
  decoder_.begin_prefill(c.sequence, u.keys_, embed, {static_cast<int64_t>(u.keys_.size()) - 1}, scores);
  u.limit_ =
      u.settings_.max_new_tokens >= 0
          ? u.settings_.max_new_tokens
          : 64 + 3 * tokens;  // fast speech in any language stays below three tokens per audio token (37 a second)
  u.stage_ = Utterance::Stage::Prefill;
}

// Goes on after the conversation's last answer and a suffix.
void Recognizer::begin_continuation(Utterance &u) {
  Conversation &c = *u.conversation_;
  if (!c.answered) chatllm::fail(Status::BadArgument, "there is no answer to continue: run on audio first");
  u.prompt_.ids = model_->tokenizer().encode(u.suffix_);
  auto &ids = u.prompt_.ids;
  if (c.pending >= 0) ids.insert(ids.begin(), c.pending);
  if (ids.empty()) chatllm::fail(Status::BadArgument, "the answer is complete: give a suffix to continue after");
  if (c.sequence.length() + static_cast<int64_t>(ids.size()) >= settings_.max_context)
    chatllm::fail(Status::TooLong, format("the conversation does not fit the context of %lld tokens",
                                          static_cast<long long>(settings_.max_context)));
  c.pending = -1;
  u.keys_ = c.sequence.keys();
  for (const int32_t id : ids) u.keys_.push_back(token_key(id));
  const int64_t stride = row_stride(model_->config().decoder.hidden), before = u.length_before_;
  auto embed = [this, &u, stride, before](int64_t first, int64_t n, float *x) {
    for (int64_t i = first; i < first + n; ++i, x += stride)
      model_->embed(u.prompt_.ids[static_cast<size_t>(i - before)], x);
  };
  float *scores = scores_.reserve(static_cast<size_t>(Decoder::kMostRows * model_->config().decoder.vocab));
  decoder_.begin_prefill(c.sequence, u.keys_, embed, {static_cast<int64_t>(u.keys_.size()) - 1}, scores);
  u.limit_ = u.settings_.max_new_tokens >= 0 ? u.settings_.max_new_tokens : 256;
  u.stage_ = Utterance::Stage::Prefill;
}

// The scores of the first token are there.
void Recognizer::begin_decode(const Pointer &u) {
  u->stage_ = Utterance::Stage::Decode;
  preparing_ = nullptr;
  active_.push_back(u);
  if (u->final_) u->rows_.release();
  if (u->limit_ <= 0) return finish(u, Finish::Length);
  Choice choice;
  choose(kernels_, *pool_, scores_.data(), model_->config().decoder.vocab, 1, &choice);
  u->drafting_ = !u->draft_.empty();
  const Finish end = take(u, choice, u->conversation_->sequence.length());
  if (end != Finish::None) finish(u, end);
}

// What the next step feeds: the last token and, as long as the last hypothesis agrees with this one, what followed it
// there. It is right most of the time, and verifying a token costs much less than a step.
std::vector<int32_t> Recognizer::next_rows(const Utterance &u, int64_t most) const {
  std::vector<int32_t> ids{u.conversation_->pending};
  most = std::min({most, settings_.max_context - 1 - u.conversation_->sequence.length(),
                   u.limit_ - static_cast<int64_t>(u.ids_.size())});
  if (u.drafting_)
    for (size_t at = u.ids_.size(); at < u.draft_.size() && static_cast<int64_t>(ids.size()) < most; ++at)
      ids.push_back(u.draft_[at]);
  return ids;
}

// Takes the tokens that are chosen after each of the rows, up to the first that the draft had not foreseen.
void Recognizer::take_scores(const Pointer &u, const std::vector<int32_t> &fed, const Choice *choices) {
  Sequence &sequence = u->conversation_->sequence;
  const int64_t before = sequence.length() - static_cast<int64_t>(fed.size());
  u->conversation_->pending = -1;
  u->timings_.drafted_tokens += static_cast<int32_t>(fed.size() - 1);
  for (size_t i = 0;; ++i) {
    const int64_t length = before + static_cast<int64_t>(i) + 1;
    const Finish end = take(u, choices[i], length);
    const bool agrees = end == Finish::None && i + 1 < fed.size() && fed[i + 1] == choices[i].id;
    if (agrees) {
      ++u->timings_.saved_steps;
      continue;
    }
    sequence.truncate(length);
    if (end != Finish::None) finish(u, end);
    return;
  }
}

// Takes a token after `length` positions; None when another is to follow.
Finish Recognizer::take(const Pointer &utterance, Choice choice, int64_t length) {
  Utterance &u = *utterance;
  Timings &t = u.timings_;
  const int64_t now = now_ns();
  if (t.first_token_ns == 0) {
    t.first_token_ns = now;
    t.first_token_ms = static_cast<double>(now - t.start_ns) / 1e6;
  }
  t.decode_ms = static_cast<double>(now - t.first_token_ns) / 1e6;
  if (!u.settings_.ignore_stop && prompts_.is_stop(choice.id)) return Finish::Stop;
  const Token token{choice.id, choice.logprob, now, &model_->tokenizer().bytes(choice.id),
                    model_->tokenizer().is_special(choice.id)};
  told_.push_back({utterance, Event::Kind::Token, token, {}, nullptr});
  ++t.new_tokens;
  u.conversation_->pending = choice.id;
  u.drafting_ = u.drafting_ && u.ids_.size() < u.draft_.size() && u.draft_[u.ids_.size()] == choice.id;
  u.ids_.push_back(choice.id);
  if (!u.settings_.ignore_stop && u.guard_.push(choice.id)) return Finish::Loop;
  if (t.new_tokens >= u.limit_ || length + 1 >= settings_.max_context) return Finish::Length;
  return Finish::None;
}

void Recognizer::finish(const Pointer &utterance, Finish finish) {
  Utterance &u = *utterance;
  if (u.stage_ == Utterance::Stage::Ended) return;  // in the same part of the work, where memory is short for all
  u.timings_.finish = finish;
  const bool aborted = finish == Finish::Abort;
  if (u.conversation_ != nullptr && !aborted) u.conversation_->answered = true;
  const bool step = u.live_ && !u.final_ && !aborted;
  leave(utterance, step ? Event::Kind::Step : Event::Kind::End, nullptr);
}

void Recognizer::fail(const Pointer &u, std::shared_ptr<const Error> error) {
  if (u->stage_ == Utterance::Stage::Ended) return;
  u->timings_.finish = Finish::None;
  leave(u, Event::Kind::End, std::move(error));
}

// The end of an utterance, or of one of its hypotheses.
void Recognizer::leave(const Pointer &utterance, Event::Kind kind, std::shared_ptr<const Error> error) {
  Utterance &u = *utterance;
  if (u.timings_.start_ns != 0) u.timings_.total_ms = elapsed_ms(u.timings_.start_ns);
  u.stage_ = kind == Event::Kind::Step ? Utterance::Stage::Waiting : Utterance::Stage::Ended;
  if (preparing_ == utterance) preparing_ = nullptr;
  active_.erase(std::remove(active_.begin(), active_.end(), utterance), active_.end());
  if (u.continues_ && (error != nullptr || u.timings_.finish == Finish::Abort)) {  // can be repeated
    u.conversation_->sequence.truncate(u.length_before_);
    u.conversation_->pending = u.pending_before_;
  }
  told_.push_back({utterance, kind, {}, u.timings_, std::move(error)});
  long_audio_ |= u.timings_.audio_ms > kKeepMs;
  if (kind == Event::Kind::Step) {
    u.draft_.swap(u.ids_);
    return;
  }
  keep_prefix(u);
  u.audio_ = {};
  u.power_.release();
  u.rows_.release();
}

// What the cache holds of the text before the audio serves the next utterance.
void Recognizer::keep_prefix(Utterance &u) {
  if (u.conversation_ == nullptr) return;
  Sequence &sequence = u.conversation_->sequence;
  if (u.conversation_.use_count() == 1) {
    sequence.truncate(u.prompt_.audio_at);
    sequence.shrink(0);
    spare_ = std::move(u.conversation_);
  } else {
    sequence.shrink(0);
  }
  u.conversation_.reset();
}

void Recognizer::give_memory_back() {
  if (!long_audio_ || preparing_ != nullptr) return;  // fresh pages cost more time than the few of short clips
  long_audio_ = false;
  encoder_.release();
  products_.release();
  decoder_.release();
}

// ---- audio and prompts ----

void Recognizer::check_audio(const float *pcm, int64_t samples, int64_t first) const {
  if (pcm == nullptr || samples <= 0) chatllm::fail(Status::BadAudio, "the audio has no samples");
  for (int64_t i = first; i < samples; ++i)
    if (!std::isfinite(pcm[i]))
      chatllm::fail(Status::BadAudio,
                    format("sample %lld of the audio is not a finite number: clean the recording first",
                           static_cast<long long>(i)));
}

Prompt Recognizer::build_prompt(int64_t samples, const RunSettings &settings) const {
  if (model_->config().aligner)
    chatllm::fail(Status::BadModel,
                  format("model file '%s' holds the forced aligner, which does not transcribe: use a Qwen3-ASR model",
                         settings_.model_path.c_str()));
  const int64_t tokens = model_->config().encoder.total_tokens(mel_.frames(samples));
  auto check = [&](int64_t count) {
    if (count >= settings_.max_context)
      chatllm::fail(
          Status::TooLong,
          format("the prompt of %lld tokens does not fit the context of %lld: give shorter audio or context text",
                 static_cast<long long>(count), static_cast<long long>(settings_.max_context)));
  };
  check(tokens);  // before there is a prompt of that length
  Prompt prompt = prompts_.build(tokens, settings.context,
                                 resolve_language(model_->config().languages, settings.language), settings.prefix);
  check(static_cast<int64_t>(prompt.ids.size()));
  return prompt;
}

std::vector<int32_t> Recognizer::prompt_ids(int64_t samples, const RunSettings &settings) const {
  return build_prompt(std::max(samples, kShortest), settings).ids;
}

// ---- intermediate results ----

std::vector<float> Recognizer::log_mel(const float *pcm, int64_t samples, int64_t shape[2]) {
  check_audio(pcm, samples);
  shape[0] = mel_.bins();
  shape[1] = mel_.frames(samples);
  if (shape[1] < 1) chatllm::fail(Status::BadAudio, "the audio is shorter than one frame (10 ms)");
  std::vector<float> mel(static_cast<size_t>(shape[0] * shape[1]));
  std::lock_guard<FairMutex> turn(machine_turn());
  mel_.compute(pcm, samples, mel.data(), *pool_);
  return mel;
}

std::vector<float> Recognizer::encode(const float *pcm, int64_t samples, bool full_attention, int64_t shape[2],
                                      const AbortFlag &abort) {
  check_audio(pcm, samples);
  const int64_t frames = mel_.frames(samples);
  if (frames < 1) chatllm::fail(Status::BadAudio, "the audio is shorter than one frame (10 ms)");
  shape[0] = model_->config().encoder.total_tokens(frames);
  shape[1] = model_->config().encoder.output_dim;
  std::vector<float> out(static_cast<size_t>(shape[0] * shape[1]));
  Buffer<float> power(static_cast<size_t>(frames * mel_.bins()));
  Encoder encoder(*model_, products_);
  in_parts(abort, "encoding", [&] {
    const float top = mel_.power(pcm, samples, 0, frames, power.data(), *pool_);
    encoder.begin({power.data(), frames, top}, 0, full_attention, out.data(), shape[1]);
    return true;
  });
  in_parts(abort, "encoding", [&] { return encoder.advance(); });
  return out;
}

// The scores of some positions of a prompt, on the caller's thread.
std::vector<float> Recognizer::score_prompt(const Prompt &prompt, const std::vector<float> &audio,
                                            const std::vector<int64_t> &positions, const AbortFlag &abort) {
  const int64_t hidden = model_->config().decoder.hidden, stride = row_stride(hidden),
                audio_rows = static_cast<int64_t>(audio.size()) / hidden;
  std::vector<float> out(positions.size() * static_cast<size_t>(model_->decoder().lm_head.rows));
  Decoder decoder(*model_, products_);
  Sequence sequence = decoder.sequence();
  const std::vector<PositionKey> keys(prompt.ids.size());
  auto embed = [&](int64_t first, int64_t n, float *x) {
    for (int64_t i = first; i < first + n; ++i, x += stride) {
      const int64_t row = i - prompt.audio_at;
      if (row >= 0 && row < audio_rows)
        std::copy_n(audio.data() + row * hidden, hidden, x);
      else
        model_->embed(prompt.ids[static_cast<size_t>(i)], x);
    }
  };
  decoder.begin_prefill(sequence, keys, embed, positions, out.data());
  in_parts(abort, "the computation", [&] { return decoder.advance_prefill(); });
  return out;
}

std::vector<float> Recognizer::prefill_logits(const float *pcm, int64_t samples, const RunSettings &settings,
                                              int64_t shape[2], const AbortFlag &abort) {
  int64_t encoded[2];
  const std::vector<float> rows = encode(pcm, samples, settings.full_attention, encoded, abort);
  const Prompt prompt = build_prompt(samples, settings);
  shape[0] = 1;
  shape[1] = model_->decoder().lm_head.rows;
  return score_prompt(prompt, rows, {static_cast<int64_t>(prompt.ids.size()) - 1}, abort);
}

// ---- the forced aligner ----

// The pass over a text and its audio, on the caller's thread; f(first, count, scores[count][classes]) gets the scores
// of the units' starts and ends, a few at a time.
template <class F>
void Recognizer::align_pass(const float *pcm, int64_t samples, const std::vector<std::string> &units,
                            bool full_attention, const AbortFlag &abort, F &&f) {
  const Config &config = model_->config();
  if (!config.aligner)
    chatllm::fail(Status::BadModel, format("model file '%s' holds no forced aligner, which word times need: use a "
                                           "Qwen3-ForcedAligner model",
                                           settings_.model_path.c_str()));
  check_audio(pcm, samples);
  const double audio_ms = static_cast<double>(samples) * 1000.0 / kSampleRate;
  if (audio_ms > config.classes * config.class_ms)
    chatllm::fail(Status::TooLong,
                  format("the audio of %.0f s is longer than the %.0f s that the aligner can tell: align it in pieces",
                         audio_ms / 1000, config.classes * config.class_ms / 1000));
  const AlignmentPrompt made = naming(settings_.model_path, [&] {
    return alignment_prompt(model_->tokenizer(), config.encoder.total_tokens(mel_.frames(samples)), units);
  });
  const int64_t count = static_cast<int64_t>(made.prompt.ids.size()), stride = row_stride(config.decoder.hidden);
  if (count > settings_.max_context)
    chatllm::fail(Status::TooLong,
                  format("audio and text of %lld tokens do not fit the context of %lld: align shorter pieces",
                         static_cast<long long>(count), static_cast<long long>(settings_.max_context)));
  Buffer<float> x(static_cast<size_t>(count * stride));
  {
    int64_t encoded[2];
    const std::vector<float> audio = encode(pcm, samples, full_attention, encoded, abort);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = i - made.prompt.audio_at;
      if (row >= 0 && row < encoded[0])
        std::copy_n(audio.data() + row * encoded[1], encoded[1], x.data() + i * stride);
      else
        model_->embed(made.prompt.ids[static_cast<size_t>(i)], x.data() + i * stride);
    }
  }
  OnePass pass(*model_, products_, x.data(), count, made.slots);
  in_parts(abort, "the alignment", [&] { return pass.advance(); });
  constexpr int64_t kScored = 64;
  const int64_t slots = static_cast<int64_t>(made.slots.size());
  Buffer<float> scores(static_cast<size_t>(kScored * config.classes));
  int64_t first = 0;
  in_parts(abort, "the alignment", [&] {
    const int64_t some = std::min(kScored, slots - first);
    if (some > 0) pass.score(first, some, scores.data());
    f(first, some, scores.data());
    return (first += some) == slots;
  });
}

std::vector<float> Recognizer::align_scores(const float *pcm, int64_t samples, const std::vector<std::string> &units,
                                            bool full_attention, int64_t shape[2], const AbortFlag &abort) {
  shape[0] = 2 * static_cast<int64_t>(units.size());
  shape[1] = model_->config().classes;
  std::vector<float> all(static_cast<size_t>(shape[0] * shape[1]));
  align_pass(pcm, samples, units, full_attention, abort, [&](int64_t first, int64_t count, const float *scores) {
    std::copy_n(scores, count * shape[1], all.data() + first * shape[1]);
  });
  return all;
}

std::vector<double> Recognizer::align(const float *pcm, int64_t samples, const std::vector<std::string> &units,
                                      bool full_attention, const AbortFlag &abort) {
  const int64_t classes = model_->config().classes;
  std::vector<double> times;
  align_pass(pcm, samples, units, full_attention, abort, [&](int64_t, int64_t count, const float *scores) {
    for (const float *end = scores + count * classes; scores < end; scores += classes)
      times.push_back(static_cast<double>(std::max_element(scores, scores + classes) - scores) *
                      model_->config().class_ms);
  });
  repair_times(&times);
  return times;
}

}  // namespace chatllm
