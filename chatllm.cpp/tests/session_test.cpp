// Recognition end to end on random models: prompts, limits, abort, bad audio, shared weights.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>
#include <set>
#include <thread>

#include "base/error.h"
#include "check.h"
#include "kernel_sets.h"
#include "sanitizers.h"
#include "session_helpers.h"

#if defined(__linux__)
#include <unistd.h>
#endif

using namespace chatllm;
using test::ModelSpec;

namespace {

const test::TempFile &model_file() {
  static const auto *const file = new test::TempFile(test::build_model({}).bytes);
  return *file;
}

struct RemoveModel {
  ~RemoveModel() { std::remove(model_file().path().c_str()); }
} remove_model;

// Resident memory in bytes; 0 where it cannot be told.
double resident() {
#if defined(__linux__)
  trim_heap();
  if (FILE *file = std::fopen("/proc/self/statm", "r")) {
    long long total = 0, pages = 0;
    const int read = std::fscanf(file, "%lld %lld", &total, &pages);
    std::fclose(file);
    if (read == 2) return static_cast<double>(pages) * static_cast<double>(sysconf(_SC_PAGESIZE));
  }
#endif
  return 0;
}

}  // namespace

TEST(the_prompt_is_built_as_the_model_was_trained) {
  const auto session = test::open_session(model_file().path());
  const Tokenizer &t = session->model().tokenizer();
  auto text = [&](const std::vector<int32_t> &ids) {
    std::string out;
    for (const int32_t id : ids) out += t.bytes(id);
    return out;
  };
  const std::string pads =
      "<|audio_pad|><|audio_pad|><|audio_pad|><|audio_pad|><|audio_pad|><|audio_pad|><|audio_pad|>";  // 0.5 s: 50
                                                                                                      // frames
  RunSettings settings;
  CHECK_EQ(text(session->prompt_ids(8000, settings)),
           "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|audio_start|>" + pads +
               "<|audio_end|><|im_end|>\n<|im_start|>assistant\n");
  settings.context = "a <|im_end|> b";
  settings.language = "chinese";
  settings.prefix = "x";
  const auto ids = session->prompt_ids(1, settings);  // short audio counts as half a second
  CHECK_EQ(text(ids), "<|im_start|>system\na <|im_end|> b<|im_end|>\n<|im_start|>user\n<|audio_start|>" + pads +
                          "<|audio_end|><|im_end|>\n<|im_start|>assistant\nlanguage Chinese<asr_text>x");
  int ends = 0;
  for (const int32_t id : ids) ends += id == t.special("<|im_end|>");
  CHECK_EQ(ends, 2);  // the context's is plain text
  settings.language = "AUTO";
  CHECK_EQ(text(session->prompt_ids(8000, settings)).find("language"), std::string::npos);
  settings.language = "Klingon";
  CHECK_FAILS(session->prompt_ids(8000, settings), "unknown language 'Klingon': use auto or one of Chinese, English");
}

TEST(runs_repeat_exactly) {
  const auto session = test::open_session(model_file().path());
  const auto a = test::sound(3.1, 1), b = test::sound(12.7, 2);
  const auto first = test::recognize(*session, a, 20), second = test::recognize(*session, b, 20);
  CHECK_EQ(first.size(), size_t{20});
  CHECK_EQ(test::recognize(*session, a, 20), first);
  CHECK_EQ(test::recognize(*session, b, 20), second);
  CHECK_EQ(session->timings().new_tokens, 20);
  CHECK_EQ(session->timings().audio_tokens, 13 * 12 + 9);
  CHECK(session->timings().finish == Finish::Length);
  CHECK_NEAR(session->timings().audio_ms, 12700, 1);
  CHECK(session->timings().first_token_ns > session->timings().start_ns);
  CHECK(session->timings().total_ms >= session->timings().first_token_ms);
}

namespace {

// Ids and log-probabilities of some tokens, and how much of the prompt was there.
struct Heard {
  std::vector<std::pair<int32_t, float>> tokens;
  int32_t reused = 0;
};

Heard hear(test::Session &session, const std::vector<float> &pcm, const char *context, int64_t count = 6) {
  RunSettings settings;
  settings.context = context;
  settings.max_new_tokens = count;
  settings.ignore_stop = true;
  Heard heard;
  session.run(pcm.data(), static_cast<int64_t>(pcm.size()), settings,
              [&](const Token &token) { heard.tokens.emplace_back(token.id, token.logprob); });
  heard.reused = session.timings().reused_tokens;
  return heard;
}

}  // namespace

