/* _platform.h - the operating system behind the shim: threads, one lock with a condition, the clock, shared libraries.
 *
 * The only file of the shim that knows POSIX from Windows.
 */
#ifndef QWEN3ASR_PLATFORM_H
#define QWEN3ASR_PLATFORM_H

#include <stdint.h>

#ifdef _WIN32

#define WIN32_LEAN_AND_MEAN
#include <process.h>
#include <stdlib.h>
#include <windows.h>

typedef SRWLOCK pf_mutex;
typedef CONDITION_VARIABLE pf_cond;
typedef HANDLE pf_thread;

static inline int pf_sync_init(pf_mutex *mutex, pf_cond *cond) {
  InitializeSRWLock(mutex);
  InitializeConditionVariable(cond);
  return 0;
}
static inline void pf_sync_destroy(pf_mutex *mutex, pf_cond *cond) {
  (void)mutex;
  (void)cond;
}
static inline void pf_lock(pf_mutex *mutex) {
  AcquireSRWLockExclusive(mutex);
}
static inline void pf_unlock(pf_mutex *mutex) {
  ReleaseSRWLockExclusive(mutex);
}
static inline void pf_broadcast(pf_cond *cond) {
  WakeAllConditionVariable(cond);
}

static inline int64_t pf_now_ns(void) {
  LARGE_INTEGER count, frequency;
  QueryPerformanceCounter(&count);
  QueryPerformanceFrequency(&frequency);
  int64_t seconds = count.QuadPart / frequency.QuadPart;
  int64_t rest = count.QuadPart % frequency.QuadPart;
  return seconds * 1000000000 + rest * 1000000000 / frequency.QuadPart;
}

/* Waits until the condition is signalled or the clock passes deadline_ns. */
static inline void pf_wait_until(pf_cond *cond, pf_mutex *mutex, int64_t deadline_ns) {
  int64_t left = deadline_ns - pf_now_ns();
  if (left > 0) SleepConditionVariableSRW(cond, mutex, (DWORD)(left / 1000000 + 1), 0);
}

typedef struct {
  void (*entry)(void *);
  void *argument;
} pf_thread_start;

static inline unsigned __stdcall pf_thread_main(void *opaque) {
  pf_thread_start start = *(pf_thread_start *)opaque;
  free(opaque);
  start.entry(start.argument);
  return 0;
}
static inline int pf_thread_create(pf_thread *thread, void (*entry)(void *), void *argument) {
  pf_thread_start *start = (pf_thread_start *)malloc(sizeof *start);
  if (start == NULL) return -1;
  start->entry = entry;
  start->argument = argument;
  *thread = (HANDLE)_beginthreadex(NULL, 0, pf_thread_main, start, 0, NULL);
  if (*thread == NULL) free(start);
  return *thread == NULL ? -1 : 0;
}
static inline void pf_thread_join(pf_thread thread) {
  WaitForSingleObject(thread, INFINITE);
  CloseHandle(thread);
}

static inline void *pf_library_open(const char *utf8_path, char *message, size_t capacity) {
  wchar_t wide[MAX_PATH * 4];
  HMODULE library = NULL;
  if (MultiByteToWideChar(CP_UTF8, 0, utf8_path, -1, wide, (int)(sizeof wide / sizeof *wide)) > 0)
    library = LoadLibraryW(wide);
  if (library == NULL) snprintf(message, capacity, "error %lu of LoadLibrary", (unsigned long)GetLastError());
  return (void *)library;
}
static inline void *pf_library_symbol(void *library, const char *name) {
  return (void *)GetProcAddress((HMODULE)library, name);
}
static inline void pf_library_close(void *library) {
  FreeLibrary((HMODULE)library);
}

static inline void pf_release_memory(void) {}

#else /* POSIX */

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <time.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

typedef pthread_mutex_t pf_mutex;
typedef pthread_cond_t pf_cond;
typedef pthread_t pf_thread;

static inline int pf_sync_init(pf_mutex *mutex, pf_cond *cond) {
  if (pthread_mutex_init(mutex, NULL) != 0) return -1;
#if defined(__APPLE__)
  int failed = pthread_cond_init(cond, NULL);
#else
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  int failed = pthread_cond_init(cond, &attributes);
  pthread_condattr_destroy(&attributes);
#endif
  if (failed) pthread_mutex_destroy(mutex);
  return failed ? -1 : 0;
}
static inline void pf_sync_destroy(pf_mutex *mutex, pf_cond *cond) {
  pthread_cond_destroy(cond);
  pthread_mutex_destroy(mutex);
}
static inline void pf_lock(pf_mutex *mutex) {
  pthread_mutex_lock(mutex);
}
static inline void pf_unlock(pf_mutex *mutex) {
  pthread_mutex_unlock(mutex);
}
static inline void pf_broadcast(pf_cond *cond) {
  pthread_cond_broadcast(cond);
}

static inline int64_t pf_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Waits until the condition is signalled or the clock passes deadline_ns. */
static inline void pf_wait_until(pf_cond *cond, pf_mutex *mutex, int64_t deadline_ns) {
#if defined(__APPLE__)
  int64_t left = deadline_ns - pf_now_ns();
  if (left <= 0) return;
  struct timespec interval = {(time_t)(left / 1000000000), (long)(left % 1000000000)};
  pthread_cond_timedwait_relative_np(cond, mutex, &interval);
#else
  struct timespec deadline = {(time_t)(deadline_ns / 1000000000), (long)(deadline_ns % 1000000000)};
  pthread_cond_timedwait(cond, mutex, &deadline);
#endif
}

typedef struct {
  void (*entry)(void *);
  void *argument;
} pf_thread_start;

static inline void *pf_thread_main(void *opaque) {
  pf_thread_start start = *(pf_thread_start *)opaque;
  free(opaque);
  start.entry(start.argument);
  return NULL;
}
static inline int pf_thread_create(pf_thread *thread, void (*entry)(void *), void *argument) {
  pf_thread_start *start = (pf_thread_start *)malloc(sizeof *start);
  if (start == NULL) return -1;
  start->entry = entry;
  start->argument = argument;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 8 << 20); /* musl's default of 128 KiB is too little for foreign engines */
  int failed = pthread_create(thread, &attributes, pf_thread_main, start);
  pthread_attr_destroy(&attributes);
  if (failed) free(start);
  return failed ? -1 : 0;
}
static inline void pf_thread_join(pf_thread thread) {
  pthread_join(thread, NULL);
}

static inline void *pf_library_open(const char *utf8_path, char *message, size_t capacity) {
  void *library = dlopen(utf8_path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) snprintf(message, capacity, "%s", dlerror());
  return library;
}
static inline void *pf_library_symbol(void *library, const char *name) {
  return dlsym(library, name);
}
static inline void pf_library_close(void *library) {
  dlclose(library);
}

/* Gives the allocator's free pages back to the system, so that a closed model leaves nothing behind. */
static inline void pf_release_memory(void) {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

#endif

#endif
