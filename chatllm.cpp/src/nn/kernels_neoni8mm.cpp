// NEON with the int8 matrix product (FEAT_I8MM): two rows times two tokens of eight inputs in one instruction.
#include "nn/kernels.h"

#if CHATLLM_NEON_I8MM

#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod,i8mm"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod+i8mm")
#endif
#define CHATLLM_DOT 1
#define CHATLLM_I8MM 1

namespace chatllm {
namespace {

#include "nn/neon.inl"

}  // namespace

extern const Kernels kNeonI8mmKernels = vector_kernels("neoni8mm");

}  // namespace chatllm

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

#endif