TEST(the_text_before_the_audio_is_not_computed_again_and_changes_nothing) {
  for (const Kernels *k : test::kernel_sets()) {
    const auto a = test::sound(0.9, 1), b = test::sound(7.5, 2);
    std::vector<Heard> expected;
    for (const char *context : {"names", "other names"})
      for (const auto *pcm : {&a, &b})
        expected.push_back(hear(*test::open_session(model_file().path(), k->name), *pcm, context));
    for (const Heard &heard : expected) CHECK_EQ(heard.reused, 0);
    const auto session = test::open_session(model_file().path(), k->name);
    int last = -1;
    for (const int which : {0, 1, 1, 0, 2, 3, 1, 2, 0}) {
      const Heard heard = hear(*session, which % 2 == 0 ? a : b, which < 2 ? "names" : "other names");
      CHECK(heard.tokens == expected[static_cast<size_t>(which)].tokens);
      CHECK_EQ(heard.reused > 20, last >= 0 && which / 2 == last / 2);
      last = which;
    }
    session->set_cursor(2);  // what is appended there is not the prompt's
    CHECK_EQ(hear(*session, a, "names").reused, 2);
    session->set_cursor(1);
    CHECK(hear(*session, a, "names").tokens == expected[0].tokens);
  }
}

TEST(log_probabilities_are_those_of_the_softmax) {
  const auto session = test::open_session(model_file().path(), "generic");
  const auto pcm = test::sound(1.5);
  int64_t shape[2];
  const auto scores = session->prefill_logits(pcm.data(), static_cast<int64_t>(pcm.size()), {}, shape);
  CHECK_EQ(shape[0], int64_t{1});
  size_t best = 0;
  double sum = 0;
  for (size_t i = 0; i < scores.size(); ++i)
    if (scores[i] > scores[best]) best = i;
  for (const float score : scores) sum += std::exp(static_cast<double>(score) - scores[best]);
  RunSettings settings;
  settings.max_new_tokens = 1;
  settings.ignore_stop = true;
  session->run(pcm.data(), static_cast<int64_t>(pcm.size()), settings, [&](const Token &token) {
    CHECK_EQ(token.id, static_cast<int32_t>(best));
    CHECK_NEAR(token.logprob, -std::log(sum), 1e-5);
  });
}

TEST(limits_of_new_tokens) {
  const auto session = test::open_session(model_file().path());
  const auto pcm = test::sound(1);
  CHECK_EQ(test::recognize(*session, pcm, 0).size(), size_t{0});
  CHECK_EQ(session->timings().first_token_ns, int64_t{0});
  CHECK_EQ(test::recognize(*session, pcm, 1).size(), size_t{1});
  auto small = test::settings_for(model_file().path());
  small.max_context = 120;
  test::Session limited(small);
  const auto ids = test::recognize(limited, pcm, 1000);
  CHECK(ids.size() > 10 && ids.size() < 120);
  CHECK(limited.timings().finish == Finish::Length);
  CHECK_EQ(limited.timings().prompt_tokens + static_cast<int32_t>(ids.size()), 120);
}

TEST(bad_audio_gets_a_sentence_and_harms_nothing) {
  const auto session = test::open_session(model_file().path());
  auto pcm = test::sound(1);
  const auto expected = test::recognize(*session, pcm, 5);
  CHECK_FAILS(test::recognize(*session, {}, 5), "no samples");
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    auto broken = pcm;
    broken[777] = bad;
    CHECK_FAILS(test::recognize(*session, broken, 5), "sample 777");
    CHECK(session->timings().finish == Finish::None);
  }
  int64_t shape[2];
  CHECK_FAILS(session->log_mel(pcm.data(), 159, shape), "shorter than one frame");
  CHECK_FAILS(session->log_mel(nullptr, 1000, shape), "no samples");
  CHECK_FAILS(session->encode(pcm.data(), -5, false, shape), "no samples");
  CHECK_EQ(session->encode(pcm.data(), 160, false, shape).size(), size_t{64});
  CHECK_EQ(test::recognize(*session, {0.1f}, 5).size(), size_t{5});  // one sample is padded to half a second
  CHECK_EQ(test::recognize(*session, std::vector<float>(16000), 5).size(), size_t{5});
  CHECK_EQ(test::recognize(*session, std::vector<float>(16000, 1e30f), 5).size(), size_t{5});
  CHECK_EQ(test::recognize(*session, pcm, 5), expected);
}

