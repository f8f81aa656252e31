/* leaking_libchatllm.c - the fake library with planted defects, chosen by environment variables, to test that the leak
 * laboratory finds them. It takes any file as a model.
 *   FAKE_LEAK_RUN N       bytes lost in each run          FAKE_LEAK_DESTROY N  bytes lost in each destroy
 *   FAKE_LEAK_FILES N     descriptors lost in each run    FAKE_ONCE N          bytes lost once, in run FAKE_ONCE_AT
 * (12) FAKE_ABORT_DESTROY    abort in destroy                FAKE_ABORT_EXIT      abort when the process ends FAKE_HANG
 * N           the Nth run does not end
 */
#include <fcntl.h>
#include <unistd.h>

#define chatllm_start fake_start
#define chatllm_user_input fake_user_input
#define chatllm_destroy fake_destroy
#include "fake_libchatllm.c"
#undef chatllm_start
#undef chatllm_user_input
#undef chatllm_destroy

static int runs;
static void *volatile lost; /* volatile: else the compiler drops an allocation that nobody reads */

static long setting(const char *name) {
  const char *value = getenv(name);
  return value != NULL ? atol(value) : 0;
}

static void lose(long bytes) {
  if (bytes <= 0) return;
  lost = malloc(bytes);
  if (lost == NULL) abort();
  memset(lost, 1, bytes);
}

static void die(void) {
  abort();
}

int chatllm_start(struct chatllm_obj *obj, f_chatllm_print print, f_chatllm_end end, void *user_data) {
  obj->print = print, obj->end = end, obj->user_data = user_data;
  obj->steps = 3;
  printf("the library writes to standard output\n");
  if (getenv("FAKE_ABORT_EXIT") != NULL && runs == 0) atexit(die);
  return 0;
}

int chatllm_user_input(struct chatllm_obj *obj, const char *input) {
  runs++;
  lose(setting("FAKE_LEAK_RUN"));
  if (runs == (getenv("FAKE_ONCE_AT") != NULL ? setting("FAKE_ONCE_AT") : 12)) lose(setting("FAKE_ONCE"));
  for (long i = 0; i < setting("FAKE_LEAK_FILES"); i++)
    if (open("/dev/null", O_RDONLY) < 0) abort();
  while (runs == setting("FAKE_HANG")) sleep(1);
  return fake_user_input(obj, input);
}

int chatllm_destroy(struct chatllm_obj *obj) {
  lose(setting("FAKE_LEAK_DESTROY"));
  if (getenv("FAKE_ABORT_DESTROY") != NULL) {
    fprintf(stderr, "double free or corruption\n");
    abort();
  }
  return fake_destroy(obj);
}
