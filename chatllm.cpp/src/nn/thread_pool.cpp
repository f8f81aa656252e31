#include "nn/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace chatllm {

namespace {

inline void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
  asm volatile("yield");
#endif
}

#if defined(__linux__)
// CPUs that the container's quota is worth, rounded up; 0 when there is none.
int cgroup_cpus() {
  long long quota = 0, period = 0;
  if (FILE *file = std::fopen("/sys/fs/cgroup/cpu.max", "re")) {  // cgroup 2: "max 100000" or "200000 100000"
    if (std::fscanf(file, "%lld %lld", &quota, &period) != 2) quota = 0;
    std::fclose(file);
  } else if (FILE *v1 = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re")) {
    if (std::fscanf(v1, "%lld", &quota) != 1) quota = 0;
    std::fclose(v1);
    if (FILE *file2 = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re")) {
      if (std::fscanf(file2, "%lld", &period) != 1) period = 0;
      std::fclose(file2);
    }
  }
  if (quota <= 0 || period <= 0) return 0;
  return static_cast<int>(std::min<long long>((quota + period - 1) / period, 1 << 16));
}
#endif

}  // namespace

int usable_cpus() {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cpus = CPU_COUNT(&set);
  const int limit = cgroup_cpus();
  if (limit > 0) cpus = std::min(cpus, limit);
#endif
  return std::max(cpus, 1);
}

int thread_count(int wanted) {
  return std::min(wanted > 0 ? wanted : usable_cpus(), 256);
}

ThreadPool::ThreadPool(int threads) {
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back(&ThreadPool::work, this, i);
  } catch (...) {
    stop_ = true;
    region_.fetch_add(1);
    {
      std::lock_guard<std::mutex> lock(mutex_);
    }
    wake_.notify_all();
    for (auto &worker : workers_) worker.join();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  region_.fetch_add(1);
  {
    std::lock_guard<std::mutex> lock(mutex_);
  }
  wake_.notify_all();
  for (auto &worker : workers_) worker.join();
}

void ThreadPool::dispatch(int64_t tasks, Call call, const void *context) {
  tasks_ = tasks;
  call_ = call;
  context_ = const_cast<void *>(context);
  next_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  region_.fetch_add(1);  // sequentially consistent: a worker either sees it or is counted among the sleepers
  if (sleepers_.load() > 0) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
    }
    wake_.notify_all();
  }
  take_tasks(0);
  for (int spins = 0; busy_.load(std::memory_order_acquire) > 0; ++spins) {
    relax();
    if (spins > 2000) std::this_thread::yield();  // more threads than CPUs: let the worker run
  }
}

void ThreadPool::take_tasks(int thread) {
  for (int64_t task; (task = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) call_(context_, task, thread);
}

void ThreadPool::work(int thread) {
  constexpr auto kSpin = std::chrono::microseconds(200);  // longer than the serial stretch between two products
  uint64_t seen = 0;
  for (;;) {
    uint64_t now;
    const auto limit = std::chrono::steady_clock::now() + kSpin;
    for (int spins = 0; (now = region_.load(std::memory_order_acquire)) == seen; ++spins) {
      relax();
      if (spins % 64 == 63 && std::chrono::steady_clock::now() > limit) {
        std::unique_lock<std::mutex> lock(mutex_);
        sleepers_.fetch_add(1);
        wake_.wait(lock, [&] { return region_.load() != seen; });
        sleepers_.fetch_sub(1);
      }
    }
    seen = now;
    if (stop_) return;
    take_tasks(thread);
    busy_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace chatllm
