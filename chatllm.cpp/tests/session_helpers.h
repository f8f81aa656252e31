// A session on a model file, and what it recognizes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "asr/session.h"
#include "synthetic_model.h"

namespace test {

inline std::unique_ptr<chatllm::Session> open_session(const std::string &path, const std::string &kernels = "auto",
                                                      int threads = 1) {
  chatllm::SessionSettings settings;
  settings.model_path = path;
  settings.kernels = kernels;
  settings.threads = threads;
  return std::make_unique<chatllm::Session>(settings);
}

// The ids of `count` tokens, whatever they are.
inline std::vector<int32_t> recognize(chatllm::Session &session, const std::vector<float> &pcm, int64_t count) {
  chatllm::RunSettings settings;
  settings.max_new_tokens = count;
  settings.ignore_stop = true;
  std::vector<int32_t> ids;
  session.run(pcm.data(), static_cast<int64_t>(pcm.size()), settings,
              [&](const chatllm_asr_token &token) { ids.push_back(token.id); });
  return ids;
}

inline double relative_rms(const std::vector<float> &a, const std::vector<float> &b) {
  double error = 0, size = 0;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    error += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    size += static_cast<double>(b[i]) * b[i];
  }
  return a.size() == b.size() ? std::sqrt(error / size) : INFINITY;
}

}  // namespace test
