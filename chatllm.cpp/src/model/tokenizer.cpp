#include "model/tokenizer.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "base/utf8.h"
#include "model/unicode.h"

namespace chatllm {

namespace {

// GPT-2's byte alphabet: printable Latin-1 bytes stand for themselves, the others for code points from 256 on.
struct ByteAlphabet {
  std::string letter[256];  // UTF-8 of the byte's code point
  int16_t byte[0x180];      // code point -> byte, -1: none
  ByteAlphabet() {
    for (int16_t &b : byte) b = -1;
    uint32_t next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const uint32_t code = printable ? static_cast<uint32_t>(b) : next++;
      append_utf8(letter[b], code);
      byte[code] = static_cast<int16_t>(b);
    }
  }
};

const ByteAlphabet &alphabet() {
  static const ByteAlphabet *const table = new ByteAlphabet;  // never destroyed
  return *table;
}

std::string from_alphabet(std::string_view token) {
  const std::string text(token);
  std::string bytes;
  for (size_t at = 0; at < text.size();) {
    const uint32_t code = next_code_point(text, &at);
    const int16_t byte = code < 0x180 ? alphabet().byte[code] : int16_t{-1};
    if (byte >= 0)
      bytes += static_cast<char>(byte);
    else
      append_utf8(bytes, code);
  }
  return bytes;
}

// Qwen2's pattern, alternatives in order:
//   (?i:'s|'t|'re|'ve|'m|'ll|'d) | [^\r\n\p{L}\p{N}]?\p{L}+ | \p{N} | ?[^\s\p{L}\p{N}]+[\r\n]* | \s*[\r\n]+ | \s+(?!\S)
//   | \s+
// Returns the end of the piece that starts at `at`.
size_t piece_end(const std::vector<uint32_t> &text, size_t at) {
  const size_t n = text.size();
  auto lower = [&](size_t i) -> uint32_t {
    const uint32_t c = i < n ? text[i] : 0;
    return c >= 'A' && c <= 'Z' ? c + 32 : c == 0x17F ? 's' : c;  // U+017F folds to s
  };
  auto newline = [&](size_t i) { return i < n && (text[i] == '\r' || text[i] == '\n'); };
  auto letter = [&](size_t i) { return i < n && is_letter(text[i]); };
  auto number = [&](size_t i) { return i < n && is_number(text[i]); };
  auto space = [&](size_t i) { return i < n && is_space(text[i]); };
  auto other = [&](size_t i) { return i < n && !space(i) && !letter(i) && !number(i); };

  if (text[at] == '\'') {
    const uint32_t a = lower(at + 1), b = lower(at + 2);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return at + 3;
  }
  size_t end = at;
  if (letter(at) || (!newline(at) && !number(at) && letter(at + 1))) {
    for (++end; letter(end);) ++end;
    return end;
  }
  if (number(at)) return at + 1;
  end = at + (text[at] == ' ' && other(at + 1) ? 1 : 0);
  if (other(end)) {
    while (other(end)) ++end;
    while (newline(end)) ++end;
    return end;
  }
  // White space: up to its last newline; else all of it at the end of the text; else all but the last, which leads a
  // word.
  size_t stop = at, last_newline = 0;
  for (; space(stop); ++stop)
    if (newline(stop)) last_newline = stop + 1;
  if (last_newline > 0) return last_newline;
  return stop == n || stop == at + 1 ? stop : stop - 1;
}

}  // namespace

Tokenizer::Tokenizer(const GgmmFile &file) : vocab_size_(file.header().vocab_size) {
  const auto &vocabulary = file.vocabulary();
  bytes_.resize(static_cast<size_t>(vocab_size_));
  ids_.reserve(vocabulary.size());
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    bytes_[i] = from_alphabet(vocabulary[i]);
    ids_.emplace(vocabulary[i], static_cast<int32_t>(i));
  }
  ranks_.reserve(file.merges().size());
  for (size_t i = 0; i < file.merges().size(); ++i) ranks_.emplace(file.merges()[i], static_cast<int32_t>(i));
  for (const auto &member : file.metadata()["tokenizer_config.json"]["added_tokens_decoder"].members()) {
    const std::string &name = member.second["content"].string();
    char *end = nullptr;
    const long id = std::strtol(member.first.c_str(), &end, 10);
    if (*end != '\0' || member.first.empty() || id < 0 || id >= vocab_size_)
      fail(Status::BadModel, format("the model file is damaged: special token '%s' has id '%s' outside its vocabulary",
                                    name.c_str(), member.first.c_str()));
    specials_[name] = static_cast<int32_t>(id);
    special_names_[static_cast<int32_t>(id)] = name;
    bytes_[static_cast<size_t>(id)] = name;
  }
}

const std::string &Tokenizer::bytes(int32_t id) const {
  return bytes_[static_cast<size_t>(id)];
}

int32_t Tokenizer::special(const std::string &name) const {
  const auto it = specials_.find(name);
  return it == specials_.end() ? -1 : it->second;
}

void Tokenizer::encode_piece(const std::string &piece, std::vector<int32_t> *ids) const {
  std::vector<std::string> parts;
  for (const char c : piece) parts.push_back(alphabet().letter[static_cast<unsigned char>(c)]);
  auto rank = [&](size_t i) {  // of a part joined with the next one
    const auto it = i + 1 < parts.size() ? ranks_.find(parts[i] + ' ' + parts[i + 1]) : ranks_.end();
    return it == ranks_.end() ? INT32_MAX : it->second;
  };
  std::vector<int32_t> ranks;
  for (size_t i = 0; i < parts.size(); ++i) ranks.push_back(rank(i));
  while (!parts.empty()) {
    const auto best = std::min_element(ranks.begin(), ranks.end());
    if (*best == INT32_MAX) break;
    const std::ptrdiff_t at = best - ranks.begin();
    const size_t i = static_cast<size_t>(at);
    parts[i] += parts[i + 1];
    parts.erase(parts.begin() + at + 1);
    ranks.erase(ranks.begin() + at + 1);
    ranks[i] = rank(i);
    if (i > 0) ranks[i - 1] = rank(i - 1);
  }
  for (const std::string &part : parts) {
    const auto it = ids_.find(part);
    if (it == ids_.end())
      fail(Status::BadModel, "the model file has a vocabulary that cannot spell this text: a byte is missing from it");
    ids->push_back(it->second);
  }
}

std::vector<int32_t> Tokenizer::encode(const std::string &text, bool with_specials) const {
  std::vector<int32_t> ids;
  size_t begin = 0;
  auto plain = [&](size_t end) {
    const std::vector<uint32_t> points = to_nfc(text.substr(begin, end - begin));
    constexpr size_t kLongest = 512;  // bounds the work on hostile input; no merge is longer
    for (size_t at = 0; at < points.size();) {
      const size_t stop = std::min(piece_end(points, at), at + kLongest);
      std::string piece;
      for (; at < stop; ++at) append_utf8(piece, points[at]);
      encode_piece(piece, &ids);
    }
  };
  for (size_t at = 0; with_specials && at < text.size(); ++at) {
    if (text[at] != '<') continue;
    const std::string *longest = nullptr;
    for (const auto &entry : specials_)
      if (text.compare(at, entry.first.size(), entry.first) == 0 && !entry.first.empty() &&
          (!longest || entry.first.size() > longest->size()))
        longest = &entry.first;
    if (longest == nullptr) continue;
    plain(at);
    ids.push_back(special(*longest));
    at += longest->size();
    begin = at--;
  }
  plain(text.size());
  return ids;
}

}  // namespace chatllm
