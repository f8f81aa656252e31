// A pool for short parallel regions: workers spin briefly between regions, then sleep. The caller takes part.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace chatllm {

// CPUs this process may use: affinity mask and container limit (cgroup quota) taken into account.
int usable_cpus();
// As many threads as wanted (0: the usable CPUs), at most 256.
int thread_count(int wanted);

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // throws std::system_error when a thread cannot be made
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }
  // How many parallel regions there were.
  uint64_t regions() const { return region_.load(std::memory_order_relaxed); }

  // Calls f(task, thread) once for each task in [0, tasks), thread in [0, size()); returns when all are done. Tasks
  // must not throw, and must not call run. Each thread begins with its own stretch of neighbouring tasks, the same
  // in each region of as many tasks, and takes others' when it has none left.
  template <class F>
  void run(int64_t tasks, F &&f) {
    if (tasks <= 0) return;
    if (tasks == 1 || workers_.empty()) {
      for (int64_t i = 0; i < tasks; ++i) f(i, 0);
      return;
    }
    dispatch(tasks, [](void *context, int64_t task, int thread) { (*static_cast<F *>(context))(task, thread); }, &f);
  }

 private:
  using Call = void (*)(void *context, int64_t task, int thread);

  // The tasks [begin, end) that are left of a thread's stretch, with the number of the region that they belong to.
  // Whoever meets a stretch of an older region first, its owner or a thief, sets it up.
  struct alignas(64) Stretch {
    std::atomic<uint64_t> word{0};
  };
  // The region that a worker is in, or looks at whether it is still open; 0: none. Each has its line, so that coming
  // and leaving cost nothing that grows with the number of threads.
  struct alignas(64) Presence {
    std::atomic<uint64_t> region{0};
  };

  void dispatch(int64_t tasks, Call call, const void *context);
  void work(int thread);
  void take_tasks(uint64_t region, int thread);
  int64_t take(uint64_t region, int owner, bool first);  // -1: none is left

  // One line of the cache each: no thread's spinning slows another's counting.
  alignas(64) std::atomic<uint64_t> region_{0};  // number of the region that was opened last
  alignas(64) std::atomic<uint64_t> closed_{0};  // number of the region that was closed last
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  int64_t tasks_ = 0;
  Call call_ = nullptr;
  void *context_ = nullptr;
  std::vector<Stretch> stretches_;
  std::vector<Presence> presences_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace chatllm
