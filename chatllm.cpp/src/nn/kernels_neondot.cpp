// NEON with the int8 dot product (ARMv8.2). The dot product's file is compiled for it by target attributes.
#if defined(__aarch64__)

#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nn/kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#define CHATLLM_DOT 1
#define CHATLLM_I8MM 0

namespace chatllm {
namespace {

#include "nn/neon.inl"

}  // namespace

extern const Kernels kNeonDotKernels = vector_kernels("neondot");

}  // namespace chatllm

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

#endif