TEST(audio_that_exceeds_the_context_is_refused_at_once) {
  const auto session = test::open_session(model_file().path());
  const std::vector<float> hours(static_cast<size_t>(16000) * 3600 * 2);  // 93,600 tokens
  CHECK_FAILS(test::recognize(*session, hours, 5), "does not fit the context of 65536");
  for (const int64_t samples : {int64_t{1} << 33, int64_t{1} << 50, std::numeric_limits<int64_t>::max()})
    CHECK_FAILS(session->prompt_ids(samples, {}), "does not fit the context");
}

TEST(abort_ends_a_run_within_a_step) {
  const auto session = test::open_session(model_file().path());
  const auto pcm = test::sound(1);
  const auto expected = test::recognize(*session, pcm, 30);
  RunSettings settings;
  settings.ignore_stop = true;
  settings.max_new_tokens = 1000;
  int seen = 0;
  session->run(pcm.data(), static_cast<int64_t>(pcm.size()), settings, [&](const Token &) {
    if (++seen == 7) session->abort();
  });
  session->clear_abort();
  CHECK_EQ(seen, 7);
  CHECK(session->timings().finish == Finish::Abort);
  CHECK_EQ(test::recognize(*session, pcm, 30), expected);
}

TEST(a_continued_answer_is_the_longer_answer) {
  const auto session = test::open_session(model_file().path(), "generic");
  const auto pcm = test::sound(1.2);
  RunSettings settings;
  settings.max_new_tokens = 24;
  std::vector<int32_t> whole, parts;
  session->run(pcm.data(), static_cast<int64_t>(pcm.size()), settings, [&](const Token &t) { whole.push_back(t.id); });
  CHECK(whole.size() > 10);
  settings.max_new_tokens = 9;
  const auto add = [&](const Token &t) { parts.push_back(t.id); };
  session->run(pcm.data(), static_cast<int64_t>(pcm.size()), settings, add);
  session->continue_with("", static_cast<int64_t>(whole.size()) - 9, add);
  CHECK_EQ(parts, whole);
  session->forget();
  CHECK_FAILS(session->continue_with("x", 5, add), "no answer to continue");
}

TEST(an_aborted_continuation_can_be_repeated) {
  const auto session = test::open_session(model_file().path(), "generic");
  const auto pcm = test::sound(1.2);
  RunSettings settings;
  settings.max_new_tokens = 5;
  auto ignore = [](const Token &) {};
  const std::string suffix(700, 'x');  // more than a block of positions
  std::vector<int32_t> expected, got;
  session->run(pcm.data(), static_cast<int64_t>(pcm.size()), settings, ignore);
  const int64_t before = session->cursor();
  session->continue_with(suffix, 5, [&](const Token &t) { expected.push_back(t.id); });
  session->run(pcm.data(), static_cast<int64_t>(pcm.size()), settings, ignore);
  CHECK_EQ(session->cursor(), before);
  std::thread aborter([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    session->abort();
  });
  session->continue_with(suffix, 0, ignore);
  aborter.join();
  session->clear_abort();
  if (session->timings().finish == Finish::Abort) {
    CHECK_EQ(session->cursor(), before);
    session->continue_with(suffix, 5, [&](const Token &t) { got.push_back(t.id); });
    CHECK_EQ(got, expected);
  }
}

TEST(stop_tokens_end_the_answer) {
  // <|endoftext|> gets the scores s, <|im_end|> the scores -s, all others zero: one of the two always wins.
  ModelSpec spec;
  spec.type = DType::F32;
  auto bytes = test::build_model(spec).bytes;
  {
    const test::TempFile file(bytes);
    const GgmmFile model(file.path());
    const Tokenizer tokenizer(model);
    const Tensor &head = model.get("lm_head.weight", {266, 64});
    const size_t at = head.at;
    std::memset(&bytes[at], 0, head.bytes);
    const float plus = 1, minus = -1;
    std::memcpy(&bytes[at + static_cast<size_t>(tokenizer.special("<|endoftext|>")) * 256], &plus, 4);
    std::memcpy(&bytes[at + static_cast<size_t>(tokenizer.special("<|im_end|>")) * 256], &minus, 4);
  }
  const test::TempFile file(bytes);
  const auto session = test::open_session(file.path());
  const auto pcm = test::sound(1);
  int seen = 0;
  session->run(pcm.data(), static_cast<int64_t>(pcm.size()), {}, [&](const Token &) { ++seen; });
  CHECK_EQ(seen, 0);
  CHECK(session->timings().finish == Finish::Stop);
  CHECK_EQ(test::recognize(*session, pcm, 5).size(), size_t{5});  // stops are ignored on request
}

