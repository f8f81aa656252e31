// The aligner's pass, layer by layer, against the decoder's prefill, block by block.
#include "asr/one_pass.h"

#include "asr/decoder.h"
#include "check.h"
#include "kernel_sets.h"
#include "synthetic_model.h"

using namespace chatllm;

namespace {

double difference(const std::vector<float> &a, const std::vector<float> &b) {
  double off = 0, all = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    off += std::pow(static_cast<double>(a[i]) - b[i], 2);
    all += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(off / all);
}

}  // namespace

TEST(the_scores_are_those_of_a_prefill) {
  test::ModelSpec spec;
  spec.classes = 50;
  spec.layers = 3;
  const test::TempFile file(test::build_model(spec).bytes);
  for (const Kernels *kernels : test::kernel_sets()) {
    ThreadPool pool(2);
    const auto model = Model::open(file.path(), *kernels, pool);
    Products products(*kernels, pool);
    const int64_t hidden = model->config().decoder.hidden, stride = row_stride(hidden), classes = 50;
    for (const int64_t tokens : {1, 15, 512, 513, 1300}) {
      std::vector<int64_t> scored;
      for (int64_t p = 0; p < tokens; ++p)
        if (p % 7 == 3 || p % 7 == 4 || p + 1 == tokens) scored.push_back(p);
      test::Random random(static_cast<uint64_t>(tokens));
      std::vector<float> x(static_cast<size_t>(tokens * stride));
      for (float &value : x) value = random.normal();

      Decoder decoder(*model, products);
      Sequence sequence = decoder.sequence();
      const std::vector<PositionKey> keys(static_cast<size_t>(tokens));
      std::vector<float> expected(scored.size() * static_cast<size_t>(classes)), scores(expected.size());
      auto embed = [&](int64_t first, int64_t count, float *to) {
        std::copy_n(x.data() + first * stride, count * stride, to);
      };
      decoder.begin_prefill(sequence, keys, embed, scored, expected.data());
      while (!decoder.advance_prefill()) {
      }

      OnePass pass(*model, products, x.data(), tokens, scored);
      while (!pass.advance()) {
      }
      const int64_t count = static_cast<int64_t>(scored.size());
      for (int64_t first = 0; first < count; first += 64)
        pass.score(first, std::min<int64_t>(64, count - first), scores.data() + first * classes);
      // In its last layer a prefill lets the rows that get scores attend one by one, with queries that are not rounded.
      const double most = kernels == &kGenericKernels ? 1e-6 : 0.015;
      CHECK(difference(scores, expected) < most);
    }
  }
}

TEST_MAIN
