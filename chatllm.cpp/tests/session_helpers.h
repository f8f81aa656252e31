// A recognizer on a model file with a conversation, and what it recognizes.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "asr/session.h"
#include "synthetic_model.h"

namespace test {

// One model and one conversation.
class Session : public chatllm::Session {
 public:
  explicit Session(const chatllm::RecognizerSettings &settings)
      : Session(std::make_unique<chatllm::Recognizer>(settings)) {}

  chatllm::Recognizer &recognizer() { return *recognizer_; }
  const chatllm::Model &model() const { return recognizer_->model(); }
  std::vector<float> log_mel(const float *pcm, int64_t samples, int64_t shape[2]) {
    return recognizer_->log_mel(pcm, samples, shape);
  }
  std::vector<float> encode(const float *pcm, int64_t samples, bool full_attention, int64_t shape[2]) {
    return recognizer_->encode(pcm, samples, full_attention, shape, abort_flag());
  }
  std::vector<float> prefill_logits(const float *pcm, int64_t samples, const chatllm::RunSettings &settings,
                                    int64_t shape[2]) {
    return recognizer_->prefill_logits(pcm, samples, settings, shape, abort_flag());
  }
  std::vector<int32_t> prompt_ids(int64_t samples, const chatllm::RunSettings &settings) const {
    return recognizer_->prompt_ids(samples, settings);
  }

 private:
  explicit Session(std::unique_ptr<chatllm::Recognizer> recognizer)
      : chatllm::Session(*recognizer), recognizer_(std::move(recognizer)) {}
  std::unique_ptr<chatllm::Recognizer> recognizer_;
};

inline chatllm::RecognizerSettings settings_for(const std::string &path, const std::string &kernels = "auto",
                                                int threads = 1) {
  chatllm::RecognizerSettings settings;
  settings.model_path = path;
  settings.kernels = kernels;
  settings.threads = threads;
  return settings;
}

inline std::unique_ptr<Session> open_session(const std::string &path, const std::string &kernels = "auto",
                                             int threads = 1) {
  return std::make_unique<Session>(settings_for(path, kernels, threads));
}

// The ids of `count` tokens, whatever they are.
inline std::vector<int32_t> recognize(chatllm::Session &session, const std::vector<float> &pcm, int64_t count) {
  chatllm::RunSettings settings;
  settings.max_new_tokens = count;
  settings.ignore_stop = true;
  std::vector<int32_t> ids;
  session.run(pcm.data(), static_cast<int64_t>(pcm.size()), settings,
              [&](const chatllm::Token &token) { ids.push_back(token.id); });
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
