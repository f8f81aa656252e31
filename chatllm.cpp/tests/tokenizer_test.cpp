// The tokenizer: against transformers' Qwen2TokenizerFast on the reference vocabulary, and piece by piece on small
// vocabularies made for it.
#include "model/tokenizer.h"

#include <cstdlib>
#include <fstream>

#include "base/error.h"
#include "check.h"
#include "model/unicode.h"
#include "synthetic_model.h"

using namespace chatllm;

namespace {

struct Expectation {
  std::string text;
  std::vector<int32_t> ids;
};

// Ids by transformers 4.57.6, AutoTokenizer on the reference checkpoint; names of special tokens are parsed.
const std::vector<Expectation> kReference = {
    // clang-format off
    {"", {}},
    {"hello world", {71, 301, 385, 1879}},
    {"Hello, World! It's we're I'LL don't 'S '\305\277", {39, 301, 385, 11, 467, 1385, 0, 1084, 594, 582, 6, 265, 358, 6, 43, 43, 1513, 944, 364, 50, 364, 129, 123}},
    {"a  b   c \n\n d\r\n  \n e  ", {64, 220, 293, 256, 272, 220, 271, 294, 319, 256, 198, 384, 256}},
    {"   ", {262}},
    {" \t x", {220, 197, 856}},
    {"x\n", {87, 198}},
    {"\n\n\nfoo", {1406, 824, 78}},
    {"12345 6", {16, 17, 18, 19, 20, 220, 21}},
    {"\351\233\273\350\251\261\350\231\237\347\242\274\346\230\257\357\274\220\357\274\231\357\274\220\357\274\220", {165, 249, 119, 164, 102, 109, 164, 247, 253, 163, 95, 120, 162, 246, 107, 1540, 238, 1540, 247, 1540, 238, 1540, 238}},
    {"\344\275\240\345\245\275\357\274\214\344\270\226\347\225\214\343\200\202", {160, 121, 254, 161, 98, 121, 1540, 234, 160, 116, 244, 163, 243, 234, 1773}},
    {"\342\221\240\342\221\241\342\205\247\302\275 \331\243\331\244", {158, 239, 254, 158, 239, 94, 158, 227, 100, 126, 121, 220, 149, 96, 149, 97}},
    {"e\314\201 \303\251 A\314\212 \342\204\253 \341\272\233\314\243", {963, 220, 963, 1683, 227, 1683, 227, 220, 157, 118, 249, 136, 96}},
    {"\355\225\234\352\265\255\354\226\264 \341\204\222\341\205\241\341\206\253", {169, 243, 250, 166, 113, 255, 168, 244, 112, 220, 169, 243, 250}},
    {"<|im_start|>system", {2001, 82, 612}},
    {"a<asr_text>b<|audio_pad|><|audio_pad|>", {64, 2061, 65, 2033, 2033}},
    {"<|im_start", {27, 91, 318, 1261, 471}},
    {"tab\tand\302\240nbsp\343\200\200ideographic", {83, 370, 197, 437, 126, 254, 77, 1279, 79, 1277, 222, 577, 538, 1935, 292}},
    {"!!!\n\n?\??", {0, 0, 0, 271, 30, 30, 30}},
    {" !?\n", {753, 30, 198}},
    {"emoji \360\237\230\200\360\237\221\215\360\237\217\275 zero\342\200\215width", {336, 78, 73, 72, 220, 172, 253, 246, 222, 172, 253, 239, 235, 172, 253, 237, 121, 1147, 261, 78, 378, 235, 86, 1104}},
    {"\340\244\225\340\245\215\340\244\267 devanagari", {156, 97, 243, 156, 98, 235, 156, 97, 115, 409, 85, 276, 351, 277, 72}},
    {"a_b-c.d/e\\f", {64, 880, 1786, 950, 14, 68, 59, 69}},
    {"'t''re'", {944, 6, 6, 265, 6}},
    {"x'mas 'Tis", {87, 6, 76, 300, 364, 51, 285}},
    {"  leading", {220, 512, 329, 287}},
    {"trailing  ", {376, 604, 287, 256}},
    {"\342\200\250line", {378, 101, 1056}},
    {std::string("\000\001", 2), {188, 189}},
    {"ca\314\247\314\201 a\314\201\314\247", {66, 1953, 136, 100, 1683, 94, 136, 100}},
    {"PostgreSQL 16.4", {47, 535, 70, 265, 50, 48, 43, 220, 16, 21, 13, 19}},
    {"Preserve spelling: PostgreSQL", {47, 416, 261, 586, 978, 613, 287, 25, 393, 535, 70, 265, 50, 48, 43}},
    // clang-format on
};

std::string golden_model() {
  const char *folder = std::getenv("CHATLLM_GOLDEN");
  const std::string path = std::string(folder != nullptr ? folder : "") + "/tiny-f16.bin";
  return folder != nullptr && std::ifstream(path) ? path : "";
}

// A tokenizer with the 256 bytes and these merges; their results are tokens in this order.
struct Small {
  test::TempFile file;
  GgmmFile model;
  Tokenizer tokenizer;

