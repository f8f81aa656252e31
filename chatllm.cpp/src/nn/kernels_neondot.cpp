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

namespace chatllm {
namespace {

#include "nn/neon.inl"

}  // namespace

extern const Kernels kNeonDotKernels = {
    "neondot", kTile,      pack_int8, pack_float,    multiply,  0,          nullptr,    nullptr,     nullptr,
    sgemm,     layer_norm, rms_norm,  silu_mul,      gelu,      softmax,    max_of,     sum_exp,     sizeof(uint16_t),
    kv_store,  kv_load,    kv_scores, kv_accumulate, peak_int8, peak_float, peak_float, read_memory,
};

}  // namespace chatllm

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

#endif
