#include "capi/object.h"

#include <algorithm>

#include "audio/wav.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/utf8.h"

#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace chatllm {

namespace {

long current_process() {
#if defined(_WIN32)
  return 0;  // no fork there
#else
  return static_cast<long>(getpid());
#endif
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
    case Status::TooLong:
      return CHATLLM_ASR_TOO_LONG;
    case Status::Error:
      break;
  }
  return CHATLLM_ASR_ERROR;
}

std::string &thread_error() {
  static thread_local std::string error;
  return error;
}

Object::Object() : process_(current_process()) {}

Object::~Object() {
  if (thread_.joinable()) {
    if (process_ != current_process() || thread_.get_id() == std::this_thread::get_id())
      thread_.detach();
    else
      thread_.join();
  }
}

int Object::admit(State call) noexcept {
  if (process_ != current_process()) {
    try {
      last_error_ =
          "the process was forked after the model was loaded and its threads are gone: load the model in the child, or "
          "use spawn";
    } catch (...) {
    }
    return CHATLLM_ASR_FORKED;
  }
  State idle = State::Idle;
  if (!state_.compare_exchange_strong(idle, call)) return CHATLLM_ASR_BUSY;
  if (session_) session_->clear_abort();  // here, not in the run: an abort right after this call's start must count
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

Session &Object::session() {
  if (!session_) fail(Status::NotStarted, "no model is loaded: call chatllm_start first");
  return *session_;
}

void Object::abort() noexcept {
  if (process_ != current_process()) return;
  std::lock_guard<std::mutex> lock(session_mutex_);
  if (session_) session_->abort();
}

void Object::start(const Callbacks &callbacks) {
  callbacks_ = callbacks;
  const int64_t begin = now_ns();
  std::vector<std::string> all = init_words();
  all.insert(all.end(), words.begin(), words.end());
  options_ = Options::parse(all);
  context_ = options_.context;
  ai_prefix = options_.ai_prefix;
  gen_max_tokens = options_.max_new_tokens;
  info_.clear();
  vocab_table_.clear();
  {
    std::lock_guard<std::mutex> lock(session_mutex_);
    session_.reset();
  }
  auto session = std::make_unique<Session>(options_.session);
  resolve_language(session->model().config().languages, options_.language);  // says now that it is unknown
  session->set_load_ms(elapsed_ms(begin));
  info_ = session->info();
  const Config &config = session->model().config();
  int64_t parameters = 0;
  for (const auto &tensor : session->model().file().tensors())
    parameters += tensor.second.rows() * tensor.second.cols();
  {
    std::lock_guard<std::mutex> lock(session_mutex_);
    session_ = std::move(session);
  }
  for (const std::string &note : options_.notes) print(PRINTLN_LOGGING, note);
  print(PRINTLN_MODEL_INFO, "{\"name\": " + json_quote(config.name) +
                                format(", \"purpose\": \"ASR\", \"capabilities\": [\"Text\", \"Audio Input\"], "
                                       "\"context_length\": %d, \"training_context_length\": %d, "
                                       "\"param_num\": %lld, \"active_param_num\": %lld}",
                                       config.decoder.max_positions, config.decoder.max_positions,
                                       static_cast<long long>(parameters), static_cast<long long>(parameters)));
}

RunSettings Object::settings(const chatllm_asr_options *given) const {
  RunSettings s;
  s.language = options_.language;
  s.context = context_;
  s.prefix = ai_prefix;
  s.max_new_tokens = gen_max_tokens;
  s.full_attention = options_.full_attention;
  if (given == nullptr) return s;
  if (given->size < sizeof(chatllm_asr_options))
    fail(Status::BadArgument, "the options' size is not set: they come from another version of the header");
  if (given->language != nullptr) s.language = given->language;
  if (given->context != nullptr) s.context = given->context;
  if (given->prefix != nullptr) s.prefix = given->prefix;
  if (given->max_new_tokens >= 0) s.max_new_tokens = given->max_new_tokens;
  s.full_attention = given->attention == CHATLLM_ASR_FULL;
  s.ignore_stop = given->ignore_stop != 0;
  return s;
}

// A token's event, then its text as far as whole characters go.
void Object::emit(const chatllm_asr_token &token) {
  if (on_token != nullptr) on_token(on_token_data, &token);
  if (callbacks_.print == nullptr) return;
  unfinished_.append(token.text, static_cast<size_t>(token.text_len));
  const size_t whole = unfinished_.size() - unfinished_bytes(unfinished_);
  if (whole == 0) return;
  std::string chunk;
  for (size_t at = 0; at < whole;) append_utf8(chunk, next_code_point(unfinished_, &at));
  unfinished_.erase(0, whole);
  print(PRINT_CHAT_CHUNK, chunk);
}

template <class F>
void Object::generation(F &&body) {
  struct End {  // also after a failure: the caller may be waiting for it
    Object &o;
    ~End() {
      if (!o.unfinished_.empty()) o.print(PRINT_CHAT_CHUNK, "\xEF\xBF\xBD");
      o.unfinished_.clear();
      if (o.callbacks_.end != nullptr) o.callbacks_.end(o.callbacks_.user_data);
    }
  } end{*this};
  // A failure is printed before f_end, so that who waits for that has it.
  const int status = guarded([&] { body([this](const chatllm_asr_token &token) { emit(token); }); });
  if (status != CHATLLM_ASR_OK) throw Reported{status};
}

void Object::run(const float *pcm, int64_t samples, const RunSettings &settings) {
  Session &s = session();
  generation([&](const Session::TokenSink &sink) { s.run(pcm, samples, settings, sink); });
}

// The audio that a text's file tag names.
std::vector<float> Object::audio_of(const std::string &text) const {
  const std::string &open = options_.tag_open, &close = options_.tag_close;
  if (open.empty() || close.empty())
    fail(Status::BadArgument,
         "speech recognition needs audio: give --multimedia_file_tags {{ }} and a text such as "
         "{{audio:/path/file.wav}}");
  std::vector<float> audio;
  for (size_t at = text.find(open); at != std::string::npos; at = text.find(open, at)) {
    const size_t begin = at + open.size(), end = text.find(close, begin);
    if (end == std::string::npos) fail(Status::BadArgument, format("a file tag does not end with '%s'", close.c_str()));
    const std::string tag = text.substr(begin, end - begin);
    if (tag.rfind("audio:", 0) != 0)
      fail(Status::BadArgument,
           format("the file tag '%s' is not audio: speech recognition takes {{audio:PATH}}", tag.c_str()));
    if (!audio.empty()) fail(Status::BadArgument, "the text names several audio files: give one at a time");
    audio = read_wav(tag.substr(6));
    at = end + close.size();
  }
  if (audio.empty())
    fail(Status::BadArgument,
         format("the text has no audio tag: give %saudio:/path/file.wav%s", open.c_str(), close.c_str()));
  return audio;
}

void Object::run_text(const std::string &text) {
  Session &s = session();
  generation([&](const Session::TokenSink &sink) {
    const std::vector<float> audio = audio_of(text);
    s.run(audio.data(), static_cast<int64_t>(audio.size()), settings(nullptr), sink);
  });
}

void Object::append_to_message(const std::string &type, const char *data) {
  if (type == "text") return;  // the prompt of this model holds audio only; its text is the context
  if (type != "audio")
    fail(Status::BadArgument,
         format("a message part of type '%s' has no meaning for speech recognition", type.c_str()));
  if (!message.empty()) fail(Status::BadArgument, "the message has audio already: give one recording at a time");
  const std::vector<uint8_t> file = decode_base64(data);
  message = decode_wav(file.data(), file.size(), "the audio of the message");
}

void Object::run_message() {
  Session &s = session();
  const std::vector<float> audio = std::move(message);
  message.clear();
  generation([&](const Session::TokenSink &sink) {
    if (audio.empty()) fail(Status::BadArgument, "the message has no audio: append a part of type audio");
    s.run(audio.data(), static_cast<int64_t>(audio.size()), settings(nullptr), sink);
  });
}

void Object::continue_answer(const std::string &suffix) {
  Session &s = session();
  generation([&](const Session::TokenSink &sink) { s.continue_with(suffix, gen_max_tokens, sink); });
}

void Object::restart(const char *system) {
  if (system != nullptr) context_ = system;
  if (session_) session_->forget();
}

int Object::tokenize(const std::string &text) {
  const std::vector<int32_t> ids = session().model().tokenizer().encode(text, true);
  std::string line;
  for (const int32_t id : ids) line += (line.empty() ? "" : ",") + std::to_string(id);
  print(PRINTLN_TOKEN_IDS, line);
  return static_cast<int>(ids.size());
}

const char *Object::token_vocab(int *count, int *width) {
  const Tokenizer &tokenizer = session().model().tokenizer();
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
  const chatllm_asr_timings &t = session().timings();
  print(PRINTLN_META, format("audio: %.0f ms, %d tokens; prompt: %d tokens; answer: %d tokens", t.audio_ms,
                             t.audio_tokens, t.prompt_tokens, t.new_tokens));
  print(PRINTLN_META, format("load: %.1f ms; mel: %.1f ms; encode: %.1f ms; prefill: %.1f ms; first token: %.1f ms",
                             t.load_ms, t.mel_ms, t.encode_ms, t.prefill_ms, t.first_token_ms));
  print(PRINTLN_META, format("decode: %.1f ms; total: %.1f ms; threads: %d", t.decode_ms, t.total_ms, t.threads));
}

}  // namespace chatllm
