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

std::vector<float> encode(test::Session &session, const std::vector<float> &pcm, bool full = false) {
  int64_t shape[2];
  return session.encode(pcm.data(), static_cast<int64_t>(pcm.size()), full, shape);
}

std::vector<float> logits(test::Session &session, const std::vector<float> &pcm) {
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

// The embeddings of some positions, from a list of rows.
Decoder::Embed rows_of(const std::vector<float> &x, int64_t hidden) {
  return [&x, hidden](int64_t first, int64_t count, float *out) {
    for (int64_t i = 0; i < count; ++i)
      std::copy_n(x.data() + (first + i) * hidden, hidden, out + i * row_stride(hidden));
  };
}

// The scores after the last of these positions, fed `at_a_time` in a prefill.
std::vector<float> prefill(const Model &model, Products &products, const std::vector<float> &x, int64_t at_a_time) {
  const int64_t hidden = model.config().decoder.hidden, count = static_cast<int64_t>(x.size()) / hidden;
  std::vector<float> out(static_cast<size_t>(model.config().decoder.vocab));
  Decoder decoder(model, products);
  Sequence sequence = decoder.sequence();
  for (int64_t at = 0; at < count; at += at_a_time) {
    const std::vector<PositionKey> keys(static_cast<size_t>(std::min(at + at_a_time, count)));
    decoder.begin_prefill(sequence, keys, rows_of(x, hidden), {static_cast<int64_t>(keys.size()) - 1}, out.data());
    while (!decoder.advance_prefill()) {
    }
  }
  CHECK_EQ(sequence.length(), count);
  return out;
}

std::vector<float> inputs(const Model &model, int64_t count, uint64_t seed) {
  return test::Random(seed).normals(static_cast<size_t>(count * model.config().decoder.hidden));
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
      const auto x = inputs(*model, 1100, 3);
      const auto blocks = prefill(*model, products, x, 1100);
      // The same bits; but a matrix unit is used for many tokens at once only, with inputs of its own.
      const double tolerance = k->wide_floats.tokens == 0 ? 0 : 0.02;
      for (const int64_t at_a_time : {7, 50, 513}) {
        const double error = test::relative_rms(prefill(*model, products, x, at_a_time), blocks);
        if (!(error <= tolerance))
          test::failed(__FILE__, __LINE__,
                       std::string(k->name) + ", " + std::to_string(at_a_time) + " at a time: " + test::shown(error));
      }
    }
  }
}

namespace {

// Positions [first, first + count) of these inputs in one step: their scores.
std::vector<float> step(Decoder &decoder, const Model &model, std::vector<Sequence *> sequences,
                        const std::vector<const std::vector<float> *> &inputs, const std::vector<int64_t> &counts) {
  const int64_t hidden = model.config().decoder.hidden, vocab = model.config().decoder.vocab;
  const std::vector<PositionKey> keys(Decoder::kMostRows);
  std::vector<float> x(static_cast<size_t>(Decoder::kMostRows * row_stride(hidden)));
  std::vector<Rows> rows;
  int64_t row = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    for (int64_t i = 0; i < counts[s]; ++i, ++row)
      std::copy_n(inputs[s]->data() + (sequences[s]->length() + i) * hidden, hidden,
                  x.data() + row * row_stride(hidden));
    rows.push_back({sequences[s], keys.data(), counts[s]});
  }
  std::vector<float> scores(static_cast<size_t>(row * vocab));
  decoder.step(x.data(), rows, scores.data());
  return scores;
}

}  // namespace

