// The kernel sets that this CPU can run.
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "nn/kernels.h"

namespace test {

inline std::vector<const chatllm::Kernels *> kernel_sets() {
  std::vector<const chatllm::Kernels *> sets;
  std::istringstream names(chatllm::kernel_names());
  for (std::string name; std::getline(names, name, ',');) sets.push_back(&chatllm::choose_kernels(name.c_str()));
  return sets;
}

}  // namespace test
