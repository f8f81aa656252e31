#include "base/input_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
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

InputFile::InputFile(const std::string &path, const char *what) : path_(path), what_(what) {
  const DWORD attributes = GetFileAttributesW(to_wide(path).c_str());
  if (attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0)
    fail(Status::BadModel, format("'%s' is not a regular file", path.c_str()));
  // Nobody may write to it, or remove it, as long as it is open.
  HANDLE file = CreateFileW(to_wide(path).c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr, OPEN_EXISTING,
                            FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) {
    const DWORD code = GetLastError();
    fail(Status::BadModel, format("cannot open %s '%s': %s", what, path.c_str(), reason(code).c_str()));
  }
  BY_HANDLE_FILE_INFORMATION info;
  const bool regular = GetFileType(file) == FILE_TYPE_DISK && GetFileInformationByHandle(file, &info);
  if (regular) {
    identity_.device = info.dwVolumeSerialNumber;
    identity_.inode = (static_cast<uint64_t>(info.nFileIndexHigh) << 32) | info.nFileIndexLow;
    identity_.size = (static_cast<uint64_t>(info.nFileSizeHigh) << 32) | info.nFileSizeLow;
    identity_.modified_ns = static_cast<int64_t>((static_cast<uint64_t>(info.ftLastWriteTime.dwHighDateTime) << 32) |
                                                 info.ftLastWriteTime.dwLowDateTime);
  }
  if (!regular || identity_.size == 0) {
    CloseHandle(file);
    if (!regular) fail(Status::BadModel, format("'%s' is not a regular file", path.c_str()));
    fail(Status::BadModel, format("%s '%s' is empty", what, path.c_str()));
  }
  file_ = file;
}

InputFile::~InputFile() {
  CloseHandle(file_);
}

bool InputFile::try_read(size_t at, void *to, size_t bytes) const noexcept {
  uint8_t *out = static_cast<uint8_t *>(to);
  while (bytes > 0) {
    OVERLAPPED place{};
    place.Offset = static_cast<DWORD>(at & 0xFFFFFFFF);
    place.OffsetHigh = static_cast<DWORD>(static_cast<uint64_t>(at) >> 32);
    DWORD got = 0;
    if (!ReadFile(file_, out, static_cast<DWORD>(std::min<size_t>(bytes, size_t{1} << 30)), &got, &place) || got == 0)
      return false;
    out += got;
    at += got;
    bytes -= got;
  }
  return true;
}

void InputFile::check_unchanged() const {}

void InputFile::will_need(size_t, size_t) const noexcept {}

#else

namespace {

FileIdentity identity_of(const struct stat &st) {
  FileIdentity identity;
  identity.device = static_cast<uint64_t>(st.st_dev);
  identity.inode = static_cast<uint64_t>(st.st_ino);
  identity.size = static_cast<uint64_t>(st.st_size);
#if defined(__APPLE__)
  identity.modified_ns = static_cast<int64_t>(st.st_mtimespec.tv_sec) * 1000000000 + st.st_mtimespec.tv_nsec;
#else
  identity.modified_ns = static_cast<int64_t>(st.st_mtim.tv_sec) * 1000000000 + st.st_mtim.tv_nsec;
#endif
  return identity;
}

}  // namespace

InputFile::InputFile(const std::string &path, const char *what) : path_(path), what_(what) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not block: it is refused below
  if (fd < 0) fail(Status::BadModel, format("cannot open %s '%s': %s", what, path.c_str(), std::strerror(errno)));
  struct stat st;
  const bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
  if (!regular || st.st_size == 0) {
    close(fd);
    if (!regular) fail(Status::BadModel, format("'%s' is not a regular file", path.c_str()));
    fail(Status::BadModel, format("%s '%s' is empty", what, path.c_str()));
  }
  file_ = fd;
  identity_ = identity_of(st);
}

InputFile::~InputFile() {
  close(file_);
}

bool InputFile::try_read(size_t at, void *to, size_t bytes) const noexcept {
  uint8_t *out = static_cast<uint8_t *>(to);
  while (bytes > 0) {
    const ssize_t got = pread(file_, out, std::min<size_t>(bytes, size_t{1} << 30), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    out += got;
    at += static_cast<size_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

void InputFile::check_unchanged() const {
  struct stat st;
  if (fstat(file_, &st) == 0 && identity_of(st) == identity_) return;
  fail(Status::BadModel, format("%s '%s' has changed while it was in use: load it again", what_, path_.c_str()));
}

void InputFile::will_need(size_t at, size_t bytes) const noexcept {
#if defined(POSIX_FADV_WILLNEED)
  posix_fadvise(file_, static_cast<off_t>(at), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);
#else
  (void)at, (void)bytes;
#endif
}

#endif

void InputFile::read(size_t at, void *to, size_t bytes) const {
  if (!try_read(at, to, bytes)) fail_to_read();
}

void InputFile::fail_to_read() const {
  check_unchanged();
  fail(Status::BadModel, format("cannot read %s '%s': its disk or network fails", what_, path_.c_str()));
}

}  // namespace chatllm
