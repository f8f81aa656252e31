// Properties of the whole computation on random models: the vector kernels stay within the error budget of the generic
// ones, windows are what full attention is up to 8 s, blocks of a prefill are one pass.
#include <algorithm>

#include "base/error.h"
#include "check.h"
#include "kernel_sets.h"
#include "session_helpers.h"

using namespace chatllm;
using test::ModelSpec;

namespace {

std::vector<float> encode(Session &session, const std::vector<float> &pcm, bool full = false) {
  int64_t shape[2];
  return session.encode(pcm.data(), static_cast<int64_t>(pcm.size()), full, shape);
}

std::vector<float> logits(Session &session, const std::vector<float> &pcm) {
  int64_t shape[2];
  return session.prefill_logits(pcm.data(), static_cast<int64_t>(pcm.size()), {}, shape);
}

// A model of this type whose sizes share no common factor with the kernels' tiles where the type allows it.
ModelSpec odd_sizes(DType type) {
  ModelSpec spec;
  spec.d_model = 288;
  spec.encoder_heads = 6;  // head size 48
  spec.encoder_ffn = 480;
  spec.conv_channels = 20;
  spec.hidden = 160;
  spec.heads = 4;
  spec.kv_heads = 2;
  spec.head_dim = 96;  // 4 x 96 is not the hidden size
  spec.ffn = 352;
  spec.type = type;
  return spec;
}

void check_budget(const ModelSpec &spec, const char *what) {
  const test::TempFile file(test::build_model(spec).bytes);
  const auto pcm = test::sound(6.345);  // enough for the form of many tokens
  const auto reference = test::open_session(file.path(), "generic");
  const auto expected_encoding = encode(*reference, pcm), expected_logits = logits(*reference, pcm);
  for (const float value : expected_logits) CHECK(std::isfinite(value));
  const double most = 0.02;
  for (const Kernels *k : test::kernel_sets()) {
    if (k->tile_tokens == 0) continue;
    const auto session = test::open_session(file.path(), k->name);
    const double encoding = test::relative_rms(encode(*session, pcm), expected_encoding),
                 scores = test::relative_rms(logits(*session, pcm), expected_logits);
    std::printf("     %-6s %-10s encoder %.3f %%, logits %.3f %%\n", what, k->name, 100 * encoding, 100 * scores);
    CHECK(encoding <= most);
    CHECK(scores <= most);
  }
}

}  // namespace

TEST(kernel_sets_stay_within_the_error_budget) {
  for (const DType type : {DType::F32, DType::F16, DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::Q4_K})
    check_budget(odd_sizes(type), type_name(type));
  ModelSpec mixed = odd_sizes(DType::Q4_0);
  mixed.mixed = true;
  mixed.tied = true;
  check_budget(mixed, "mixed");
}

TEST(the_number_of_threads_changes_nothing) {
  const test::TempFile file(test::build_model(odd_sizes(DType::Q4_0)).bytes);
  const auto pcm = test::sound(1.7);
  for (const Kernels *k : test::kernel_sets()) {
    const auto one = test::open_session(file.path(), k->name, 1), many = test::open_session(file.path(), k->name, 5);
    CHECK(logits(*one, pcm) == logits(*many, pcm));
    CHECK_EQ(test::recognize(*one, pcm, 12), test::recognize(*many, pcm, 12));
  }
}

TEST(windows_are_full_attention_up_to_eight_seconds) {
  ModelSpec spec;
  const test::TempFile file(test::build_model(spec).bytes);
  const auto sets = test::kernel_sets();
  for (const Kernels *k : {sets.back(), sets.front()}) {
    const auto session = test::open_session(file.path(), k->name);
    for (const double seconds : {0.3, 1.0, 5.55, 8.0}) {
      const auto pcm = test::sound(seconds);
      CHECK(test::relative_rms(encode(*session, pcm), encode(*session, pcm, true)) < 1e-6);
    }
    for (const double seconds : {8.5, 20.0}) {
      const auto pcm = test::sound(seconds);
      CHECK(test::relative_rms(encode(*session, pcm), encode(*session, pcm, true)) > 1e-3);
    }
  }
}

// A window sees nothing of its neighbours: what comes after eight seconds changes no token before.
TEST(windows_are_independent) {
  const test::TempFile file(test::build_model({}).bytes);
  const auto session = test::open_session(file.path());
  const auto longer = test::sound(45.0);  // more windows than are computed at a time
  const auto whole = encode(*session, longer);
  for (const int windows : {1, 3, 4, 5}) {
    const std::vector<float> start(longer.begin(), longer.begin() + windows * 128000);
    int64_t shape[2];
    const auto mel_start = session->log_mel(start.data(), static_cast<int64_t>(start.size()), shape);
    const auto part = encode(*session, start);
    CHECK_EQ(part.size(), static_cast<size_t>(windows * 104 * 64));
    // The last frame of a clip sees its reflected border, and the floor depends on the clip's maximum: compare the
    // windows before the last one, loosely.
    const size_t same = static_cast<size_t>((windows - 1) * 104 * 64);
    if (same == 0) continue;
    const std::vector<float> a(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(same)),
        b(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(same));
    CHECK(test::relative_rms(b, a) < 2e-2);
  }
}