  static std::vector<uint8_t> bytes(const std::vector<std::string> &merges) {
    test::ModelSpec spec;
    spec.merges = merges;
    for (const std::string &merge : merges) {
      const size_t space = merge.find(' ');
      spec.words.push_back(merge.substr(0, space) + merge.substr(space + 1));
    }
    return test::build_model(spec).bytes;
  }
  explicit Small(const std::vector<std::string> &merges) : file(bytes(merges)), model(file.path()), tokenizer(model) {}

  // The pieces that the tokens of a text stand for.
  std::vector<std::string> pieces(const std::string &text, bool specials = false) const {
    std::vector<std::string> out;
    for (const int32_t id : tokenizer.encode(text, specials)) out.push_back(tokenizer.bytes(id));
    return out;
  }
};

using Pieces = std::vector<std::string>;

std::string nfc(const std::string &text) {
  std::string out;
  for (const uint32_t code : to_nfc(text)) append_utf8(out, code);
  return out;
}

}  // namespace

TEST(reference_vocabulary) {
  const std::string path = golden_model();
  if (path.empty()) return test::skip("no reference model beside the checkout");
  const GgmmFile model(path);
  const Tokenizer tokenizer(model);
  for (const Expectation &e : kReference) {
    const std::vector<int32_t> ids = tokenizer.encode(e.text, true);
    if (ids != e.ids)
      test::failed(__FILE__, __LINE__, "'" + e.text + "': " + test::shown(ids) + " instead of " + test::shown(e.ids));
  }
}

TEST(merges_apply_by_rank_not_by_position) {
  const Small small({"b c", "a b", "bc d", "a bcd"});
  CHECK_EQ(small.pieces("abc"), (Pieces{"a", "bc"}));
  CHECK_EQ(small.pieces("abcd"), (Pieces{"abcd"}));
  CHECK_EQ(small.pieces("abab"), (Pieces{"ab", "ab"}));
}

TEST(equal_ranks_apply_from_the_left) {
  const Small small({"a a"});
  CHECK_EQ(small.pieces("aaaaa"), (Pieces{"aa", "aa", "a"}));
}

// Every merge below would join two pieces of the pattern if the text were not split there.
TEST(pieces_of_the_split_pattern) {
  const Small small({"\xC4\xA0 a", "\xC4\xA0 \xC4\xA0",
                     "a \xC4\xA0", "a 1",
                     "1 a",        "1 1",
                     "' s",        "s '",
                     "a '",        "a !",
                     "! a",        "! !",
                     "! \xC4\x8A", "\xC4\x8A \xC4\x8A",
                     "\xC4\x8A a", "\xC4\xA0 !",
                     "\xC4\xA0 1", "' L",
                     "'L L",       "\xC4\xA0 \xC4\x8A",
                     "x a"});
  CHECK_EQ(small.pieces("a a"), (Pieces{"a", " a"}));
  CHECK_EQ(small.pieces("a  a"), (Pieces{"a", " ", " a"}));
  CHECK_EQ(small.pieces("a   a"), (Pieces{"a", "  ", " a"}));
  CHECK_EQ(small.pieces("  "), (Pieces{"  "}));
  CHECK_EQ(small.pieces("a11a"), (Pieces{"a", "1", "1", "a"}));
  CHECK_EQ(small.pieces(" 1"), (Pieces{" ", "1"}));
  CHECK_EQ(small.pieces("a's"), (Pieces{"a", "'s"}));
  CHECK_EQ(small.pieces("a'LL"), (Pieces{"a", "'LL"}));
  CHECK_EQ(small.pieces("a!!a"), (Pieces{"a", "!!", "a"}));
  CHECK_EQ(small.pieces("!a"), (Pieces{"!a"}));
  CHECK_EQ(small.pieces(" !"), (Pieces{" !"}));
  CHECK_EQ(small.pieces("!\n\na"), (Pieces{"!\n", "\n", "a"}));
  CHECK_EQ(small.pieces(" \na"), (Pieces{" \n", "a"}));
  CHECK_EQ(small.pieces("\n\n a"), (Pieces{"\n\n", " a"}));
  CHECK_EQ(small.pieces("xa"), (Pieces{"xa"}));
}

