#include "capi/object.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "audio/wav.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/utf8.h"
#include "capi/alignment.h"
#include "model/describe.h"

namespace chatllm {

const char kForked[] =
    "the process was forked after the model was loaded and its threads are gone: load the model in the child, or use "
    "spawn";

namespace {

// The caller's options, whatever version of the header they come from; the defaults for none.
chatllm_asr_options complete(const chatllm_asr_options *given) {
  chatllm_asr_options all{};
  all.max_new_tokens = -1;
  if (given == nullptr) return all;
  if (given->size < offsetof(chatllm_asr_options, live))  // the first version ended there
    fail(Status::BadArgument, "the options' size is not set: they come from another version of the header");
  std::memcpy(&all, given, std::min<size_t>(given->size, sizeof all));
  return all;
}

// The aligner takes text of any language.
void check_language(const Config &config, const std::string &language) {
  if (!config.aligner) resolve_language(config.languages, language);
}

}  // namespace

int c_status(Status status) {
  switch (status) {
    case Status::BadArgument:
      return CHATLLM_ASR_BAD_ARGUMENT;
    case Status::BadModel:
      return CHATLLM_ASR_BAD_MODEL;
    case Status::BadAudio:
      return CHATLLM_ASR_BAD_AUDIO;
    case Status::NoMemory:
      return CHATLLM_ASR_NO_MEMORY;
    case Status::NotStarted:
      return CHATLLM_ASR_NOT_STARTED;
    case Status::Busy:
      return CHATLLM_ASR_BUSY;
    case Status::TooLong:
      return CHATLLM_ASR_TOO_LONG;
    case Status::Error:
      break;
  }
  return CHATLLM_ASR_ERROR;
}

chatllm_asr_token c_token(const Token &token) {
  chatllm_asr_token c{};
  c.time_ns = token.time_ns;
  c.id = token.id;
  c.logprob = token.logprob;
  c.text = token.bytes->data();
  c.text_len = static_cast<int32_t>(token.bytes->size());
  c.special = token.special;
  return c;
}

namespace {

int c_finish(Finish finish) {
  switch (finish) {
    case Finish::Stop:
      return CHATLLM_ASR_FINISH_STOP;
    case Finish::Length:
      return CHATLLM_ASR_FINISH_LENGTH;
    case Finish::Abort:
      return CHATLLM_ASR_FINISH_ABORT;
    case Finish::Loop:
      return CHATLLM_ASR_FINISH_LOOP;
    case Finish::None:
      break;
  }
  return CHATLLM_ASR_FINISH_NONE;
}

}  // namespace

chatllm_asr_timings c_timings(const Timings &t) {
  chatllm_asr_timings c{};
  c.size = sizeof c;
  c.finish = c_finish(t.finish);
  c.audio_tokens = t.audio_tokens;
  c.prompt_tokens = t.prompt_tokens;
  c.new_tokens = t.new_tokens;
  c.threads = t.threads;
  c.start_ns = t.start_ns;
  c.first_token_ns = t.first_token_ns;
  c.audio_ms = t.audio_ms;
  c.load_ms = t.load_ms;
  c.mel_ms = t.mel_ms;
  c.encode_ms = t.encode_ms;
  c.prefill_ms = t.prefill_ms;
  c.first_token_ms = t.first_token_ms;
  c.decode_ms = t.decode_ms;
  c.total_ms = t.total_ms;
  c.wait_ms = t.wait_ms;
  c.reused_tokens = t.reused_tokens;
  c.encoded_windows = t.encoded_windows;
  c.recomputed_windows = t.recomputed_windows;
  c.drafted_tokens = t.drafted_tokens;
  c.saved_steps = t.saved_steps;
  return c;
}

ThreadError &thread_error() {
  static thread_local ThreadError error;
  return error;
}

Endings::Teller::Teller(std::shared_ptr<Endings> endings) : endings_(std::move(endings)) {
  std::lock_guard<std::mutex> lock(endings_->mutex_);
  next_ = endings_->tellers_;
  endings_->tellers_ = this;
}

Endings::Teller::~Teller() {
  std::lock_guard<std::mutex> lock(endings_->mutex_);
  Teller **at = &endings_->tellers_;
  while (*at != this) at = &(*at)->next_;
  *at = next_;
  endings_->changed_.notify_all();
}

void Endings::close() {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto me = std::this_thread::get_id();
  for (Teller *teller = tellers_; teller != nullptr; teller = teller->next_) teller->over_ |= teller->thread_ == me;
  changed_.wait(lock, [&] {
    for (const Teller *teller = tellers_; teller != nullptr; teller = teller->next_)
      if (teller->thread_ != me) return false;
    return true;
  });
}

Object::Object() : process_(current_process()) {}

Object::~Object() {
  // While there still is an object: the callbacks of the utterances that end now may submit others, and are refused.
  if (recognizer_) recognizer_->close();
  if (!thread_.joinable()) return;
  if (thread_.get_id() == std::this_thread::get_id())
    thread_.detach();
  else
    thread_.join();
}

bool Object::forked() const noexcept {
  return process_ != current_process();
}

int Object::admit(State call) noexcept {
  if (forked()) {
    try {
      last_error_ = kForked;
    } catch (...) {
    }
    return CHATLLM_ASR_FORKED;
  }
  State idle = State::Idle;
  if (!state_.compare_exchange_strong(idle, call)) return CHATLLM_ASR_BUSY;
  generated_ = false;
  // Here, not in the run: an abort right after this call's start must count.
  if (session_) session_->clear_abort();
  return CHATLLM_ASR_OK;
}

// From the moment it is idle, others may destroy the object, in answer to these callbacks at the latest.
void Object::finish(int status) noexcept {
  const Callbacks callbacks = callbacks_;
  const bool generated = generated_, async = state_ == State::Async;
  Endings::Teller teller(endings_);
  if (async) async_result_ = status;
  state_ = State::Idle;
  if (generated && callbacks.end != nullptr) teller.tell([&] { callbacks.end(callbacks.user_data); });
  if (async && callbacks.print != nullptr)
    teller.tell([&] { callbacks.print(callbacks.user_data, PRINT_EVT_ASYNC_COMPLETED, ""); });
}

int Object::acquire_for_destroy() noexcept {
  if (!forked()) {
    std::lock_guard<std::mutex> lock(mutex_);  // a start may be under way
    if (recognizer_ && recognizer_->on_worker_thread()) return CHATLLM_ASR_BUSY;
  }
  if (const int refused = admit(State::Sync)) return refused;
  endings_->close();
  return CHATLLM_ASR_OK;
}

int Object::finish_error(int status, const std::string &message) noexcept {
  try {
    last_error_ = message;
    print(PRINTLN_ERROR, message);
  } catch (...) {
  }
  return status;
}

void Object::unsupported(const char *what) {
  fail(Status::Error, format("%s has no meaning for speech recognition", what));
}

const std::shared_ptr<Recognizer> &Object::recognizer() {
  if (!recognizer_) fail(Status::NotStarted, "no model is loaded: call chatllm_start first");
  return recognizer_;
}

Session &Object::session() {
  recognizer();
  return *session_;
}

std::shared_ptr<Utterance> Object::submit(std::vector<float> audio, const chatllm_asr_options *options,
                                          Listener listener) {
  Request request;
  request.audio = std::move(audio);
  request.live = complete(options).live != 0;
  std::shared_ptr<Recognizer> recognizer;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    recognizer = this->recognizer();
    request.settings = settings(options);
  }
  return recognizer->submit(std::move(request), std::move(listener));
}

