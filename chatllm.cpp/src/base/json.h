// A small JSON reader for model metadata: validating, with bounds on depth; and string escaping for JSON output.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace chatllm {

class Json {
 public:
  enum class Kind { Null, Bool, Number, String, Array, Object };

  // Throws Error (BAD_MODEL) when the text is not exactly one JSON value.
  static Json parse(const char *text, size_t size);

  Kind kind() const { return kind_; }
  bool is_object() const { return kind_ == Kind::Object; }
  // A member of an object; a null value when there is none.
  const Json &operator[](const char *key) const;
  const std::vector<std::pair<std::string, Json>> &members() const { return members_; }
  const std::vector<Json> &items() const { return items_; }
  const std::string &string() const { return string_; }
  double number(double otherwise) const { return kind_ == Kind::Number ? number_ : otherwise; }
  // A number; `otherwise` when it is missing; throws Error naming `what` when it is anything else.
  double number(const char *what, double otherwise) const;
  // An integer within [low, high]; throws Error naming `what` when it is missing or outside.
  int integer(const char *what, int low, int high) const;

 private:
  friend class JsonParser;
  Kind kind_ = Kind::Null;
  bool bool_ = false;
  double number_ = 0;
  std::string string_;
  std::vector<Json> items_;
  std::vector<std::pair<std::string, Json>> members_;
};

// The text as a JSON string, quotes included; invalid UTF-8 becomes U+FFFD.
std::string json_quote(const std::string &text);

}  // namespace chatllm
