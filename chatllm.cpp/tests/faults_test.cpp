// Short memory at every place: each allocation of a load and of what is done with the model fails once, and then with
// all that follow it. Every call says so or works, nothing is left over, and the next load and run are as always.
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "check.h"
#include "fuzz/fuzz.h"

namespace {

std::atomic<int64_t> passed{0};          // allocations since the last arm()
std::atomic<int64_t> first_failing{-1};  // -1: none
std::atomic<bool> all_that_follow{false};
std::atomic<int64_t> blocks{0};  // that are not freed

bool fails() {
  const int64_t number = passed++, first = first_failing;
  return first >= 0 && (number == first || (number > first && all_that_follow));
}

void arm(int64_t first, bool all) {
  passed = 0;
  all_that_follow = all;
  first_failing = first;
}

void *take(size_t bytes, size_t alignment) {
  void *block = fails() ? nullptr : aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
  if (block == nullptr) throw std::bad_alloc();
  ++blocks;
  return block;
}

void give(void *block) noexcept {
  if (block != nullptr) --blocks;
  std::free(block);
}

}  // namespace

void *operator new(size_t bytes) {
  return take(bytes, alignof(std::max_align_t));
}
void *operator new(size_t bytes, std::align_val_t alignment) {
  return take(bytes, static_cast<size_t>(alignment));
}
void operator delete(void *block) noexcept {
  give(block);
}
void operator delete(void *block, size_t) noexcept {
  give(block);
}
void operator delete(void *block, std::align_val_t) noexcept {
  give(block);
}
void operator delete(void *block, size_t, std::align_val_t) noexcept {
  give(block);
}

// The linker puts these in the place of the engine's own calls (--wrap).
extern "C" {
void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes) {
  return fails() ? nullptr : __real_malloc(bytes);
}
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset) {
  if (fails()) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  void *view = __real_mmap(at, bytes, protection, flags, file, offset);
  if (view != MAP_FAILED) ++blocks;
  return view;
}
int __real_munmap(void *at, size_t bytes);
int __wrap_munmap(void *at, size_t bytes) {
  --blocks;
  return __real_munmap(at, bytes);
}
}

