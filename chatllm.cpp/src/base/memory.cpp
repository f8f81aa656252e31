#include "base/memory.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <sys/mman.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace chatllm {

#if defined(_WIN32)

Pages::Pages(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  data_ = static_cast<uint8_t *>(VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE));
  if (data_ == nullptr) throw std::bad_alloc();
}

void Pages::reset() noexcept {
  if (data_ != nullptr) VirtualFree(data_, 0, MEM_RELEASE);
  data_ = nullptr, size_ = 0;
}

#else

Pages::Pages(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  void *view = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (view == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  constexpr size_t kHuge = size_t{2} << 20;
  if (bytes >= 2 * kHuge) madvise(view, bytes, MADV_HUGEPAGE);
#endif
  data_ = static_cast<uint8_t *>(view);
}

void Pages::reset() noexcept {
  if (data_ != nullptr) munmap(data_, size_);
  data_ = nullptr, size_ = 0;
}

#endif

Pages &Pages::operator=(Pages &&o) noexcept {
  if (this != &o) {
    reset();
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
  }
  return *this;
}

#if defined(__linux__)

namespace {

// The number after `key` in a file of lines, or the whole file's number for no key; -1 when there is none.
int64_t number_in(const char *path, const char *key) {
  FILE *file = std::fopen(path, "re");
  if (file == nullptr) return -1;
  char line[256];
  long long value = -1;
  while (value < 0 && std::fgets(line, sizeof line, file) != nullptr)
    if (std::strncmp(line, key, std::strlen(key)) == 0 && std::sscanf(line + std::strlen(key), "%lld", &value) != 1)
      value = -1;
  std::fclose(file);
  return value;
}

}  // namespace

int64_t available_memory() {
  const int64_t kilobytes = number_in("/proc/meminfo", "MemAvailable:");
  int64_t available = kilobytes < 0 ? INT64_MAX : kilobytes * 1024;
  const int64_t limit = number_in("/sys/fs/cgroup/memory.max", ""),
                used = number_in("/sys/fs/cgroup/memory.current", "");
  if (limit >= 0 && used >= 0) available = std::min(available, std::max<int64_t>(limit - used, 0));
  return available;
}

#else

int64_t available_memory() {
  return INT64_MAX;
}

#endif

void trim_heap() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

}  // namespace chatllm
