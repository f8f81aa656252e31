// The answer of a forced aligner in chatllm.cpp's own form: when the pieces of a text are said, as SRT or JSON.
#pragma once

#include <string>
#include <vector>

#include "capi/options.h"

namespace chatllm {

// A text in pieces that get a time each, and the units of all of them.
class Alignment {
 public:
  // The pieces are those between the delimiters; without one, the units of Chinese, Cantonese and Japanese text (which
  // has no spaces), the words between white space of all other.
  Alignment(const std::string &text, const Options &options);

  const std::vector<std::string> &units() const { return units_; }
  // times: start and end of each unit, [2 * units] milliseconds that do not decrease; limit: the audio's length.
  // A piece that is not said, punctuation for example, lies where the one before ended.
  std::string told(const std::vector<double> &times, double limit) const;

 private:
  struct Piece {
    std::string text;
    size_t first, end;  // its units
  };
  void add(const std::string &text);

  std::vector<Piece> pieces_;
  std::vector<std::string> units_;
  bool json_;
};

}  // namespace chatllm