namespace {

struct Ending {
  std::atomic<int> count{0}, status{0};
  std::atomic<bool> said{false};
};

void on_event(void *user, const chatllm_asr_event *event) {
  if (event->kind != CHATLLM_ASR_EVENT_END) return;
  Ending *ending = static_cast<Ending *>(user);
  ending->status = event->status;
  ending->said = *event->message != '\0';
  ++ending->count;
}

int failed_calls;

// True when the call worked; else memory was short, and the sentence says so.
bool good(int status, struct chatllm_obj *obj) {
  if (status == CHATLLM_ASR_OK) return true;
  ++failed_calls;
  CHECK_EQ(status, static_cast<int>(CHATLLM_ASR_NO_MEMORY));
  // One sentence, unless not even that one had room.
  const char *said = obj == nullptr ? "" : chatllm_asr_last_error(obj);
  if (*said != '\0' && std::strstr(said, "memory") == nullptr) test::failed(__FILE__, __LINE__, said);
  return false;
}

// A load and every way to use the model; what allocates here does so before the faults. Returns how many calls failed.
int load_and_use(const std::string &model, int64_t first, bool all) {
  static const std::vector<float> pcm = test::sound(0.3);
  static const int64_t samples = static_cast<int64_t>(pcm.size());
  static const std::string tag = "{{audio:" + fuzz::kept_file(fuzz::wav(pcm), ".wav") + "}}a b";
  failed_calls = 0;
  struct chatllm_obj *obj = chatllm_create();
  for (const char *word : {"-n", "1", "--max_new_tokens", "3", "--multimedia_file_tags", "{{", "}}", "-m"})
    chatllm_append_param(obj, word);
  chatllm_append_param(obj, model.c_str());

  const bool aligner = model == fuzz::small_aligner();
  arm(first, all);
  const bool started = good(chatllm_start(obj, nullptr, nullptr, nullptr), obj);
  if (started && aligner) {
    const char *const units[] = {"ab", "\xE4\xBD\xA0"};
    double times[4];
    good(chatllm_asr_align(obj, pcm.data(), samples, units, 2, 0, times), obj);
    good(chatllm_user_input(obj, tag.c_str()), obj);
  } else if (started) {
    good(chatllm_asr_run(obj, pcm.data(), samples, nullptr), obj);
    good(chatllm_user_input(obj, tag.c_str()), obj);
    float *data = nullptr;
    int64_t shape[2];
    if (good(chatllm_asr_log_mel(obj, pcm.data(), samples, &data, shape), obj)) chatllm_asr_free(data);
    data = nullptr;
    if (good(chatllm_asr_prefill_logits(obj, pcm.data(), samples, nullptr, &data, shape), obj)) chatllm_asr_free(data);
    if (chatllm_text_tokenize(obj, "ab \xE4\xBD\xA0") < 0) ++failed_calls;
    Ending endings[2];
    chatllm_asr_run_t *runs[2] = {};
    chatllm_asr_options live{};
    live.size = sizeof live;
    live.max_new_tokens = 2;
    live.live = 1;
    for (int i = 0; i < 2; ++i) {
      runs[i] = chatllm_asr_submit(obj, pcm.data(), samples, i == 0 ? nullptr : &live, on_event, &endings[i]);
      if (runs[i] == nullptr) CHECK_EQ(chatllm_asr_last_status(), static_cast<int>(CHATLLM_ASR_NO_MEMORY));
    }
    if (runs[1] != nullptr && chatllm_asr_feed(runs[1], pcm.data(), samples, 1) != CHATLLM_ASR_OK)
      chatllm_asr_cancel(runs[1]);
    for (int i = 0; i < 2; ++i) {
      if (runs[i] == nullptr) {
        ++failed_calls;
        continue;
      }
      for (int waits = 0; endings[i].count == 0 && waits < 200000; ++waits)
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      CHECK_EQ(endings[i].count.load(), 1);
      if (endings[i].status != CHATLLM_ASR_OK) {
        ++failed_calls;
        CHECK_EQ(endings[i].status.load(), static_cast<int>(CHATLLM_ASR_NO_MEMORY));
        CHECK(endings[i].said);
      }
      chatllm_asr_release(runs[i]);
    }
  }
  CHECK_EQ(chatllm_destroy(obj), static_cast<int>(CHATLLM_ASR_OK));
  first_failing = -1;
  return failed_calls;
}

void fail_everywhere(const std::string &model, bool all) {
  CHECK(chatllm_asr_submit(nullptr, nullptr, 0, nullptr, on_event, nullptr) == nullptr);  // a thread keeps its sentence
  load_and_use(model, 0, true);
  load_and_use(model, -1, false);
  const int64_t total = passed, before = blocks;
  CHECK(total > 500);
  // The first places are the most different ones; the vocabulary's words are all alike.
  const int64_t stride = test::slow() ? 1 : 7;
  int failing = 0;
  for (int64_t at = 0; at < total; at += at < 300 || at > total - 500 ? 1 : stride) {
    failing += load_and_use(model, at, all) > 0;
    CHECK_EQ(load_and_use(model, -1, false), 0);
    CHECK_EQ(blocks.load(), before);
    if (test::counts().failures > 0) {
      std::printf("at allocation %lld of %lld\n", static_cast<long long>(at), static_cast<long long>(total));
      return;
    }
  }
  std::printf("%lld allocations, %d of the injected failures failed a call\n", static_cast<long long>(total), failing);
  CHECK(failing > 100);
}

}  // namespace

TEST(one_allocation_that_fails_is_an_error_and_leaves_nothing) {
  fail_everywhere(fuzz::small_recognizer(), false);
}

TEST(the_same_of_a_forced_aligner) {
  fail_everywhere(fuzz::small_aligner(), false);
}

TEST(all_allocations_that_fail_from_some_point_on_are_errors_and_leave_nothing) {
  fail_everywhere(fuzz::small_recognizer(), true);
}

TEST_MAIN
