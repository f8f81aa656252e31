// The thread pool: every task once, whatever the number of threads, asleep or awake.
#include "base/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <numeric>

#include "check.h"

#if defined(_WIN32)
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#include <windows.h>
#endif

using namespace chatllm;

namespace {

void check_region(ThreadPool &pool, int64_t tasks) {
  std::vector<std::atomic<int>> done(static_cast<size_t>(tasks));
  std::atomic<int> bad_threads{0};
  pool.run(tasks, [&](int64_t task, int thread) {
    ++done[static_cast<size_t>(task)];
    if (thread < 0 || thread >= pool.size()) ++bad_threads;
  });
  int wrong = 0;
  for (const auto &count : done) wrong += count != 1;
  CHECK_EQ(wrong, 0);
  CHECK_EQ(bad_threads.load(), 0);
}

// Processor time of all threads of the process; clock() is the time on the wall on Windows.
double processor_seconds() {
#if defined(_WIN32)
  FILETIME created, ended, kernel, user;
  GetProcessTimes(GetCurrentProcess(), &created, &ended, &kernel, &user);
  return (kernel.dwLowDateTime + user.dwLowDateTime) * 1e-7;
#else
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
#endif
}

}  // namespace

TEST(every_task_runs_once) {
  for (const int threads : {0, 1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK_EQ(pool.size(), std::max(threads, 1));
    for (const int64_t tasks : {0, 1, 2, 3, 7, 100, 5000}) check_region(pool, tasks);
  }
}

TEST(no_two_tasks_share_a_thread_number_at_a_time) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> inside(4);
  std::atomic<int> collisions{0};
  pool.run(2000, [&](int64_t, int thread) {
    if (++inside[static_cast<size_t>(thread)] != 1) ++collisions;
    --inside[static_cast<size_t>(thread)];
  });
  CHECK_EQ(collisions.load(), 0);
}

TEST(results_are_visible_after_the_region) {
  ThreadPool pool(3);
  std::vector<int64_t> data(1000);
  for (int round = 1; round <= test::repetitions(2000, 50000); ++round) {
    pool.run(1000 / 50, [&](int64_t task, int) {
      for (int64_t i = task * 50; i < task * 50 + 50; ++i) data[static_cast<size_t>(i)] = round * i;  // plain memory
    });
    if (std::accumulate(data.begin(), data.end(), int64_t{0}) != int64_t{round} * 999 * 500)
      return test::failed(__FILE__, __LINE__, "a lost write");
  }
}

TEST(more_threads_than_cpus) {
  ThreadPool pool(usable_cpus() * 4 + 3);
  for (int i = 0; i < test::repetitions(50, 500); ++i) check_region(pool, 64);
}

TEST(regions_after_sleep) {
  ThreadPool pool(3);
  for (int i = 0; i < test::repetitions(20, 300); ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(i % 2 ? 3000 : 150 + 10 * i));  // around the end of spinning
    check_region(pool, 16);
  }
}

TEST(pools_come_and_go) {
  for (int i = 0; i < test::repetitions(100, 2000); ++i) {
    ThreadPool pool(1 + i % 5);
    if (i % 3 != 0) check_region(pool, i % 7);
  }
}

TEST(pools_side_by_side) {
  std::vector<std::thread> users;
  std::atomic<int64_t> total{0};
  for (int u = 0; u < 4; ++u)
    users.emplace_back([&] {
      ThreadPool pool(2);
      for (int i = 0; i < 200; ++i) pool.run(10, [&](int64_t task, int) { total += task; });
    });
  for (auto &user : users) user.join();
  CHECK_EQ(total.load(), int64_t{4 * 200 * 45});
}

TEST(idle_pools_use_no_cpu) {
  ThreadPool pool(4);
  check_region(pool, 100);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const double before = processor_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  CHECK(processor_seconds() - before < 0.03);
}

TEST_MAIN
