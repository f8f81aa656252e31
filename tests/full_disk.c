/* Loaded before a program: a disk that takes ROOM bytes more, of all regular files together. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long room = -1;

/* How much of n bytes fits. */
static size_t fits(int fd, size_t n) {
  struct stat status;
  if (room < 0) room = getenv("ROOM") != NULL ? atol(getenv("ROOM")) : 0;
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return n;
  if ((size_t)room < n) n = (size_t)room;
  room -= (long)n;
  return n;
}

static ssize_t full(void) {
  errno = ENOSPC;
  return -1;
}

ssize_t write(int fd, const void *data, size_t n) {
  static ssize_t (*real)(int, const void *, size_t);
  if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "write");
  const size_t some = fits(fd, n);
  return some == 0 && n > 0 ? full() : real(fd, data, some);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
  static ssize_t (*real)(int, const void *, size_t, off64_t);
  if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "pwrite64");
  const size_t some = fits(fd, n);
  return some == 0 && n > 0 ? full() : real(fd, data, some, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  static ssize_t (*real)(int, const struct iovec *, int);
  size_t n = 0;
  if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "writev");
  for (int i = 0; i < count; ++i) n += parts[i].iov_len;
  return fits(fd, n) < n ? full() : real(fd, parts, count);
}