// A row's scores are the same bits alone, among rows of other sequences and among rows of its own.
TEST(a_row_of_a_step_has_the_same_bits_whatever_stands_beside_it) {
  ThreadPool pool(3);
  for (const DType type : {DType::F32, DType::F16, DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::Q4_K}) {
    const test::TempFile file(test::build_model(odd_sizes(type)).bytes);
    for (const Kernels *k : test::kernel_sets()) {
      const auto model = Model::open(file.path(), *k, pool);
      Products products(*k, pool);
      Decoder decoder(*model, products);
      constexpr int64_t kSteps = 12;
      const int64_t vocab = model->config().decoder.vocab, lengths[] = {5, 63, 64, 1, 130, 17, 90, 33};
      std::vector<std::vector<float>> x;
      std::vector<std::vector<float>> alone(8);
      for (size_t s = 0; s < 8; ++s) x.push_back(inputs(*model, lengths[s] + kSteps, s));
      std::vector<float> unused(static_cast<size_t>(vocab));
      auto prefilled = [&](size_t s) {
        Sequence sequence = decoder.sequence();
        const std::vector<PositionKey> keys(static_cast<size_t>(lengths[s]));
        decoder.begin_prefill(sequence, keys, rows_of(x[s], model->config().decoder.hidden), {}, nullptr);
        while (!decoder.advance_prefill()) {
        }
        return sequence;
      };
      for (size_t s = 0; s < 8; ++s) {
        Sequence sequence = prefilled(s);
        for (int64_t i = 0; i < kSteps; ++i) {
          const auto scores = step(decoder, *model, {&sequence}, {&x[s]}, {1});
          alone[s].insert(alone[s].end(), scores.begin(), scores.end());
        }
      }
      // All eight together, and each as a draft of several rows at a time.
      std::vector<Sequence> together;
      std::vector<Sequence *> pointers;
      std::vector<const std::vector<float> *> sources;
      for (size_t s = 0; s < 8; ++s) together.push_back(prefilled(s));
      for (size_t s = 0; s < 8; ++s) pointers.push_back(&together[s]), sources.push_back(&x[s]);
      int wrong = 0;
      for (int64_t i = 0; i < kSteps; i += 2) {
        const auto scores = step(decoder, *model, pointers, sources, std::vector<int64_t>(8, 2));
        for (size_t s = 0; s < 8; ++s)
          wrong += !std::equal(scores.begin() + static_cast<std::ptrdiff_t>(s) * 2 * vocab,
                               scores.begin() + static_cast<std::ptrdiff_t>(s + 1) * 2 * vocab,
                               alone[s].begin() + i * vocab);
      }
      for (size_t s = 0; s < 8; ++s) {
        Sequence sequence = prefilled(s);
        wrong += step(decoder, *model, {&sequence}, {&x[s]}, {kSteps}) != alone[s];
      }
      if (wrong != 0)
        test::failed(__FILE__, __LINE__,
                     std::string(k->name) + ", " + type_name(type) + ": " + std::to_string(wrong) + " differ");
    }
  }
}

// Scores of several positions of a prefill are those of shorter ones; what the prefill reads is not what a step does.
TEST(the_last_positions_of_a_prefill_have_scores) {
  const test::TempFile file(test::build_model({}).bytes);
  ThreadPool pool(2);
  for (const Kernels *k : test::kernel_sets()) {
    const auto model = Model::open(file.path(), *k, pool);
    Products products(*k, pool);
    const int64_t hidden = model->config().decoder.hidden, vocab = model->config().decoder.vocab;
    constexpr int64_t kScored = 40, kCount = 520;  // more rows than a step has, and more positions than a block
    const auto x = inputs(*model, kCount, 9);
    std::vector<float> scores(static_cast<size_t>(kScored * vocab));
    Decoder decoder(*model, products);
    Sequence sequence = decoder.sequence();
    const std::vector<PositionKey> keys(kCount);
    std::vector<int64_t> positions;
    for (int64_t i = kCount - kScored; i < kCount; ++i) positions.push_back(i);
    decoder.begin_prefill(sequence, keys, rows_of(x, hidden), positions, scores.data());
    while (!decoder.advance_prefill()) {
    }
    for (const int64_t last : {int64_t{1}, int64_t{17}, kScored}) {
      const std::vector<float> part(x.begin(), x.begin() + (kCount - kScored + last) * hidden);
      const std::vector<float> row(scores.begin() + (last - 1) * vocab, scores.begin() + last * vocab);
      CHECK(test::relative_rms(prefill(*model, products, part, kCount), row) <=
            (k->wide_floats.tokens == 0 ? 0 : 0.02));
    }
  }
}

// What follows a long audio is the same for a decoder that took it in one go and for one that was cut back and fed
// again.
TEST(truncated_positions_are_forgotten) {
  const test::TempFile file(test::build_model({}).bytes);
  ThreadPool pool(2);
  for (const Kernels *k : test::kernel_sets()) {
    const auto model = Model::open(file.path(), *k, pool);
    Products products(*k, pool);
    const int64_t hidden = model->config().decoder.hidden;
    const auto x = inputs(*model, 100, 4);
    auto y = inputs(*model, 200, 5);
    std::copy_n(x.begin(), 60 * hidden, y.begin());
    std::vector<float> out(static_cast<size_t>(model->config().decoder.vocab));
    Decoder decoder(*model, products);
    Sequence sequence = decoder.sequence();
    auto feed = [&](const std::vector<float> &rows) {
      const std::vector<PositionKey> keys(rows.size() / static_cast<size_t>(hidden));
      decoder.begin_prefill(sequence, keys, rows_of(rows, hidden), {static_cast<int64_t>(keys.size()) - 1}, out.data());
      while (!decoder.advance_prefill()) {
      }
    };
    feed(y);
    sequence.truncate(60);
    decoder.release();
    sequence.shrink(60);
    feed(x);
    CHECK(test::relative_rms(out, prefill(*model, products, x, 100)) <= (k->wide_floats.tokens == 0 ? 0 : 0.02));
  }
}

TEST_MAIN