void Object::abort() noexcept {
  if (forked()) return;
  std::lock_guard<std::mutex> lock(mutex_);
  if (session_) session_->abort();
}

void Object::start(const Callbacks &callbacks) {
  if (recognizer_ && (recognizer_->on_worker_thread() || !recognizer_->idle()))
    fail(Status::Busy, "utterances are under way: cancel them before another start");
  callbacks_ = callbacks;
  const int64_t begin = now_ns();
  std::vector<std::string> all = init_words();
  all.insert(all.end(), words.begin(), words.end());
  std::shared_ptr<Recognizer> old;
  std::unique_ptr<Session> old_session;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    options_ = Options::parse(all);
    old = std::move(recognizer_);
    old_session = std::move(session_);
    context_ = options_.context;
    ai_prefix_ = options_.ai_prefix;
    gen_max_tokens_ = options_.max_new_tokens;
  }
  old_session.reset();
  old.reset();
  info_.clear();
  vocab_table_.clear();
  auto fresh = std::make_shared<Recognizer>(options_.recognizer);
  auto session = std::make_unique<Session>(*fresh);
  const Model &model = fresh->model();
  check_language(model.config(), options_.language);  // says now that it is unknown
  fresh->set_load_ms(elapsed_ms(begin));
  info_ = describe_model(model.file(), model.config(),
                         {fresh->kernels().name, fresh->threads(), fresh->settings().max_context});
  {
    std::lock_guard<std::mutex> lock(mutex_);
    recognizer_ = std::move(fresh);
    session_ = std::move(session);
  }
  for (const std::string &note : options_.notes) print(PRINTLN_LOGGING, note);
  print(PRINTLN_MODEL_INFO, describe_for_chatllm(model.file(), model.config()));
}

