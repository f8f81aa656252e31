#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "base/error.h"
#include "nn/kernels.h"

#if defined(__x86_64__) || defined(_M_X64)
#if defined(__GNUC__) || defined(__clang__)
#include <cpuid.h>
#else
#include <intrin.h>
#endif
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#if CHATLLM_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace chatllm {

namespace {

#if defined(__x86_64__) || defined(_M_X64)

struct Registers {
  uint32_t a, b, c, d;
};

// Not the compilers' own feature tests: not every runtime library that they link has what those ask.
#if defined(__GNUC__) || defined(__clang__)
Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  __cpuid_count(leaf, subleaf, r.a, r.b, r.c, r.d);
  return r;
}
uint32_t saved_state() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}
#else
Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  int r[4];
  __cpuidex(r, static_cast<int>(leaf), static_cast<int>(subleaf));
  return {static_cast<uint32_t>(r[0]), static_cast<uint32_t>(r[1]), static_cast<uint32_t>(r[2]),
          static_cast<uint32_t>(r[3])};
}
uint32_t saved_state() {
  return static_cast<uint32_t>(_xgetbv(0));
}
#endif

bool has(uint32_t bits, std::initializer_list<int> wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [bits](int bit) { return bits >> bit & 1; });
}

struct CpuFeatures {
  bool avx2 = false, avx_vnni = false, avx512 = false, avx512_vnni = false, amx = false;
};

// What the CPU has, and the operating system saves when it switches threads.
CpuFeatures cpu_features() {
  CpuFeatures f;
  if (cpuid(0, 0).a < 7) return f;
  const Registers basic = cpuid(1, 0), extended = cpuid(7, 0);
  if (!has(basic.c, {27})) return f;  // OSXSAVE, without which there is nothing to ask
  const uint32_t saved = saved_state();
  f.avx2 = has(saved, {1, 2}) && has(basic.c, {12, 28, 29}) && has(extended.b, {5});  // FMA, AVX, F16C; AVX2
  f.avx_vnni = f.avx2 && has(cpuid(7, 1).a, {4});
#if defined(__APPLE__)
  const bool wide = true;  // macOS begins to save these registers when a thread first uses them
#else
  const bool wide = has(saved, {5, 6, 7});
#endif
  f.avx512 = f.avx2 && wide && has(extended.b, {16, 17, 30, 31});  // F, DQ, BW, VL
  f.avx512_vnni = f.avx512 && has(extended.c, {11});
  if (CHATLLM_EVEX_VNNI) f.avx_vnni = f.avx512_vnni;
  f.amx = f.avx512_vnni && has(extended.d, {22, 24, 25}) && has(cpuid(7, 1).a, {5});  // AMX-BF16, -TILE, -INT8; BF16
  return f;
}

#endif

#if CHATLLM_AMX
// The system's leave to use the tiles' registers; asked for once, it lasts for the process.
bool tiles_allowed() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

std::vector<const Kernels *> usable_sets() {
  std::vector<const Kernels *> sets;
#if defined(__x86_64__) || defined(_M_X64)
  const CpuFeatures cpu = cpu_features();
#if CHATLLM_AMX
  if (cpu.amx && tiles_allowed()) sets.push_back(&kAmxKernels);
#endif
  if (cpu.avx512_vnni) sets.push_back(&kAvx512VnniKernels);
#if CHATLLM_AVX_VNNI
  if (cpu.avx_vnni) sets.push_back(&kAvxVnniKernels);
#endif
  if (cpu.avx512) sets.push_back(&kAvx512Kernels);
  if (cpu.avx2) sets.push_back(&kAvx2Kernels);
#elif defined(__aarch64__)
#if defined(__linux__)
  constexpr unsigned long kDotProduct = 1 << 20, kMatrixProduct = 1 << 13;  // HWCAP_ASIMDDP, HWCAP2_I8MM
  const bool dot = getauxval(AT_HWCAP) & kDotProduct, matrix = dot && getauxval(AT_HWCAP2) & kMatrixProduct;
#elif defined(__APPLE__)
  int value = 0;
  size_t size = sizeof value;
  const bool dot = true;  // every Mac with an ARM processor
  const bool matrix = sysctlbyname("hw.optional.arm.FEAT_I8MM", &value, &size, nullptr, 0) == 0 && value != 0;
#else
  const bool dot = false, matrix = false;
#endif
#if CHATLLM_NEON_I8MM
  if (matrix) sets.push_back(&kNeonI8mmKernels);
#else
  (void)matrix;
#endif
  if (dot) sets.push_back(&kNeonDotKernels);
  sets.push_back(&kNeonKernels);
#endif
  sets.push_back(&kGenericKernels);
  return sets;
}

}  // namespace

const char *kernel_names() {
  static const std::string *const names = [] {  // never destroyed: may be asked for while the process ends
    auto *text = new std::string;
    for (const Kernels *set : usable_sets()) *text += (text->empty() ? "" : ",") + std::string(set->name);
    return text;
  }();
  return names->c_str();
}

const Kernels &choose_kernels(const char *name) {
  const auto sets = usable_sets();
  if (name == nullptr || *name == '\0' || std::strcmp(name, "auto") == 0) return *sets.front();
  for (const Kernels *set : sets)
    if (std::strcmp(set->name, name) == 0) return *set;
  fail(Status::BadArgument,
       format("there is no kernel set '%s' for this CPU: use auto or one of %s", name, kernel_names()));
}

}  // namespace chatllm
