// A file that is read by position. Not a map: a file that another process cuts off would end this one there.
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
  bool operator==(const FileIdentity &o) const { return !(*this < o) && !(o < *this); }
};

class InputFile {
 public:
  // Throws Error (BAD_MODEL) with the reason; `what` is what its sentences call the file.
  explicit InputFile(const std::string &path, const char *what = "model file");
  ~InputFile();
  InputFile(const InputFile &) = delete;
  InputFile &operator=(const InputFile &) = delete;

  size_t size() const { return identity_.size; }
  const std::string &path() const { return path_; }
  const FileIdentity &identity() const { return identity_; }
  // From any thread. False when there are not so many bytes, or the system cannot read them.
  bool try_read(size_t at, void *to, size_t bytes) const noexcept;
  // Throws Error (BAD_MODEL).
  void read(size_t at, void *to, size_t bytes) const;
  // Throws Error (BAD_MODEL) when the file is another than the one that was opened.
  void check_unchanged() const;
  [[noreturn]] void fail_to_read() const;
  // The range will be read soon.
  void will_need(size_t at, size_t bytes) const noexcept;

 private:
  const std::string path_;
  const char *const what_;
  FileIdentity identity_;
#if defined(_WIN32)
  void *file_ = nullptr;
#else
  int file_ = -1;
#endif
};

}  // namespace chatllm
