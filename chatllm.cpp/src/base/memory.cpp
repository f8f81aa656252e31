#include "base/memory.h"

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

void trim_heap() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

}  // namespace chatllm