TEST(a_token_without_end_is_a_loop) {
  ModelSpec spec;
  spec.type = DType::F32;
  auto bytes = test::build_model(spec).bytes;
  {
    const test::TempFile file(bytes);
    const GgmmFile model(file.path());
    const Tensor &head = model.get("lm_head.weight", {266, 64});
    std::memset(&bytes[head.at], 0, head.bytes);
  }
  const test::TempFile file(bytes);  // all scores are zero: the first id wins, always
  const auto session = test::open_session(file.path());
  const auto pcm = test::sound(1);
  std::vector<int32_t> ids;
  session->run(pcm.data(), static_cast<int64_t>(pcm.size()), {}, [&](const Token &t) { ids.push_back(t.id); });
  CHECK_EQ(ids, std::vector<int32_t>(21, 0));
  CHECK(session->timings().finish == Finish::Loop);
}

TEST(objects_on_one_file_share_the_weights) {
  ModelSpec spec;
  spec.d_model = 512;
  spec.encoder_heads = 8;
  spec.encoder_ffn = 2048;
  spec.encoder_layers = 4;
  const test::TempFile file(test::build_model(spec).bytes);
  const auto pcm = test::sound(1);
  const double start = resident();
  auto first = test::open_session(file.path());
  const auto expected = test::recognize(*first, pcm, 8);
  const double one = resident() - start;
  auto second = test::open_session(file.path());
  CHECK(&first->model() == &second->model());
  CHECK_EQ(test::recognize(*second, pcm, 8), expected);
  const double two = resident() - start;
  const auto generic = test::open_session(file.path(), "generic");
  CHECK(&first->model() != &generic->model() || std::string(kernel_names()) == "generic");
  first.reset();
  CHECK_EQ(test::recognize(*second, pcm, 8), expected);  // lives on
  second.reset();
  std::printf("     resident: one object %.1f MB, two %.1f MB\n", one / 1e6, two / 1e6);
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(one > 10e6);  // 12.6 million weights of Q8_0
  CHECK(two - one < 3e6);
#endif
}

TEST(a_closed_model_gives_its_memory_back) {
  ModelSpec spec;
  spec.d_model = 512;
  spec.encoder_heads = 8;
  spec.encoder_ffn = 2048;
  spec.encoder_layers = 4;
  spec.seed = 2;
  const test::TempFile file(test::build_model(spec).bytes);
  const auto pcm = test::sound(5);
  double after_first = 0;
  for (int i = 0; i < 4; ++i) {
    {
      const auto session = test::open_session(file.path());
      test::recognize(*session, pcm, 8);
    }
    if (i == 0) after_first = resident();
  }
  const double growth = resident() - after_first;
  std::printf("     resident: growth over three loads %.2f MB\n", growth / 1e6);
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(growth < 1e6);
#endif
}

TEST(the_forced_aligner_is_refused_by_name) {
  auto bytes = test::build_model({}).bytes;
  int32_t config;
  std::memcpy(&config, &bytes[8], 4);
  const int32_t aligner = kModelQwen3ForcedAligner;
  std::memcpy(&bytes[static_cast<size_t>(config)], &aligner, 4);
  CHECK_FAILS(test::open_session(test::TempFile(bytes).path()), "");
}

TEST(a_missing_special_token_is_named) {
  auto bytes = test::build_model({}).bytes;
  const std::string from = "<|audio_pad|>", to = "<|audio_sad|>";
  const auto at = std::search(bytes.begin(), bytes.end(), from.begin(), from.end());
  std::copy(to.begin(), to.end(), at);
  CHECK_FAILS(test::open_session(test::TempFile(bytes).path()), "<|audio_pad|>");
}

TEST_MAIN
