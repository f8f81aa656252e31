// Runaway repetition is noticed as soon as a pattern of up to 20 tokens has been repeated over 20 times.
#include "asr/loop_guard.h"

#include "check.h"
#include "random.h"

using namespace chatllm;

namespace {

// How many tokens of the sequence pass before the guard speaks, -1: it never does.
template <class F>
int tokens_until_loop(int count, F &&token) {
  LoopGuard guard;
  for (int i = 0; i < count; ++i)
    if (guard.push(token(i))) return i + 1;
  return -1;
}

}  // namespace

TEST(a_pattern_of_each_length_is_noticed_at_its_21st_time) {
  for (int period = 1; period <= 20; ++period) {
    CHECK_EQ(tokens_until_loop(2000, [&](int i) { return i % period; }), 21 * period);
    CHECK_EQ(tokens_until_loop(21 * period - 1, [&](int i) { return i % period; }), -1);
  }
}

TEST(longer_patterns_are_no_loop) {
  CHECK_EQ(tokens_until_loop(5000, [](int i) { return i % 21; }), -1);
  CHECK_EQ(tokens_until_loop(5000, [](int i) { return i; }), -1);
}

TEST(a_loop_after_other_text) {
  test::Random random(1);
  std::vector<int> text;
  for (int i = 0; i < 137; ++i) text.push_back(static_cast<int>(random.below(1000)));
  CHECK_EQ(tokens_until_loop(3000, [&](int i) { return i < 137 ? text[static_cast<size_t>(i)] : 5000 + i % 3; }),
           137 + 63);
}

TEST(an_interruption_starts_the_count_again) {
  CHECK_EQ(tokens_until_loop(40, [](int i) { return i == 20 ? 7 : 1; }), -1);
  CHECK_EQ(tokens_until_loop(100, [](int i) { return i == 20 ? 7 : 1; }), 42);
}

TEST(random_tokens_are_no_loop) {
  test::Random random(2);
  CHECK_EQ(tokens_until_loop(200000, [&](int) { return static_cast<int>(random.below(3)); }), -1);
}

TEST_MAIN
