// Fuzz target: the words of chatllm_append_param, separated by zeros, and how an aligner's answer is told.
#include "base/error.h"
#include "capi/alignment.h"
#include "capi/options.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::vector<std::string> words(1);
  for (size_t i = 0; i < size; ++i) {
    if (data[i] == 0)
      words.emplace_back();
    else
      words.back() += static_cast<char>(data[i]);
  }
  try {
    const chatllm::Options options = chatllm::Options::parse(words);
    EXPECT(!options.recognizer.model_path.empty());
    EXPECT(options.recognizer.batch >= 1 && options.recognizer.threads >= 0);
    const chatllm::Alignment alignment(words.back(), options);
    std::vector<double> times;
    for (size_t i = 0; i < 2 * alignment.units().size(); ++i) times.push_back(static_cast<double>(i) * 80);
    alignment.told(times, 1000);
  } catch (const chatllm::Error &e) {
    fuzz::sentence(e.what());
  }
  return 0;
}
