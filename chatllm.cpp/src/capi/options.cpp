#include "capi/options.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "base/error.h"

namespace chatllm {

namespace {

// Options of upstream that change nothing here: recognition is greedy, and runs on the CPU.
struct Ignored {
  const char *name;
  int values;
};
constexpr Ignored kIgnored[] = {
    {"--seed", 1},        {"--repeat-penalty", 1}, {"--log-level", 1}, {"-ngl", 1},     {"--n-gpu-layers", 1},
    {"--format", 1},      {"--ggml-dir", 1},       {"--top-k", 1},     {"--top-p", 1},  {"--min-p", 1},
    {"--sampling", 1},    {"--penalty-window", 1}, {"-p", 1},          {"--prompt", 1}, {"--batch-size", 1},
    {"--hide-banner", 0}, {"--interactive", 0},    {"-i", 0},          {"--multi", 0},  {"--reversed-role", 0},
};

int64_t number(const std::string &option, const std::string &text, int64_t low, int64_t high) {
  char *end = nullptr;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || value < low || value > high)
    fail(Status::BadArgument, format("option %s takes a whole number from %lld to %lld, not '%s'", option.c_str(),
                                     static_cast<long long>(low), static_cast<long long>(high), text.c_str()));
  return value;
}

}  // namespace

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
    if (name.rfind("--", 0) == 0) std::replace(name.begin(), name.end(), '_', '-');
    if (name == "-m" || name == "--model") {
      o.session.model_path = value();
    } else if (name == "-n" || name == "--threads") {
      o.session.threads = static_cast<int>(integer(0));
    } else if (name == "-c" || name == "--max-context-length" || name == "-l" || name == "--max-length") {
      const int64_t limit = integer(-1);
      if (limit > 0) o.session.max_context = o.session.max_context > 0 ? std::min(o.session.max_context, limit) : limit;
    } else if (name == "--max-new-tokens") {
      o.max_new_tokens = integer(-1);
    } else if (name == "-t" || name == "--temp") {
      if (std::atof(value().c_str()) != 0) o.notes.push_back("Wtemperature is ignored: recognition is greedy");
    } else if (name == "-s" || name == "--system") {
      o.context = value();
    } else if (name == "--ai-prefix") {
      o.ai_prefix = value();
    } else if (name == "--kernels") {
      o.session.kernels = value();
    } else if (name == "--batch") {
      o.session.batch = static_cast<int>(number(option, value(), 1, 256));
    } else if (name == "--attention") {
      const std::string &kind = value();
      if (kind != "window" && kind != "full")
        fail(Status::BadArgument, format("option --attention takes window or full, not '%s'", kind.c_str()));
      o.full_attention = kind == "full";
    } else if (name == "--multimedia-file-tags") {
      o.tag_open = value();
      o.tag_close = value();
    } else if (name == "--set") {
      const std::string key = value(), setting = value();
      if (key == "language")
        o.language = setting;
      else if (key != "format" && key != "delimiter")  // of the forced aligner
        o.notes.push_back("Wsetting '" + key + "' is unknown and ignored");
    } else if (name[0] == '+') {
      o.notes.push_back("Wswitch '" + option + "' is ignored");  // switches of upstream's chat front ends
    } else {
      const auto *ignored =
          std::find_if(std::begin(kIgnored), std::end(kIgnored), [&](const Ignored &i) { return name == i.name; });
      if (ignored == std::end(kIgnored)) fail(Status::BadArgument, format("unknown option '%s'", option.c_str()));
      for (int i = 0; i < ignored->values; ++i) value();
    }
  }
  if (o.session.model_path.empty()) fail(Status::BadArgument, "no model is named: give -m PATH");
  return o;
}

}  // namespace chatllm
