/* repeat.c - the C API as a program without Python uses it, again and again, for valgrind and LeakSanitizer.
 *   repeat MODEL recreate|reuse REPETITIONS
 * Prints the number of tokens of all answers.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libchatllm.h"
#include "libchatllm_asr.h"

enum { SAMPLES = 16000 };

static long tokens;

static void on_print(void *user_data, int type, const char *text) {
  (void)user_data;
  if (type == PRINTLN_ERROR) {
    fprintf(stderr, "%s\n", text);
    exit(1);
  }
}

static void on_end(void *user_data) {
  (void)user_data;
}

static void on_token(void *user_data, const chatllm_asr_token *token) {
  (void)user_data;
  (void)token;
  ++tokens;
}

static struct chatllm_obj *load(const char *model) {
  const char *words[] = {"-m", model, "-n", "2"};
  struct chatllm_obj *obj = chatllm_create();
  for (size_t i = 0; i < sizeof words / sizeof *words; ++i) chatllm_append_param(obj, words[i]);
  chatllm_asr_set_token_callback(obj, on_token, NULL);
  if (chatllm_start(obj, on_print, on_end, NULL) != 0) exit(1);
  return obj;
}

static void run(struct chatllm_obj *obj, const float *pcm) {
  chatllm_asr_options options = {.size = sizeof options, .max_new_tokens = 4, .ignore_stop = 1};
  chatllm_restart(obj, NULL);
  if (chatllm_asr_run(obj, pcm, SAMPLES, &options) != 0) {
    fprintf(stderr, "%s\n", chatllm_asr_last_error(obj));
    exit(1);
  }
}

int main(int argc, char **argv) {
  static float pcm[SAMPLES];
  if (argc != 4) return 2;
  for (int i = 0; i < SAMPLES; ++i) pcm[i] = 0.1f * sinf(0.2f * (float)i);
  const int reuse = strcmp(argv[2], "reuse") == 0;
  struct chatllm_obj *obj = reuse ? load(argv[1]) : NULL;
  for (int i = atoi(argv[3]); i > 0; --i) {
    if (!reuse) obj = load(argv[1]);
    run(obj, pcm);
    if (!reuse && chatllm_destroy(obj) != 0) return 1;
  }
  if (reuse && chatllm_destroy(obj) != 0) return 1;
  printf("%ld\n", tokens);
  return 0;
}
