// platform.h - the operating system behind the shim: clock, process, shared libraries, threads with a large stack.
//
// The only file of the shim that knows POSIX from Windows.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <new>

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <process.h>
#include <windows.h>
#else
#include <dlfcn.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#endif

namespace platform {

#ifdef _WIN32

inline int64_t now_ns() {
  LARGE_INTEGER count, frequency;
  QueryPerformanceCounter(&count);
  QueryPerformanceFrequency(&frequency);
  const int64_t seconds = count.QuadPart / frequency.QuadPart, rest = count.QuadPart % frequency.QuadPart;
  return seconds * 1000000000 + rest * 1000000000 / frequency.QuadPart;
}

inline int64_t process() {
  return _getpid();
}

inline void *open_library(const char *utf8_path, char *message, size_t capacity) {
  wchar_t wide[MAX_PATH * 4];
  HMODULE library = nullptr;
  if (MultiByteToWideChar(CP_UTF8, 0, utf8_path, -1, wide, static_cast<int>(sizeof wide / sizeof *wide)) > 0)
    library = LoadLibraryW(wide);
  if (library == nullptr)
    std::snprintf(message, capacity, "error %lu of LoadLibrary", static_cast<unsigned long>(GetLastError()));
  return static_cast<void *>(library);
}
inline void *library_symbol(void *library, const char *name) {
  return reinterpret_cast<void *>(GetProcAddress(static_cast<HMODULE>(library), name));
}
inline void close_library(void *library) {
  FreeLibrary(static_cast<HMODULE>(library));
}

inline void release_memory() {}

#else

inline int64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec;
}

inline int64_t process() {
  return getpid();
}

inline void *open_library(const char *utf8_path, char *message, size_t capacity) {
  void *library = dlopen(utf8_path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) std::snprintf(message, capacity, "%s", dlerror());
  return library;
}
inline void *library_symbol(void *library, const char *name) {
  return dlsym(library, name);
}
inline void close_library(void *library) {
  dlclose(library);
}

// Gives the allocator's free pages back to the system, so that a closed model leaves nothing behind.
inline void release_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

#endif

// A thread with a stack of 8 MB: std::thread cannot ask for one, and musl's default of 128 KiB is too little for
// foreign engines.
class BigThread {
 public:
  BigThread() = default;
  BigThread(const BigThread &) = delete;
  BigThread &operator=(const BigThread &) = delete;

  bool running() const { return running_; }

  // False when there is no memory for it.
  bool start(std::function<void()> body) {
    auto *work = new (std::nothrow) std::function<void()>(std::move(body));
    if (work == nullptr) return false;
#ifdef _WIN32
    thread_ = reinterpret_cast<HANDLE>(_beginthreadex(nullptr, kStack, &BigThread::main, work, 0, nullptr));
    running_ = thread_ != nullptr;
#else
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, kStack);
    running_ = pthread_create(&thread_, &attributes, &BigThread::main, work) == 0;
    pthread_attr_destroy(&attributes);
#endif
    if (!running_) delete work;
    return running_;
  }

  void join() {
    if (!running_) return;
    running_ = false;
#ifdef _WIN32
    WaitForSingleObject(thread_, INFINITE);
    CloseHandle(thread_);
#else
    pthread_join(thread_, nullptr);
#endif
  }

 private:
  static constexpr unsigned kStack = 8u << 20;

#ifdef _WIN32
  static unsigned __stdcall main(void *opaque) {
    run(opaque);
    return 0;
  }
  HANDLE thread_ = nullptr;
#else
  static void *main(void *opaque) {
    run(opaque);
    return nullptr;
  }
  pthread_t thread_{};
#endif
  static void run(void *opaque) {
    auto *work = static_cast<std::function<void()> *>(opaque);
    (*work)();
    delete work;
  }

  bool running_ = false;
};

}  // namespace platform