RunSettings Object::settings(const chatllm_asr_options *options) const {
  RunSettings s;
  s.language = options_.language;
  s.context = context_;
  s.prefix = ai_prefix_;
  s.max_new_tokens = gen_max_tokens_;
  s.full_attention = options_.full_attention;
  if (options == nullptr) return s;
  const chatllm_asr_options given = complete(options);
  if (given.language != nullptr) s.language = given.language;
  if (given.context != nullptr) s.context = given.context;
  if (given.prefix != nullptr) s.prefix = given.prefix;
  if (given.max_new_tokens >= 0) s.max_new_tokens = given.max_new_tokens;
  s.full_attention = given.attention == CHATLLM_ASR_FULL;
  s.ignore_stop = given.ignore_stop != 0;
  return s;
}

// A token's event, then its text as far as whole characters go.
void Object::emit(const Token &token) {
  if (on_token != nullptr) {
    const chatllm_asr_token c = c_token(token);
    on_token(on_token_data, &c);
  }
  if (callbacks_.print == nullptr) return;
  unfinished_ += *token.bytes;
  const size_t whole = unfinished_.size() - unfinished_bytes(unfinished_);
  if (whole == 0) return;
  std::string chunk;
  for (size_t at = 0; at < whole;) append_utf8(chunk, next_code_point(unfinished_, &at));
  unfinished_.erase(0, whole);
  print(PRINT_CHAT_CHUNK, chunk);
}

template <class F>
void Object::generation(F &&body) {
  generated_ = true;  // also after a failure: the caller may be waiting for the end
  struct Rest {
    Object &o;
    ~Rest() {
      if (!o.unfinished_.empty()) o.print(PRINT_CHAT_CHUNK, "\xEF\xBF\xBD");
      o.unfinished_.clear();
    }
  } rest{*this};
  body(session(), [this](const Token &token) { emit(token); });
}

void Object::run(const float *pcm, int64_t samples, const RunSettings &settings) {
  recognizer();
  generation([&](Session &s, const Session::TokenSink &sink) { s.run(pcm, samples, settings, sink); });
}

// Of audio; a little more than the model's context takes. The engine says exactly what does not fit.
double Object::most_seconds() const {
  if (!recognizer_) return 3600;
  const Config &config = recognizer_->model().config();
  const int64_t positions = recognizer_->settings().max_context;
  const EncoderConfig &e = config.encoder;
  double frames = (static_cast<double>(positions) / e.tokens(e.chunk_frames) + 1) * e.chunk_frames;
  if (config.aligner) frames = std::min(frames, (config.classes * config.class_ms + 1000) / 10);
  return std::min(frames / 100, 86400.0);
}

// The audio that a text's file tag names; *said: the text around the tag.
std::vector<float> Object::audio_of(const std::string &text, std::string *said) const {
  const std::string &open = options_.tag_open, &close = options_.tag_close;
  if (open.empty() || close.empty())
    fail(Status::BadArgument,
         "speech recognition needs audio: give --multimedia_file_tags {{ }} and a text such as "
         "{{audio:/path/file.wav}}");
  std::vector<float> audio;
  size_t done = 0;
  for (size_t at = text.find(open); at != std::string::npos; at = text.find(open, at)) {
    const size_t begin = at + open.size(), end = text.find(close, begin);
    if (end == std::string::npos) fail(Status::BadArgument, format("a file tag does not end with '%s'", close.c_str()));
    const std::string tag = text.substr(begin, end - begin);
    if (tag.rfind("audio:", 0) != 0)
      fail(Status::BadArgument,
           format("the file tag '%s' is not audio: speech recognition takes {{audio:PATH}}", tag.c_str()));
    if (!audio.empty()) fail(Status::BadArgument, "the text names several audio files: give one at a time");
    audio = read_wav(tag.substr(6), most_seconds());
    *said += text.substr(done, at - done);
    done = at = end + close.size();
  }
  *said += text.substr(done);
  if (audio.empty())
    fail(Status::BadArgument,
         format("the text has no audio tag: give %saudio:/path/file.wav%s", open.c_str(), close.c_str()));
  return audio;
}

void Object::run_text(const std::string &text) {
  recognizer();
  generation([&](Session &s, const Session::TokenSink &sink) {
    std::string said;
    const std::vector<float> audio = audio_of(text, &said);
    answer(s, audio, said, sink);
  });
}

// A transcription; of an aligner, when the text is said.
void Object::answer(Session &s, const std::vector<float> &audio, const std::string &said,
                    const Session::TokenSink &sink) {
  const int64_t samples = static_cast<int64_t>(audio.size());
  if (!recognizer()->model().config().aligner) return s.run(audio.data(), samples, settings(nullptr), sink);
  const Alignment alignment(said, options_);
  std::vector<double> times;
  if (!alignment.units().empty())
    times = recognizer()->align(audio.data(), samples, alignment.units(), options_.full_attention, s.abort_flag());
  const std::string told = alignment.told(times, static_cast<double>(samples) * 1000 / kSampleRate);
  if (!told.empty()) print(PRINT_CHAT_CHUNK, told);
}

