#include "base/thread_pool.h"

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

ThreadPool::ThreadPool(int threads)
    : stretches_(static_cast<size_t>(std::max(threads, 1))), presences_(stretches_.size()) {
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

namespace {

// A stretch in one word: 16 bits of the region's number, 24 of the first task, 24 of the end.
constexpr int kTaskBits = 24;
constexpr uint64_t kTaskMask = (uint64_t{1} << kTaskBits) - 1;

constexpr uint64_t stretch_word(uint64_t region, int64_t begin, int64_t end) {
  return region << 2 * kTaskBits | static_cast<uint64_t>(begin) << kTaskBits | static_cast<uint64_t>(end);
}

}  // namespace

void ThreadPool::dispatch(int64_t tasks, Call call, const void *context) {
  while (tasks > static_cast<int64_t>(kTaskMask)) call(const_cast<void *>(context), --tasks, 0);  // no word holds more
  tasks_ = tasks;
  call_ = call;
  context_ = const_cast<void *>(context);
  // Sequentially consistent: a worker either sees the new region or is counted among the sleepers.
  const uint64_t region = region_.fetch_add(1) + 1;
  if (sleepers_.load() > 0) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
    }
    wake_.notify_all();
  }
  take_tasks(region, 0);
  // A worker that has not come yet has nothing to do here any more: only those inside are waited for.
  closed_.store(region);
  int spins = 0;
  for (const Presence &presence : presences_)
    while (presence.region.load() != 0) {
      relax();
      if (++spins > 2000) std::this_thread::yield();  // more threads than CPUs: let the worker run
    }
}

// The first or the last task of what is left of a stretch.
int64_t ThreadPool::take(uint64_t region, int owner, bool first) {
  std::atomic<uint64_t> &word = stretches_[static_cast<size_t>(owner)].word;
  const int64_t threads = size();
  uint64_t seen = word.load(std::memory_order_relaxed);
  for (;;) {
    int64_t begin = static_cast<int64_t>(seen >> kTaskBits & kTaskMask), end = static_cast<int64_t>(seen & kTaskMask);
    const bool current = seen >> 2 * kTaskBits == (region & 0xFFFF);
    if (!current) begin = owner * tasks_ / threads, end = (owner + 1) * tasks_ / threads;
    const bool any = begin < end;
    if (!any && current) return -1;
    const int64_t task = !any ? -1 : first ? begin++ : --end;
    // Set up even if it has no tasks: a word that stayed old for 65,536 regions would seem to be of this one.
    if (word.compare_exchange_weak(seen, stretch_word(region, begin, end), std::memory_order_relaxed)) return task;
  }
}

void ThreadPool::take_tasks(uint64_t region, int thread) {
  for (int i = 0; i < size(); ++i) {  // its own first, then its neighbours'
    const int owner = (thread + i) % size();
    for (int64_t task; (task = take(region, owner, i == 0)) >= 0;) call_(context_, task, thread);
  }
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
    // Sequentially consistent: either dispatch() sees this worker inside, or this worker sees the region closed.
    std::atomic<uint64_t> &presence = presences_[static_cast<size_t>(thread)].region;
    presence.store(now);
    if (closed_.load() < now) take_tasks(now, thread);
    presence.store(0, std::memory_order_release);
  }
}

}  // namespace chatllm
