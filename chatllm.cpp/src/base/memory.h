// Memory that goes back to the system at once when it is freed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace chatllm {

// Zeroed pages straight from the system, on huge pages where it has them.
class Pages {
 public:
  Pages() = default;
  explicit Pages(size_t bytes);  // throws std::bad_alloc
  ~Pages() { reset(); }
  Pages(Pages &&o) noexcept : data_(o.data_), size_(o.size_) { o.data_ = nullptr, o.size_ = 0; }
  Pages &operator=(Pages &&o) noexcept;
  void reset() noexcept;
  uint8_t *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t *data_ = nullptr;
  size_t size_ = 0;
};

// Memory for intermediate results: aligned for vectors, not initialized, grows and never shrinks by itself. Large
// blocks are pages of the system's: freed, they are gone, where an allocator would keep some of them in the arena of a
// thread.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t count) { reserve(count); }
  ~Buffer() { release(); }
  Buffer(Buffer &&o) noexcept { swap(o); }
  Buffer &operator=(Buffer &&o) noexcept {
    swap(o);
    return *this;
  }

  // Room for `count` elements; what was in it is lost when it grows. Throws std::bad_alloc.
  T *reserve(size_t count) {
    if (count > capacity_) {
      release();
      if (count > SIZE_MAX / sizeof(T)) throw std::bad_alloc();
      const size_t bytes = count * sizeof(T);
      if (bytes >= kLarge) {
        pages_ = Pages(bytes);
        data_ = reinterpret_cast<T *>(pages_.data());
      } else {
        data_ = static_cast<T *>(::operator new(bytes, kAlign));
      }
      capacity_ = count;
    }
    return data_;
  }
  // The same, but keeps the first `kept` elements.
  T *grow(size_t count, size_t kept) {
    if (count > capacity_) {
      Buffer larger(std::max(count, capacity_ + capacity_ / 2));
      std::copy_n(data_, kept, larger.data_);
      swap(larger);
    }
    return data_;
  }
  void release() noexcept {
    if (pages_.data() != nullptr)
      pages_.reset();
    else if (data_ != nullptr)
      ::operator delete(data_, kAlign);
    data_ = nullptr, capacity_ = 0;
  }
  T *data() { return data_; }
  const T *data() const { return data_; }
  size_t capacity() const { return capacity_; }

 private:
  static constexpr std::align_val_t kAlign{64};
  static constexpr size_t kLarge = size_t{1} << 17;

  void swap(Buffer &o) noexcept {
    std::swap(data_, o.data_);
    std::swap(capacity_, o.capacity_);
    std::swap(pages_, o.pages_);
  }

  T *data_ = nullptr;
  size_t capacity_ = 0;
  Pages pages_;
};

// Bytes that the process may still take without making the system short of memory; INT64_MAX where it cannot be told.
int64_t available_memory();

// Asks the allocator to give free memory back to the system.
void trim_heap();

}  // namespace chatllm
