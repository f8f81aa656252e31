#include "base/json.h"

#include <cmath>
#include <locale>
#include <sstream>

#include "base/error.h"
#include "base/utf8.h"

namespace chatllm {

class JsonParser {
 public:
  JsonParser(const char *text, size_t size) : at_(text), end_(text + size) {}

  Json document() {
    Json value = parse_value(0);
    skip_space();
    if (at_ != end_) bad("text after the value");
    return value;
  }

 private:
  static constexpr int kMaxDepth = 64;
  static constexpr int64_t kMaxValues = 1 << 22;  // a value takes many times the memory of its two bytes of text

  [[noreturn]] static void bad(const char *why) {
    fail(Status::BadModel, format("the model file has metadata that is not valid JSON: %s", why));
  }

  void skip_space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) ++at_;
  }

  bool accept(char c) {
    skip_space();
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }

  void expect_word(const char *word) {
    for (; *word != '\0'; ++word, ++at_)
      if (at_ == end_ || *at_ != *word) bad("an unknown word");
  }

  Json parse_value(int depth) {
    if (depth > kMaxDepth) bad("it is nested too deeply");
    if (++values_ > kMaxValues) bad("it has too many values");
    skip_space();
    if (at_ == end_) bad("it ends early");
    Json value;
    switch (*at_) {
      case '{':
        ++at_;
        value.kind_ = Json::Kind::Object;
        if (accept('}')) return value;
        do {
          skip_space();
          if (at_ == end_ || *at_ != '"') bad("an object's key is missing");
          std::string key = parse_string();
          if (!accept(':')) bad("a ':' is missing");
          value.members_.emplace_back(std::move(key), parse_value(depth + 1));
        } while (accept(','));
        if (!accept('}')) bad("a '}' is missing");
        return value;
      case '[':
        ++at_;
        value.kind_ = Json::Kind::Array;
        if (accept(']')) return value;
        do value.items_.push_back(parse_value(depth + 1));
        while (accept(','));
        if (!accept(']')) bad("a ']' is missing");
        return value;
      case '"':
        value.kind_ = Json::Kind::String;
        value.string_ = parse_string();
        return value;
      case 't':
        expect_word("true");
        value.kind_ = Json::Kind::Bool;
        value.bool_ = true;
        return value;
      case 'f':
        expect_word("false");
        value.kind_ = Json::Kind::Bool;
        return value;
      case 'n':
        expect_word("null");
        return value;
      case 'N':  // Python's json writes NaN and Infinity; no field of use here has them
        expect_word("NaN");
        return value;
      case 'I':
        expect_word("Infinity");
        return value;
      default:
        value.kind_ = Json::Kind::Number;
        value.number_ = parse_number();
        return value;
    }
  }

  double parse_number() {
    const char *begin = at_;
    while (at_ != end_ && std::string("+-.eE0123456789").find(*at_) != std::string::npos) ++at_;
    std::istringstream stream(std::string(begin, at_));
    stream.imbue(std::locale::classic());  // the program's locale may write 0,5
    stream.exceptions(std::ios::badbit);   // a stream swallows std::bad_alloc otherwise
    double number = 0;
    if (begin == at_ || !(stream >> number) || stream.peek() != std::istringstream::traits_type::eof())
      bad("a value is neither a number nor a word");
    return number;
  }

  uint32_t parse_hex4() {
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      if (at_ == end_) bad("a \\u escape ends early");
      const char c = *at_;
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) bad("a \\u escape is malformed");
      code = code * 16 + static_cast<uint32_t>(digit);
    }
    return code;
  }

  std::string parse_string() {
    std::string text;
    for (++at_; at_ != end_ && *at_ != '"';) {
      if (static_cast<unsigned char>(*at_) < 0x20) bad("a control character stands in a string");
      if (*at_ != '\\') {
        text += *at_++;
        continue;
      }
      if (++at_ == end_) break;
      const char escape = *at_++;
      switch (escape) {
        case 'b':
          text += '\b';
          break;
        case 'f':
          text += '\f';
          break;
        case 'n':
          text += '\n';
          break;
        case 'r':
          text += '\r';
          break;
        case 't':
          text += '\t';
          break;
        case '"':
        case '\\':
        case '/':
          text += escape;
          break;
        case 'u': {
          uint32_t code = parse_hex4();
          if (code >= 0xD800 && code < 0xDC00 && end_ - at_ >= 6 && at_[0] == '\\' && at_[1] == 'u') {
            at_ += 2;
            const uint32_t low = parse_hex4();
            if (low < 0xDC00 || low > 0xDFFF) bad("a surrogate pair is broken");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
          }
          if (code >= 0xD800 && code < 0xE000) code = 0xFFFD;
          append_utf8(text, code);
          break;
        }
        default:
          bad("an unknown escape");
      }
    }
    if (at_ == end_) bad("a string does not end");
    ++at_;
    return text;
  }

  const char *at_, *end_;
  int64_t values_ = 0;
};

Json Json::parse(const char *text, size_t size) {
  return JsonParser(text, size).document();
}

const Json &Json::operator[](const char *key) const {
  static const Json *const kNull = new Json;  // never destroyed: may be used while the process ends
  for (const auto &member : members_)
    if (member.first == key) return member.second;
  return *kNull;
}

double Json::number(const char *what, double otherwise) const {
  if (kind_ != Kind::Null && kind_ != Kind::Number)
    fail(Status::BadModel, format("the model file has no usable %s in its metadata (a number)", what));
  return number(otherwise);
}

int Json::integer(const char *what, int low, int high) const {
  if (kind_ != Kind::Number || !(number_ >= low && number_ <= high) || number_ != std::floor(number_))
    fail(Status::BadModel,
         format("the model file has no usable %s in its metadata (an integer from %d to %d)", what, low, high));
  return static_cast<int>(number_);
}

std::string json_quote(const std::string &text) {
  std::string out = "\"";
  for (size_t at = 0; at < text.size();) {
    const uint32_t code = next_code_point(text, &at);
    if (code == '"' || code == '\\') {
      out += '\\';
      out += static_cast<char>(code);
    } else if (code < 0x20) {
      out += format("\\u%04x", code);
    } else {
      append_utf8(out, code);
    }
  }
  return out + "\"";
}

}  // namespace chatllm
