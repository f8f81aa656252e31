#include <cstring>
#include <string>
#include <vector>

#include "model/error.h"
#include "nn/kernels.h"

#if defined(_M_X64) && !defined(__GNUC__)
#include <intrin.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
// The compilers and systems for which kernels_amx.cpp is built.
#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#define CHATLLM_AMX 1
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace chatllm {

namespace {

#if defined(__x86_64__) || defined(_M_X64)

struct CpuFeatures {
  bool avx2 = false, avx512 = false, avx512_vnni = false;
};

#if defined(__GNUC__)
CpuFeatures cpu_features() {  // the builtins ask the operating system for register support too
  __builtin_cpu_init();
  CpuFeatures f;
  f.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  f.avx512 = f.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  f.avx512_vnni = f.avx512 && __builtin_cpu_supports("avx512vnni");
  return f;
}
#else
CpuFeatures cpu_features() {
  int r[4];
  __cpuid(r, 0);
  const int leaves = r[0];
  CpuFeatures f;
  if (leaves < 7) return f;
  __cpuid(r, 1);
  const bool osxsave = r[2] >> 27 & 1, fma = r[2] >> 12 & 1, f16c = r[2] >> 29 & 1;
  const unsigned long long xcr = osxsave ? _xgetbv(0) : 0;
  __cpuidex(r, 7, 0);
  f.avx2 = (xcr & 6) == 6 && fma && f16c && (r[1] >> 5 & 1);
  f.avx512 =
      f.avx2 && (xcr & 0xE6) == 0xE6 && (r[1] >> 16 & 1) && (r[1] >> 17 & 1) && (r[1] >> 30 & 1) && (r[1] >> 31 & 1);
  f.avx512_vnni = f.avx512 && (r[2] >> 11 & 1);
  return f;
}
#endif

#endif

#if defined(CHATLLM_AMX)
// AMX with bfloat16, and the system's leave to use the tiles' registers (asked for once; it lasts for the process).
bool amx_usable() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d >> 22 & 1) == 0 || (d >> 24 & 1) == 0)
    return false;                                                                   // AMX-BF16, AMX-TILE
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || (a >> 5 & 1) == 0) return false;  // AVX512-BF16
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

std::vector<const Kernels *> usable_sets() {
  std::vector<const Kernels *> sets;
#if defined(__x86_64__) || defined(_M_X64)
  const CpuFeatures cpu = cpu_features();
#if defined(CHATLLM_AMX)
  if (cpu.avx512_vnni && amx_usable()) sets.push_back(&kAmxKernels);
#endif
  if (cpu.avx512_vnni) sets.push_back(&kAvx512VnniKernels);
  if (cpu.avx512) sets.push_back(&kAvx512Kernels);
  if (cpu.avx2) sets.push_back(&kAvx2Kernels);
#elif defined(__aarch64__)
#if defined(__linux__)
  constexpr unsigned long kDotProduct = 1 << 20;  // HWCAP_ASIMDDP
  if (getauxval(AT_HWCAP) & kDotProduct) sets.push_back(&kNeonDotKernels);
#elif defined(__APPLE__)
  sets.push_back(&kNeonDotKernels);  // every Mac with an ARM processor
#endif
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
  fail(CHATLLM_ASR_BAD_ARGUMENT,
       format("there is no kernel set '%s' for this CPU: use auto or one of %s", name, kernel_names()));
}

}  // namespace chatllm
