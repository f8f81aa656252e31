// NEON, as every 64-bit ARM has it. The dot product's file is compiled for it by target attributes.
#if defined(__aarch64__)

#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nn/kernels.h"

#define CHATLLM_DOT 0
#define CHATLLM_I8MM 0

namespace chatllm {
namespace {

#include "nn/neon.inl"

}  // namespace

extern const Kernels kNeonKernels = vector_kernels("neon");

}  // namespace chatllm

#endif
