// The reader of metadata.
#include "base/json.h"

#include "base/error.h"
#include "check.h"
#include "random.h"

using namespace chatllm;

namespace {

Json parse(const std::string &text) {
  return Json::parse(text.data(), text.size());
}

}  // namespace

TEST(values_of_every_kind) {
  const Json j = parse(R"( {"a": [1, -2.5e3, true, false, null, NaN, Infinity], "b": {"c": "x"}, "d": ""} )");
  CHECK(j.is_object());
  CHECK_EQ(j["a"].items().size(), size_t{7});
  CHECK_EQ(j["a"].items()[0].number(0), 1.0);
  CHECK_EQ(j["a"].items()[1].number(0), -2500.0);
  CHECK(j["a"].items()[2].kind() == Json::Kind::Bool);
  CHECK(j["a"].items()[4].kind() == Json::Kind::Null);
  CHECK_EQ(j["b"]["c"].string(), "x");
  CHECK_EQ(j["d"].string(), "");
  CHECK(j["missing"]["deeper"].kind() == Json::Kind::Null);
}

TEST(escapes_become_utf8) {
  CHECK_EQ(parse(R"("\"\\\/\b\f\n\r\tA\u00e9\u4e2d\ud83d\ude00")").string(), "\"\\/\b\f\n\r\tA\u00e9\u4e2d\U0001F600");
  CHECK_EQ(parse(R"("\ud83d")").string(), "\uFFFD");
  CHECK_EQ(parse(R"("\ude00x")").string(), "\uFFFDx");
}

TEST(what_is_no_json_is_refused) {
  for (const char *text : {"",
                           "  ",
                           "{",
                           "[",
                           "[1",
                           "[1,]",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{\"a\":1,}",
                           "{a:1}",
                           "\"",
                           "\"\\",
                           "\"\\u12",
                           "\"\\u12G4\"",
                           "\"\\x\"",
                           "tru",
                           "nul",
                           "1 2",
                           "01x",
                           "-",
                           "+",
                           "1e",
                           ".",
                           "--1",
                           "\"a\nb\"",
                           "[1}",
                           "]",
                           "1e999",
                           "\"\\ud83d\\u0041\""})
    CHECK_FAILS(parse(text), "JSON");
  CHECK_FAILS(parse(std::string(100000, '[')), "nested too deeply");
  CHECK_FAILS(Json::parse("{}\0", 3), "JSON");
  std::string many = "[[]";
  for (int i = 0; i < (1 << 22); ++i) many += ",[]";
  CHECK_FAILS(parse(many + "]"), "too many values");
}

TEST(integers_are_checked) {
  const Json j = parse(R"({"n": 7, "half": 0.5, "big": 1e30, "text": "7"})");
  CHECK_EQ(j["n"].integer("n", 1, 10), 7);
  CHECK_FAILS(j["n"].integer("n", 8, 10), "no usable n in its metadata (an integer from 8 to 10)");
  CHECK_FAILS(j["half"].integer("half", 0, 10), "half");
  CHECK_FAILS(j["big"].integer("big", 0, 10), "big");
  CHECK_FAILS(j["text"].integer("text", 0, 10), "text");
  CHECK_FAILS(j["none"].integer("none", 0, 10), "none");
}

TEST(quoting_and_parsing_are_inverse) {
  std::string all;
  for (int i = 1; i < 128; ++i) all += static_cast<char>(i);
  all += "\u00e9\u4e2d\U0001F600";
  CHECK_EQ(parse(json_quote(all)).string(), all);
  CHECK_EQ(json_quote("a\xFF"
                      "b"),
           "\"a\uFFFDb\"");
}

TEST(random_bytes_never_crash) {
  test::Random random(3);
  const std::string good = R"({"a": [1, -2.5e3, true, null, "\u4e2d\n"], "b": {"c": {"d": [[], {}]}}})";
  for (int i = 0; i < test::repetitions(5000, 200000); ++i) {
    std::string text = good;
    for (int c = 0; c < 3; ++c) text[random.below(text.size())] = static_cast<char>(random.next());
    text.resize(random.below(text.size() + 1));
    try {
      parse(text);
    } catch (const Error &e) {
      CHECK(std::strlen(e.what()) < 200);
    }
  }
}

TEST_MAIN
