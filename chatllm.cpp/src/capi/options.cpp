#include "capi/options.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "base/error.h"
#include "base/input_file.h"
#include "base/utf8.h"

namespace chatllm {

namespace {

// Options of upstream that change nothing here: recognition is greedy, and runs on the CPU. By the number of their
// values.
constexpr const char *kFlags[] = {"-?",
                                  "-Os",
                                  "-h",
                                  "-i",
                                  "-no-thinking",
                                  "-thinking",
                                  "--detect-thoughts",
                                  "--help",
                                  "--hide-banner",
                                  "--hide-reference",
                                  "--interactive",
                                  "--moe-on-cpu",
                                  "--multi",
                                  "--rag-dump",
                                  "--rerank-rewrite",
                                  "--reversed-role",
                                  "--show",
                                  "--show-devices",
                                  "--single-turn",
                                  "--tokenize"};
constexpr const char *kOneValue[] = {"-fa",
                                     "-k",
                                     "-ngl",
                                     "-p",
                                     "-q",
                                     "--batch-size",
                                     "--beam-size",
                                     "--cache-dtype",
                                     "--distance-strategy",
                                     "--dump-dot",
                                     "--dump-tensor",
                                     "--emb-rank-query-sep",
                                     "--embedding-model",
                                     "--extending",
                                     "--flash-attn",
                                     "--format",
                                     "--frequency-penalty",
                                     "--ggml-dir",
                                     "--init-vs",
                                     "--layer-spec",
                                     "--load-session",
                                     "--log-level",
                                     "--max-proj-length",
                                     "--merge-vs",
                                     "--min-p",
                                     "--n-gpu-layers",
                                     "--num-beams",
                                     "--penalty-window",
                                     "--presence-penalty",
                                     "--prompt",
                                     "--prompt-file",
                                     "--rag-context-sep",
                                     "--rag-post-extending",
                                     "--rag-template",
                                     "--re-quantize",
                                     "--reasoning-effort",
                                     "--repeat-penalty",
                                     "--rerank-score-thres",
                                     "--rerank-top-n",
                                     "--reranker-model",
                                     "--retrieve-rewrite-template",
                                     "--retrieve-top-n",
                                     "--rpc-endpoints",
                                     "--sampling",
                                     "--seed",
                                     "--serve-rpc",
                                     "--set-vs-name",
                                     "--test",
                                     "--tfs-z",
                                     "--top-k",
                                     "--top-p",
                                     "--tts-export",
                                     "--vector-store"};
constexpr const char *kTwoValues[] = {"-mgl", "--model-gpu-layers", "--save-session", "--thought-tags"};

template <size_t N>
bool has(const char *const (&names)[N], const std::string &name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

// How many values follow an option that is ignored; -1 for an unknown one.
int values_of_ignored(const std::string &name) {
  return has(kFlags, name) ? 0 : has(kOneValue, name) ? 1 : has(kTwoValues, name) ? 2 : -1;
}

int64_t number(const std::string &option, const std::string &text, int64_t low, int64_t high) {
  char *end = nullptr;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || value < low || value > high)
    fail(Status::BadArgument, format("option %s takes a whole number from %lld to %lld, not '%s'", option.c_str(),
                                     static_cast<long long>(low), static_cast<long long>(high), text.c_str()));
  return value;
}

std::string text_of_file(const std::string &path) {
  const InputFile file(path, "file of the option --sys_file,");
  constexpr size_t kMost = 1 << 20;
  if (file.size() > kMost)
    fail(Status::BadArgument, format("file '%s' of the option --sys_file is larger than 1 MiB", path.c_str()));
  std::string text(file.size(), '\0');
  file.read(0, &text[0], text.size());
  return text;
}

}  // namespace

void Options::set(const std::string &key, const std::string &value) {
  if (key.empty()) fail(Status::BadArgument, "a setting has no name: give key and value");
  if (key == "language")
    language = value;
  else if (key == "delimiter")
    delimiter = value;
  else if (key == "format" && (value == "srt" || value == "json"))
    json = value == "json";
  else if (key == "format")
    fail(Status::BadArgument, format("setting 'format' takes srt or json, not '%s'", value.c_str()));
  else
    notes.push_back(one_line("Wsetting '" + key + "' is unknown and ignored"));
}

Options Options::parse(const std::vector<std::string> &words) {
  Options o;
  size_t at = 0;
  std::string option;
  auto value = [&]() -> const std::string & {
    if (at >= words.size()) fail(Status::BadArgument, format("option %s needs a value", option.c_str()));
    return words[at++];
  };
  auto integer = [&](int64_t low) { return number(option, value(), low, 1 << 30); };
  while (at < words.size()) {
    option = words[at++];
    std::string name = option;
    if (name[0] == '-') std::replace(name.begin(), name.end(), '_', '-');
    if (name == "-m" || name == "--model") {
      o.recognizer.model_path = value();
    } else if (name == "-n" || name == "--threads") {
      o.recognizer.threads = static_cast<int>(integer(0));
    } else if (name == "-c" || name == "--max-context-length" || name == "-l" || name == "--max-length") {
      const int64_t limit = integer(-1);
      if (limit > 0)
        o.recognizer.max_context = o.recognizer.max_context > 0 ? std::min(o.recognizer.max_context, limit) : limit;
    } else if (name == "--max-new-tokens") {
      o.max_new_tokens = integer(-1);
    } else if (name == "-t" || name == "--temp") {
      if (std::atof(value().c_str()) != 0) o.notes.push_back("Wtemperature is ignored: recognition is greedy");
    } else if (name == "-s" || name == "--system") {
      o.context = value();
    } else if (name == "--sys-file") {
      o.context = text_of_file(value());
    } else if (name == "--ai-prefix") {
      o.ai_prefix = value();
    } else if (name == "--kernels") {
      o.recognizer.kernels = value();
    } else if (name == "--batch") {
      o.recognizer.batch = static_cast<int>(number(option, value(), 1, 256));
    } else if (name == "--attention") {
      const std::string &kind = value();
      if (kind != "window" && kind != "full")
        fail(Status::BadArgument, format("option --attention takes window or full, not '%s'", kind.c_str()));
      o.full_attention = kind == "full";
    } else if (name == "--multimedia-file-tags") {
      o.tag_open = value();
      o.tag_close = value();
    } else if (name == "--set") {
      const std::string key = value();
      o.set(key, value());
    } else if (name == "--kv") {  // the last option: keys and values to the end
      while (words.size() - at >= 2) {
        const std::string key = value();
        o.set(key, value());
      }
    } else if (name == "--lens") {
      const std::string &type = value();
      for (int more = type == "identity" ? 1 : 2; more > 0; --more) value();
    } else if (name[0] == '+') {
      o.notes.push_back(one_line("Wswitch '" + option + "' is ignored"));  // switches of upstream's chat front ends
    } else {
      int values = values_of_ignored(name);
      if (values < 0) fail(Status::BadArgument, format("unknown option '%s'", option.c_str()));
      for (; values > 0; --values) value();
    }
  }
  if (o.recognizer.model_path.empty()) fail(Status::BadArgument, "no model is named: give -m PATH");
  return o;
}

}  // namespace chatllm