void Object::append_to_message(const std::string &type, const char *data) {
  if (type == "text") {  // what the aligner aligns; the recognizer's prompt holds audio only, its text is the context
    message_text += (message_text.empty() ? "" : " ") + std::string(data);
    return;
  }
  if (type != "audio")
    fail(Status::BadArgument,
         format("a message part of type '%s' has no meaning for speech recognition", type.c_str()));
  if (!message.empty()) fail(Status::BadArgument, "the message has audio already: give one recording at a time");
  const std::vector<uint8_t> file = decode_base64(data);
  message = decode_wav(file.data(), file.size(), "the audio of the message", most_seconds());
}

void Object::run_message() {
  recognizer();
  const std::vector<float> audio = std::move(message);
  const std::string said = std::move(message_text);
  clear_message();
  generation([&](Session &s, const Session::TokenSink &sink) {
    if (audio.empty()) fail(Status::BadArgument, "the message has no audio: append a part of type audio");
    answer(s, audio, said, sink);
  });
}

void Object::set_argument(const std::string &text) {
  const Config &config = recognizer()->model().config();
  const size_t at = text.find('=');
  if (at == std::string::npos)
    fail(Status::BadArgument, format("the argument '%s' has no value: give key=value", text.c_str()));
  Options changed = options_;
  changed.notes.clear();
  changed.set(text.substr(0, at), text.substr(at + 1));
  check_language(config, changed.language);
  for (const std::string &note : changed.notes) print(PRINTLN_LOGGING, note);
  std::lock_guard<std::mutex> lock(mutex_);
  options_ = std::move(changed);
}

// Each answer is of a conversation of its own: the user's message and the answer, or the message alone.
int Object::history_cursor() {
  const Session &s = session();
  return s.cursor() == 0 ? 0 : s.cursor() <= s.timings().prompt_tokens ? 1 : 2;
}

int Object::set_history_cursor(int position) {
  const int now = history_cursor();
  if (position >= now) return now;
  session().set_cursor(position <= 0 ? 0 : session().timings().prompt_tokens);
  return history_cursor();
}

void Object::set_limit(int64_t tokens) {
  std::lock_guard<std::mutex> lock(mutex_);
  gen_max_tokens_ = tokens;
}

void Object::set_prefix(const std::string &text) {
  std::lock_guard<std::mutex> lock(mutex_);
  ai_prefix_ = text;
}

void Object::continue_answer(const std::string &suffix) {
  recognizer();
  generation([&](Session &s, const Session::TokenSink &sink) { s.continue_with(suffix, gen_max_tokens_, sink); });
}

void Object::restart(const char *system) {
  if (system != nullptr) {
    std::lock_guard<std::mutex> lock(mutex_);
    context_ = system;
  }
  if (session_) session_->forget();
}

int Object::tokenize(const std::string &text) {
  const std::vector<int32_t> ids = recognizer()->model().tokenizer().encode(text, true);
  std::string line;
  for (const int32_t id : ids) line += (line.empty() ? "" : ",") + std::to_string(id);
  print(PRINTLN_TOKEN_IDS, line);
  return static_cast<int>(ids.size());
}

const char *Object::token_vocab(int *count, int *width) {
  const Tokenizer &tokenizer = recognizer()->model().tokenizer();
  size_t longest = 0;
  for (int32_t id = 0; id < tokenizer.size(); ++id) longest = std::max(longest, tokenizer.bytes(id).size());
  const size_t stride = longest + 1;
  if (vocab_table_.empty()) {
    vocab_table_.assign(stride * static_cast<size_t>(tokenizer.size()), '\0');
    for (int32_t id = 0; id < tokenizer.size(); ++id)
      vocab_table_.replace(static_cast<size_t>(id) * stride, tokenizer.bytes(id).size(), tokenizer.bytes(id));
  }
  if (count != nullptr) *count = tokenizer.size();
  if (width != nullptr) *width = static_cast<int>(stride);
  return vocab_table_.data();
}

void Object::show_statistics() {
  const Timings &t = session().timings();
  print(PRINTLN_META, format("audio: %.0f ms, %d tokens; prompt: %d tokens; answer: %d tokens", t.audio_ms,
                             t.audio_tokens, t.prompt_tokens, t.new_tokens));
  print(PRINTLN_META, format("load: %.1f ms; mel: %.1f ms; encode: %.1f ms; prefill: %.1f ms; first token: %.1f ms",
                             t.load_ms, t.mel_ms, t.encode_ms, t.prefill_ms, t.first_token_ms));
  print(PRINTLN_META, format("decode: %.1f ms; total: %.1f ms; threads: %d", t.decode_ms, t.total_ms, t.threads));
}

}  // namespace chatllm
