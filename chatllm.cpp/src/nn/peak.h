// What the machine can do: rates of the instructions that the kernels are made of, and of reading memory.
#pragma once

#include "base/thread_pool.h"
#include "nn/kernels.h"

namespace chatllm {

// Operations per second of the calling thread: int8 dot products (a multiply and an add are two operations) and float32
// multiply-adds, in registers only, with the widest form that the kernel set uses.
double peak_int8(const Kernels &kernels);
double peak_bf16(const Kernels &kernels);  // on the matrix unit; where there is none, as peak_float
double peak_float(const Kernels &kernels);

struct Roofline {
  double int8_ops, bf16_ops, float_ops, read_bytes;  // per second, all threads together
};
// Takes about half a second and 256 MB.
Roofline measure_roofline(const Kernels &kernels, ThreadPool &pool);

}  // namespace chatllm
