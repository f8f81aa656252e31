// A model in words: the only place that writes a model's JSON.
#pragma once

#include <string>

#include "model/config.h"

namespace chatllm {

// What runs it.
struct Engine {
  const char *kernels;
  int threads;
  int64_t context_length;
};

// A model file, from its header and its metadata.
std::string describe_file(const GgmmFile &file);
// A loaded model.
std::string describe_model(const GgmmFile &file, const Config &config, const Engine &engine);
// The line that chatllm.cpp prints of a loaded model.
std::string describe_for_chatllm(const GgmmFile &file, const Config &config);

}  // namespace chatllm
