#include "model/unicode.h"

#include <algorithm>
#include <iterator>
#include <tuple>

#include "base/utf8.h"

namespace chatllm {

namespace {

struct Range {
  uint32_t first, last;
};
struct CombiningClass {
  uint32_t code, value;
};
struct Decomposition {
  uint32_t code, first, second;  // second 0: a single code point
};
struct Composition {
  uint32_t first, second, code;
};

#include "model/unicode_tables.inc"

template <size_t N>
bool in_ranges(const Range (&table)[N], uint32_t code) {
  const Range *it = std::upper_bound(std::begin(table), std::end(table), code,
                                     [](uint32_t c, const Range &r) { return c < r.first; });
  return it != std::begin(table) && code <= std::prev(it)->last;
}

uint32_t combining_class(uint32_t code) {
  const auto *it = std::lower_bound(std::begin(kCombiningClasses), std::end(kCombiningClasses), code,
                                    [](const CombiningClass &c, uint32_t value) { return c.code < value; });
  return it != std::end(kCombiningClasses) && it->code == code ? it->value : 0;
}

// Hangul syllables are composed by arithmetic (Unicode, section 3.12).
constexpr uint32_t kS = 0xAC00, kL = 0x1100, kV = 0x1161, kT = 0x11A7, kLs = 19, kVs = 21, kTs = 28;

void decompose(uint32_t code, std::vector<uint32_t> *out) {
  if (code >= kS && code < kS + kLs * kVs * kTs) {
    const uint32_t s = code - kS;
    out->push_back(kL + s / (kVs * kTs));
    out->push_back(kV + s % (kVs * kTs) / kTs);
    if (s % kTs != 0) out->push_back(kT + s % kTs);
    return;
  }
  const auto *it = std::lower_bound(std::begin(kDecompositions), std::end(kDecompositions), code,
                                    [](const Decomposition &d, uint32_t value) { return d.code < value; });
  if (it == std::end(kDecompositions) || it->code != code) return out->push_back(code);
  decompose(it->first, out);
  if (it->second != 0) decompose(it->second, out);
}

uint32_t compose(uint32_t a, uint32_t b) {
  if (a >= kL && a < kL + kLs && b >= kV && b < kV + kVs) return kS + ((a - kL) * kVs + (b - kV)) * kTs;
  if (a >= kS && a < kS + kLs * kVs * kTs && (a - kS) % kTs == 0 && b > kT && b < kT + kTs) return a + (b - kT);
  const auto *it = std::lower_bound(std::begin(kCompositions), std::end(kCompositions), std::make_pair(a, b),
                                    [](const Composition &c, const std::pair<uint32_t, uint32_t> &key) {
                                      return std::make_pair(c.first, c.second) < key;
                                    });
  return it != std::end(kCompositions) && it->first == a && it->second == b ? it->code : 0;
}

}  // namespace

bool is_letter(uint32_t code) {
  return in_ranges(kLetters, code);
}
bool is_number(uint32_t code) {
  return in_ranges(kNumbers, code);
}

bool is_space(uint32_t code) {
  return (code >= 9 && code <= 13) || code == ' ' || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
         code == 0x3000;
}

std::vector<uint32_t> to_nfc(const std::string &text) {
  std::vector<uint32_t> points;
  for (size_t at = 0; at < text.size();) decompose(next_code_point(text, &at), &points);

  // Canonical order: combining marks sorted by class between starters.
  for (size_t i = 0; i < points.size();) {
    size_t end = i + 1;
    if (combining_class(points[i]) == 0) {
      ++i;
      continue;
    }
    while (end < points.size() && combining_class(points[end]) != 0) ++end;
    std::stable_sort(points.begin() + static_cast<std::ptrdiff_t>(i), points.begin() + static_cast<std::ptrdiff_t>(end),
                     [](uint32_t a, uint32_t b) { return combining_class(a) < combining_class(b); });
    i = end;
  }

  // Composition: each mark joins the last starter unless one of the same or a higher class stands between.
  std::vector<uint32_t> out;
  size_t starter = SIZE_MAX;
  uint32_t last_class = 0;
  for (const uint32_t code : points) {
    const uint32_t own = combining_class(code);
    if (starter != SIZE_MAX && (out.size() == starter + 1 || last_class < own)) {
      if (const uint32_t joined = compose(out[starter], code)) {
        out[starter] = joined;
        continue;
      }
    }
    if (own == 0) starter = out.size();
    last_class = own;
    out.push_back(code);
  }
  return out;
}

}  // namespace chatllm
