#include "capi/alignment.h"

#include <algorithm>
#include <cctype>

#include "asr/units.h"
#include "base/format.h"
#include "base/json.h"
#include "base/utf8.h"
#include "model/unicode.h"

namespace chatllm {

namespace {

// "" is chatllm.cpp's default, Chinese.
bool is_spaceless(std::string language) {
  std::transform(language.begin(), language.end(), language.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return language.empty() || language == "chinese" || language == "cantonese" || language == "japanese";
}

std::vector<std::string> words_of(const std::string &text) {
  std::vector<std::string> words(1);
  for (size_t at = 0; at < text.size();) {
    const uint32_t code = next_code_point(text, &at);
    if (!is_space(code))
      append_utf8(words.back(), code);
    else if (!words.back().empty())
      words.emplace_back();
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

std::string trimmed(const std::string &text) {
  std::string joined;
  for (const std::string &word : words_of(text)) joined += (joined.empty() ? "" : " ") + word;
  return joined;
}

std::string clock_time(int64_t ms) {
  return format("%02d:%02d:%02d,%03d", static_cast<int>(ms / 3600000), static_cast<int>(ms / 60000 % 60),
                static_cast<int>(ms / 1000 % 60), static_cast<int>(ms % 1000));
}

}  // namespace

Alignment::Alignment(const std::string &text, const Options &options) : json_(options.json) {
  if (!options.delimiter.empty()) {
    for (size_t at = 0; at <= text.size();) {
      const size_t end = std::min(text.find(options.delimiter, at), text.size());
      add(trimmed(text.substr(at, end - at)));
      at = end + options.delimiter.size();
    }
  } else if (is_spaceless(options.language)) {
    for (const std::string &unit : split_units(text)) add(unit);
  } else {
    for (const std::string &word : words_of(text)) add(word);
  }
}

void Alignment::add(const std::string &text) {
  if (text.empty()) return;
  const size_t first = units_.size();
  for (std::string &unit : split_units(text)) units_.push_back(std::move(unit));
  pieces_.push_back({text, first, units_.size()});
}

std::string Alignment::told(const std::vector<double> &times, double limit) const {
  auto ms = [&](size_t slot) { return static_cast<int64_t>(std::min(times[slot], limit)); };
  std::string out;
  int64_t end = 0;
  int number = 0;
  for (const Piece &piece : pieces_) {
    const bool said = piece.end > piece.first;
    const int64_t start = said ? ms(2 * piece.first) : end;
    if (said) end = ms(2 * piece.end - 1);
    ++number;
    if (json_)
      out += (number == 1 ? "" : ",\n") +
             format("    {\n        \"start\":%lld,\n        \"end\":%lld,\n        \"text\": ",
                    static_cast<long long>(start), static_cast<long long>(end)) +
             json_quote(piece.text) + "\n    }";
    else
      out += format("%d\n", number) + clock_time(start) + " --> " + clock_time(end) + "\n" + piece.text + "\n\n";
  }
  return json_ ? "[\n" + out + (number == 0 ? "" : "\n") + "]\n" : out;
}

}  // namespace chatllm
