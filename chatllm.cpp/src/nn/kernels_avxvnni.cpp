// AVX2 with VNNI's int8 dot product in its 256-bit form: processors without AVX-512, from Alder Lake and Zen 5 on.
#include "nn/kernels.h"

#if CHATLLM_AVX_VNNI

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avxvnni,avx2,fma,f16c"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("avxvnni,avx2,fma,f16c")
#endif
#define CHATLLM_VNNI 1

namespace chatllm {
namespace {

#include "nn/avx2.inl"

}  // namespace

extern const Kernels kAvxVnniKernels = vector_kernels("avxvnni");

}  // namespace chatllm

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

#endif
