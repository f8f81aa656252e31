#include "base/mapped_file.h"

#include <cerrno>
#include <cstring>
#include <new>
#include <tuple>

#include "base/error.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace chatllm {

bool FileIdentity::operator<(const FileIdentity &o) const {
  return std::tie(device, inode, size, modified_ns) < std::tie(o.device, o.inode, o.size, o.modified_ns);
}

#if defined(_WIN32)

std::wstring to_wide(const std::string &text) {
  const int n = MultiByteToWideChar(CP_UTF8, 0, text.c_str(), -1, nullptr, 0);
  std::wstring wide(n > 0 ? static_cast<size_t>(n) : 1, L'\0');
  if (n > 0) MultiByteToWideChar(CP_UTF8, 0, text.c_str(), -1, &wide[0], n);
  return wide;
}

// In English, as all sentences are: the system's own text comes in the user's language and code page.
std::string reason(DWORD code) {
  if (code == ERROR_FILE_NOT_FOUND || code == ERROR_PATH_NOT_FOUND) return "no such file";
  if (code == ERROR_ACCESS_DENIED) return "permission denied";
  if (code == ERROR_SHARING_VIOLATION) return "another program holds it open";
  return format("Windows error %lu", code);
}

MappedFile::MappedFile(const std::string &path) : path_(path) {
  const DWORD attributes = GetFileAttributesW(to_wide(path).c_str());
  if (attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0)
    fail(Status::BadModel, format("'%s' is not a regular file", path.c_str()));
  HANDLE file = CreateFileW(to_wide(path).c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr, OPEN_EXISTING,
                            FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) {
    const DWORD code = GetLastError();
    fail(Status::BadModel, format("cannot open model file '%s': %s", path.c_str(), reason(code).c_str()));
  }
  BY_HANDLE_FILE_INFORMATION info;
  HANDLE mapping = nullptr;
  const void *view = nullptr;
  const bool regular = GetFileType(file) == FILE_TYPE_DISK && GetFileInformationByHandle(file, &info);
  if (regular) {
    size_ = (static_cast<uint64_t>(info.nFileSizeHigh) << 32) | info.nFileSizeLow;
    identity_.device = info.dwVolumeSerialNumber;
    identity_.inode = (static_cast<uint64_t>(info.nFileIndexHigh) << 32) | info.nFileIndexLow;
    identity_.size = size_;
    identity_.modified_ns = static_cast<int64_t>((static_cast<uint64_t>(info.ftLastWriteTime.dwHighDateTime) << 32) |
                                                 info.ftLastWriteTime.dwLowDateTime);
    if (size_ > 0) mapping = CreateFileMappingW(file, nullptr, PAGE_READONLY, 0, 0, nullptr);
    if (mapping != nullptr) view = MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0);
  }
  if (view == nullptr) {
    const DWORD code = GetLastError();
    if (mapping != nullptr) CloseHandle(mapping);
    CloseHandle(file);
    if (!regular) fail(Status::BadModel, format("'%s' is not a regular file", path.c_str()));
    if (size_ == 0) fail(Status::BadModel, format("model file '%s' is empty", path.c_str()));
    fail(Status::BadModel, format("cannot map model file '%s': %s", path.c_str(), reason(code).c_str()));
  }
  data_ = static_cast<const uint8_t *>(view);
  file_ = file;
  mapping_ = mapping;
}

MappedFile::~MappedFile() {
  UnmapViewOfFile(data_);
  CloseHandle(mapping_);
  CloseHandle(file_);
}

void MappedFile::will_need(const uint8_t *, size_t) const {}
void MappedFile::release(const uint8_t *begin, size_t bytes) const {
  VirtualUnlock(const_cast<uint8_t *>(begin), bytes);  // of pages that are not locked: drops them from the working set
}

#else

MappedFile::MappedFile(const std::string &path) : path_(path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not block: it is refused below
  if (fd < 0) fail(Status::BadModel, format("cannot open model file '%s': %s", path.c_str(), std::strerror(errno)));
  struct stat st;
  void *view = MAP_FAILED;
  const bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
  if (regular && st.st_size > 0) {
    size_ = static_cast<size_t>(st.st_size);
    view = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
  }
  const int code = errno;
  close(fd);
  if (!regular) fail(Status::BadModel, format("'%s' is not a regular file", path.c_str()));
  if (size_ == 0) fail(Status::BadModel, format("model file '%s' is empty", path.c_str()));
  if (view == MAP_FAILED && code == ENOMEM) throw std::bad_alloc();
  if (view == MAP_FAILED)
    fail(Status::BadModel, format("cannot map model file '%s': %s", path.c_str(), std::strerror(code)));
  data_ = static_cast<const uint8_t *>(view);
  identity_.device = static_cast<uint64_t>(st.st_dev);
  identity_.inode = static_cast<uint64_t>(st.st_ino);
  identity_.size = size_;
#if defined(__APPLE__)
  identity_.modified_ns = static_cast<int64_t>(st.st_mtimespec.tv_sec) * 1000000000 + st.st_mtimespec.tv_nsec;
#else
  identity_.modified_ns = static_cast<int64_t>(st.st_mtim.tv_sec) * 1000000000 + st.st_mtim.tv_nsec;
#endif
}

MappedFile::~MappedFile() {
  munmap(const_cast<uint8_t *>(data_), size_);
}

namespace {

// Whole pages inside (inner) or around (outer) a range.
void advise(const uint8_t *begin, size_t bytes, int advice, bool outer) {
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t at = reinterpret_cast<uintptr_t>(begin);
  uintptr_t first = outer ? at / page * page : (at + page - 1) / page * page;
  const uintptr_t last = outer ? at + bytes : (at + bytes) / page * page;
  if (last > first) madvise(reinterpret_cast<void *>(first), last - first, advice);
}

}  // namespace

void MappedFile::will_need(const uint8_t *begin, size_t bytes) const {
  advise(begin, bytes, MADV_WILLNEED, true);
}
void MappedFile::release(const uint8_t *begin, size_t bytes) const {
  advise(begin, bytes, MADV_DONTNEED, false);
}

#endif

}  // namespace chatllm