TEST(special_tokens_are_text_unless_asked_for) {
  const Small small({});
  const int32_t start = small.tokenizer.special("<|im_start|>"), text = small.tokenizer.special("<asr_text>");
  CHECK(start > 0 && text > 0);
  CHECK(small.tokenizer.is_special(start));
  CHECK(!small.tokenizer.is_special('a'));
  CHECK_EQ(small.tokenizer.special("<|nothing|>"), -1);
  CHECK_EQ(small.tokenizer.encode("<asr_text>").size(), size_t{10});
  CHECK_EQ(small.tokenizer.encode("<asr_text>", true), std::vector<int32_t>{text});
  CHECK_EQ(small.pieces("a<|im_start|><|im_start|>b<", true), (Pieces{"a", "<|im_start|>", "<|im_start|>", "b", "<"}));
  CHECK_EQ(small.tokenizer.encode("", true).size(), size_t{0});
}

TEST(unused_ids_stand_for_nothing) {
  const Small small({"a b"});
  CHECK_EQ(small.tokenizer.size(), 256 + 1 + 7 + 3);
  CHECK_EQ(small.tokenizer.bytes(small.tokenizer.size() - 1), "");
  CHECK_EQ(small.tokenizer.bytes(256), "ab");
}

TEST(every_byte_is_spelled_and_comes_back) {
  const Small small({});
  for (const std::string text : {"caf\u00E9 \u4E2D\u6587 \U0001F600\t\r\n", "\x01\x7F", " "}) {
    std::string back;
    for (const std::string &piece : small.pieces(text)) back += piece;
    CHECK_EQ(back, text);
  }
}

TEST(malformed_utf8_becomes_a_replacement) {
  const Small small({});
  for (const char *text : {"\xFF", "\xC3", "\xE4\xB8", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xC0\x80"}) {
    std::string back;
    for (const std::string &piece : small.pieces(text)) back += piece;
    CHECK(back.rfind("\uFFFD", 0) == 0);
  }
}

TEST(normalization_form_c) {
  CHECK_EQ(nfc("e\u0301"), "\u00E9");
  CHECK_EQ(nfc("\u212B"), "\u00C5");
  CHECK_EQ(nfc("A\u030A"), "\u00C5");
  CHECK_EQ(nfc("\u1E9B\u0323"), "\u1E9B\u0323");
  CHECK_EQ(nfc("a\u0301\u0327"), "\u00E1\u0327");   // the cedilla does not stand between
  CHECK_EQ(nfc("q\u0307\u0323"), "q\u0323\u0307");  // canonical order
  CHECK_EQ(nfc("\u1112\u1161\u11AB"), "\uD55C");
  CHECK_EQ(nfc("\uD55C"), "\uD55C");
  CHECK_EQ(nfc("\u0958"), "\u0915\u093C");  // excluded from composition
  CHECK_EQ(nfc("\u0340"), "\u0300");
  CHECK_EQ(nfc("\u1100\u1161"), "\uAC00");
  CHECK_EQ(nfc("\uF900"), "\u8C48");
}

TEST(long_words_take_little_time) {
  std::vector<std::string> merges;
  for (char a = 'a'; a <= 'z'; ++a)
    for (char b = 'a'; b <= 'z'; ++b) merges.push_back(std::string(1, a) + " " + b);
  const Small small(merges);
  test::Random random(1);
  std::string text;
  for (int i = 0; i < 300000; ++i) text += static_cast<char>('a' + random.below(26));
  CHECK(small.tokenizer.encode(text).size() >= 150000);
}

TEST_MAIN
