// NEON, as every 64-bit ARM has it. The dot product's file is compiled for it by target attributes.
#if defined(__aarch64__)

#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nn/kernels.h"

#define CHATLLM_DOT 0

namespace chatllm {
namespace {

#include "nn/neon.inl"

}  // namespace

extern const Kernels kNeonKernels = {
    "neon",   kTile,      pack_int8, pack_float,    multiply,  0,          nullptr,    nullptr,     nullptr,
    sgemm,    layer_norm, rms_norm,  silu_mul,      gelu,      softmax,    max_of,     sum_exp,     sizeof(uint16_t),
    kv_store, kv_load,    kv_scores, kv_accumulate, peak_int8, peak_float, peak_float, read_memory,
};

}  // namespace chatllm

#endif
