// A file mapped read-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace chatllm {

#if defined(_WIN32)
std::wstring to_wide(const std::string &text);  // from UTF-8
#endif

// What makes two paths the same file: the weight cache's key.
struct FileIdentity {
  uint64_t device = 0, inode = 0, size = 0;
  int64_t modified_ns = 0;
  bool operator<(const FileIdentity &o) const;
};

class MappedFile {
 public:
  explicit MappedFile(const std::string &path);  // throws Error (BAD_MODEL) with the reason
  ~MappedFile();
  MappedFile(const MappedFile &) = delete;
  MappedFile &operator=(const MappedFile &) = delete;

  const uint8_t *data() const { return data_; }
  size_t size() const { return size_; }
  const std::string &path() const { return path_; }
  const FileIdentity &identity() const { return identity_; }
  // The range will be read front to back soon / is not needed for now: its pages leave the resident set.
  void will_need(const uint8_t *begin, size_t bytes) const;
  void release(const uint8_t *begin, size_t bytes) const;

 private:
  std::string path_;
  const uint8_t *data_ = nullptr;
  size_t size_ = 0;
  FileIdentity identity_;
#if defined(_WIN32)
  void *file_ = nullptr, *mapping_ = nullptr;
#endif
};

}  // namespace chatllm
