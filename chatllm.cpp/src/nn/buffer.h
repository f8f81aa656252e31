// Memory for intermediate results: aligned for vectors, not initialized, grows and never shrinks by itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace chatllm {

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t count) { reserve(count); }
  ~Buffer() { release(); }
  Buffer(Buffer &&o) noexcept : data_(o.data_), capacity_(o.capacity_) { o.data_ = nullptr, o.capacity_ = 0; }
  Buffer &operator=(Buffer &&o) noexcept {
    std::swap(data_, o.data_);
    std::swap(capacity_, o.capacity_);
    return *this;
  }

  // Room for `count` elements; what was in it is lost when it grows. Throws std::bad_alloc.
  T *reserve(size_t count) {
    if (count > capacity_) {
      release();
      if (count > SIZE_MAX / sizeof(T)) throw std::bad_alloc();
      data_ = static_cast<T *>(::operator new(count * sizeof(T), kAlign));
      capacity_ = count;
    }
    return data_;
  }
  void release() noexcept {
    if (data_ != nullptr) ::operator delete(data_, kAlign);
    data_ = nullptr, capacity_ = 0;
  }
  T *data() { return data_; }
  const T *data() const { return data_; }
  size_t capacity() const { return capacity_; }

 private:
  static constexpr std::align_val_t kAlign{64};
  T *data_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace chatllm