namespace {

// The scores after 1100 positions, two whole blocks of a prefill and a part, fed `at_a_time` positions a call.
std::vector<float> prefill(const Model &model, Products &products, int64_t at_a_time) {
  constexpr int64_t kTokens = 1100;
  const AbortFlag abort{false};
  const int64_t hidden = model.config().decoder.hidden;
  auto x = test::Random(3).normals(static_cast<size_t>(kTokens * hidden));
  std::vector<float> out(static_cast<size_t>(model.config().decoder.vocab));
  Decoder decoder(model, products);
  for (int64_t at = 0; at < kTokens; at += at_a_time)
    decoder.forward(x.data() + at * hidden, std::min(at_a_time, kTokens - at), out.data(), abort);
  CHECK_EQ(decoder.length(), kTokens);
  return out;
}

}  // namespace

TEST(a_prefill_in_blocks_is_one_pass) {
  ThreadPool pool(2);
  for (const DType type : {DType::F16, DType::Q4_0}) {
    ModelSpec spec;
    spec.head_dim = 24;
    spec.type = type;
    const test::TempFile file(test::build_model(spec).bytes);
    for (const Kernels *k : test::kernel_sets()) {
      const auto model = Model::open(file.path(), *k, pool);
      Products products(*k, pool);
      const auto blocks = prefill(*model, products, 1100);
      // Sums in another order differ in the last bit. Half-precision keys and int8 inputs round some of those apart.
      // A matrix unit is used for many tokens at once only, with inputs of its own.
      const double tolerance = k->tile_tokens == 0 ? 1e-5 : type == DType::F16 && k->wide_tokens == 0 ? 2e-3 : 0.02;
      for (const int64_t at_a_time : {50, 513}) {
        const double error = test::relative_rms(prefill(*model, products, at_a_time), blocks);
        if (!(error <= tolerance))
          test::failed(__FILE__, __LINE__,
                       std::string(k->name) + ", " + std::to_string(at_a_time) + " at a time: " + test::shown(error));
      }
    }
  }
}

// What follows a long audio is the same for a decoder that took it in one go and for one that was cut back and fed
// again.
TEST(truncated_positions_are_forgotten) {
  const test::TempFile file(test::build_model({}).bytes);
  ThreadPool pool(2);
  const Kernels &k = choose_kernels("auto");
  const auto model = Model::open(file.path(), k, pool);
  Products products(k, pool);
  const AbortFlag abort{false};
  const int64_t hidden = model->config().decoder.hidden, vocab = model->config().decoder.vocab;
  test::Random random(4);
  const auto x = random.normals(static_cast<size_t>(200 * hidden));
  std::vector<float> a(static_cast<size_t>(vocab)), b(a.size());
  Decoder fresh(*model, products), reused(*model, products);
  auto input = x;
  fresh.forward(input.data(), 100, a.data(), abort);
  input = x;
  reused.forward(input.data(), 60, b.data(), abort);
  auto other = random.normals(static_cast<size_t>(140 * hidden));
  reused.forward(other.data(), 140, b.data(), abort);
  reused.truncate(60);
  reused.release();
  reused.shrink_cache(60);
  reused.forward(input.data() + 60 * hidden, 40, b.data(), abort);
  CHECK(test::relative_rms(b, a) < 5e-3);
}

TEST(an_aborted_prefill_leaves_the_decoder_as_it_was) {
  const test::TempFile file(test::build_model({}).bytes);
  ThreadPool pool(1);
  const Kernels &k = choose_kernels("auto");
  const auto model = Model::open(file.path(), k, pool);
  Products products(k, pool);
  AbortFlag abort{false};
  Decoder decoder(*model, products);
  const int64_t hidden = model->config().decoder.hidden;
  auto x = test::Random(5).normals(static_cast<size_t>(600 * hidden));
  decoder.forward(x.data(), 10, nullptr, abort);
  abort = true;
  bool aborted = false;
  try {
    decoder.forward(x.data(), 600, nullptr, abort);
  } catch (const Aborted &) {
    aborted = true;
  }
  CHECK(aborted);
  CHECK_EQ(decoder.length(), 10);
}

TEST_MAIN
