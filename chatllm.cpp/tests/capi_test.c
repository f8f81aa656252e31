/* The C API as a C program uses it: the shared library and its two headers, nothing else of the engine.
 *   capi_test MODEL ALIGNER [ROUNDS]
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libchatllm.h"
#include "libchatllm_asr.h"
#include "sanitizers.h"

static int failures;
static const char *model_path, *aligner_path;
static char wav_path[] = "/tmp/chatllm-capi-XXXXXX";

#define CHECK(condition)                                     \
  do {                                                       \
    if (!(condition)) {                                      \
      ++failures;                                            \
      printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
    }                                                        \
  } while (0)

/* What the callbacks of an object saw. */
struct seen {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int chunks, metas, errors, infos, ids, completed, ended, other;
  char text[4096], error[1024], info[1024], id_line[1024];
  struct chatllm_obj *obj;
  int abort_at;       /* chat chunk from which on the callback aborts */
  int chain;          /* asynchronous calls still to be made from the completion event */
  int destroy_at_end; /* destroy the object in the completion event */
  int polled;         /* another thread starts the next call as soon as one has ended */
  int calls_inside;   /* try calls on the busy object from the callback */
  int hold;           /* chat chunks wait until it is 0 again */
};

static void seen_init(struct seen *s) {
  memset(s, 0, sizeof *s);
  pthread_mutex_init(&s->mutex, NULL);
  pthread_cond_init(&s->changed, NULL);
}

static void on_print(void *user_data, int type, const char *text) {
  struct seen *s = user_data;
  pthread_mutex_lock(&s->mutex);
  switch (type) {
    case PRINT_CHAT_CHUNK:
      ++s->chunks;
      if (strlen(s->text) + strlen(text) < sizeof s->text) strcat(s->text, text);
      break;
    case PRINTLN_META:
      ++s->metas;
      break;
    case PRINTLN_ERROR:
      ++s->errors;
      snprintf(s->error, sizeof s->error, "%s", text);
      break;
    case PRINTLN_MODEL_INFO:
      ++s->infos;
      snprintf(s->info, sizeof s->info, "%s", text);
      break;
    case PRINTLN_TOKEN_IDS:
      ++s->ids;
      snprintf(s->id_line, sizeof s->id_line, "%s", text);
      break;
    case PRINT_EVT_ASYNC_COMPLETED:
      break;
    default:
      ++s->other;
  }
  const int chunks = s->chunks;
  while (type == PRINT_CHAT_CHUNK && s->hold) pthread_cond_wait(&s->changed, &s->mutex);
  pthread_mutex_unlock(&s->mutex);

  if (type == PRINT_CHAT_CHUNK && s->abort_at > 0 && chunks >= s->abort_at) chatllm_abort_generation(s->obj);
  if (type == PRINT_CHAT_CHUNK && s->calls_inside) {
    s->calls_inside = 0;
    CHECK(chatllm_user_input(s->obj, "x") == CHATLLM_ASR_BUSY);
    CHECK(chatllm_async_user_input(s->obj, "x") == CHATLLM_ASR_BUSY);
    CHECK(chatllm_destroy(s->obj) != 0);
    CHECK(chatllm_start(s->obj, on_print, NULL, s) == CHATLLM_ASR_BUSY);
    CHECK(chatllm_get_cursor(s->obj) == -1);
    chatllm_restart(s->obj, NULL);
    chatllm_append_param(s->obj, "--nonsense");
  }
  if (type == PRINT_EVT_ASYNC_COMPLETED) {
    CHECK(s->polled || chatllm_get_async_result_int(s->obj) != INT_MIN);
    if (s->chain > 0) {
      --s->chain;
      CHECK(chatllm_async_user_input_multimedia_msg(s->obj) == 0); /* fails later: the message is gone */
    }
    if (s->destroy_at_end) CHECK(chatllm_destroy(s->obj) == 0);
    pthread_mutex_lock(&s->mutex);
    ++s->completed;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
  }
}

static void on_end(void *user_data) {
  struct seen *s = user_data;
  pthread_mutex_lock(&s->mutex);
  ++s->ended;
  pthread_mutex_unlock(&s->mutex);
}

static void wait_completed(struct seen *s, int count) {
  struct timespec limit;
  clock_gettime(CLOCK_REALTIME, &limit);
  limit.tv_sec += 120;
  pthread_mutex_lock(&s->mutex);
  while (s->completed < count)
    if (pthread_cond_timedwait(&s->changed, &s->mutex, &limit) != 0) break;
  CHECK(s->completed == count);
  pthread_mutex_unlock(&s->mutex);
}

static void nap_ms(int ms) {
  const struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
  nanosleep(&t, NULL);
}

static float *make_sound(int64_t samples) {
  float *pcm = malloc((size_t)samples * sizeof *pcm);
  if (pcm == NULL) exit(1);
  for (int64_t i = 0; i < samples; ++i) {
    const double t = (double)i / 16000;
    pcm[i] = (float)(0.2 * sin(900 * t + 20 * sin(5 * t)) + 0.1 * sin(3000 * t) * sin(11 * t));
  }
  return pcm;
}

/* A 16-bit WAV file in memory. */
static unsigned char *make_wav(int64_t samples, size_t *size) {
  float *pcm = make_sound(samples);
  *size = 44 + (size_t)samples * 2;
  unsigned char *wav = calloc(1, *size);
  if (wav == NULL) exit(1);
  const uint32_t riff = (uint32_t)*size - 8, sixteen = 16, rate = 16000, bytes_a_second = 32000, data = riff - 36;
  const uint16_t one = 1, two = 2, bits = 16;
  memcpy(wav, "RIFF", 4), memcpy(wav + 4, &riff, 4), memcpy(wav + 8, "WAVEfmt ", 8), memcpy(wav + 16, &sixteen, 4);
  memcpy(wav + 20, &one, 2), memcpy(wav + 22, &one, 2), memcpy(wav + 24, &rate, 4),
      memcpy(wav + 28, &bytes_a_second, 4);
  memcpy(wav + 32, &two, 2), memcpy(wav + 34, &bits, 2), memcpy(wav + 36, "data", 4), memcpy(wav + 40, &data, 4);
  for (int64_t i = 0; i < samples; ++i) {
    const int16_t value = (int16_t)lrintf(pcm[i] * 32767);
    memcpy(wav + 44 + 2 * i, &value, 2);
  }
  free(pcm);
  return wav;
}

static char *base64(const unsigned char *data, size_t size) {
  static const char kLetters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  char *text = malloc(size / 3 * 4 + 5), *out = text;
  if (text == NULL) exit(1);
  for (size_t i = 0; i < size; i += 3) {
    const unsigned v =
        (unsigned)data[i] << 16 | (i + 1 < size ? (unsigned)data[i + 1] << 8 : 0) | (i + 2 < size ? data[i + 2] : 0);
    *out++ = kLetters[v >> 18];
    *out++ = kLetters[v >> 12 & 63];
    *out++ = i + 1 < size ? kLetters[v >> 6 & 63] : '=';
    *out++ = i + 2 < size ? kLetters[v & 63] : '=';
  }
  *out = '\0';
  return text;
}

static struct chatllm_obj *create(struct seen *s) {
  struct chatllm_obj *obj = chatllm_create();
  if (obj == NULL) exit(1);
  s->obj = obj;
  static const char *const words[] = {"-n", "2", "--multimedia_file_tags", "{{", "}}", "--max_new_tokens", "12", "-m"};
  for (size_t i = 0; i < sizeof words / sizeof *words; ++i) chatllm_append_param(obj, words[i]);
  chatllm_append_param(obj, model_path);
  return obj;
}

static struct chatllm_obj *started(struct seen *s) {
  seen_init(s);
  struct chatllm_obj *obj = create(s);
  CHECK(chatllm_start(obj, on_print, on_end, s) == 0);
  CHECK(s->infos == 1 && s->errors == 0);
  return obj;
}

static void tag(char *out, size_t size) {
  snprintf(out, size, "please {{audio:%s}} now", wav_path);
}

/* Every function that the headers declare is found by name. */
static void test_symbols(void) {
  static const char *const headers[] = {CHATLLM_INCLUDE "/libchatllm.h", CHATLLM_INCLUDE "/libchatllm_asr.h"};
  static const int least[] = {40, 12};
  for (int h = 0; h < 2; ++h) {
    FILE *file = fopen(headers[h], "r");
    CHECK(file != NULL);
    if (file == NULL) return;
    char line[512];
    int found = 0;
    while (fgets(line, sizeof line, file) != NULL) {
      char name[128];
      const char *at = strstr(line, "API_CALL chatllm_");
      if (at == NULL || strncmp(line, "DLL_DECL", 8) != 0 || sscanf(at + 9, "%127[a-z0-9_]", name) != 1) continue;
      ++found;
      if (dlsym(RTLD_DEFAULT, name) == NULL) {
        ++failures;
        printf("the library lacks %s\n", name);
      }
    }
    fclose(file);
    CHECK(found >= least[h]);
  }
}

static void test_ways_of_giving_audio(void) {
  struct seen s;
  struct chatllm_obj *obj = started(&s);
  CHECK(strstr(s.info, "\"purpose\": \"ASR\"") != NULL);
  char text[256];
  tag(text, sizeof text);
  CHECK(chatllm_user_input(obj, text) == 0);
  CHECK(s.ended == 1 && s.chunks > 0 && s.errors == 0);
  CHECK(chatllm_get_cursor(obj) > 20);
  char expected[sizeof s.text];
  strcpy(expected, s.text);
  CHECK(strlen(expected) > 0);

  s.text[0] = '\0';
  size_t size;
  unsigned char *wav = make_wav(24000, &size);
  char *code = base64(wav, size);
  chatllm_multimedia_msg_prepare(obj);
  CHECK(chatllm_multimedia_msg_append(obj, "text", "please") == 0);
  CHECK(chatllm_multimedia_msg_append(obj, "audio", code) == 0);
  CHECK(chatllm_user_input_multimedia_msg(obj) == 0);
  CHECK(strcmp(s.text, expected) == 0 && s.ended == 2);

  s.text[0] = '\0';
  CHECK(chatllm_async_user_input(obj, text) == 0);
  wait_completed(&s, 1);
  CHECK(chatllm_get_async_result_int(obj) == 0);
  CHECK(strcmp(s.text, expected) == 0 && s.ended == 3);

  s.text[0] = '\0';
  chatllm_multimedia_msg_prepare(obj);
  CHECK(chatllm_multimedia_msg_append(obj, "audio", code) == 0);
  CHECK(chatllm_async_user_input_multimedia_msg(obj) == 0);
  wait_completed(&s, 2);
  CHECK(strcmp(s.text, expected) == 0);

  s.text[0] = '\0';
  chatllm_restart(obj, NULL);
  CHECK(chatllm_get_cursor(obj) == 0);
  CHECK(chatllm_user_input(obj, text) == 0);
  CHECK(strcmp(s.text, expected) == 0);

  /* Half of the answer, then the other half. */
  s.text[0] = '\0';
  chatllm_set_gen_max_tokens(obj, 5);
  CHECK(chatllm_user_input(obj, text) == 0);
  CHECK(strlen(s.text) < strlen(expected));
  chatllm_set_gen_max_tokens(obj, 7);
  CHECK(chatllm_ai_continue(obj, "") == 0);
  chatllm_set_gen_max_tokens(obj, 4);
  CHECK(chatllm_async_ai_continue(obj, " and") == 0);
  wait_completed(&s, 3);
  CHECK(chatllm_get_async_result_int(obj) == 0);

  CHECK(chatllm_set_ai_prefix(obj, "language English<asr_text>") == 0);
  CHECK(chatllm_user_input(obj, text) == 0);
  CHECK(chatllm_set_ai_prefix(obj, "") == 0);
  CHECK(chatllm_set_cursor(obj, 3) == 0);
  CHECK(chatllm_get_cursor(obj) == 3);
  CHECK(s.errors == 0);
  CHECK(chatllm_set_cursor(obj, 1000000) != 0);
  CHECK(s.errors == 1);
  chatllm_show_statistics(obj);
  CHECK(s.metas > 0);

  /* What is wrong is said once and the object works on. */
  s.errors = 0;
  CHECK(chatllm_user_input(obj, "no tag") != 0);
  CHECK(s.errors == 1 && strstr(s.error, "audio tag") != NULL);
  CHECK(chatllm_user_input(obj, "{{audio:/nowhere.wav}}") != 0);
  CHECK(s.errors == 2 && strstr(s.error, "/nowhere.wav") != NULL);
  CHECK(chatllm_user_input(obj, "{{audio:/nowhere.wav") != 0);
  CHECK(chatllm_user_input(obj, "{{image:/nowhere.png}}") != 0);
  CHECK(chatllm_user_input_multimedia_msg(obj) != 0);
  CHECK(chatllm_multimedia_msg_append(obj, "audio", "!!!") != 0);
  CHECK(chatllm_multimedia_msg_append(obj, "audio", "AAAA") != 0);
  CHECK(chatllm_multimedia_msg_append(obj, "image", code) != 0);
  CHECK(chatllm_multimedia_msg_append(obj, "audio", code) == 0);
  CHECK(chatllm_multimedia_msg_append(obj, "audio", code) != 0);
  CHECK(s.errors == 9);
  CHECK(strcmp(chatllm_asr_last_error(obj), s.error) == 0);
  s.text[0] = '\0';
  chatllm_set_gen_max_tokens(obj, 12);
  CHECK(chatllm_user_input_multimedia_msg(obj) == 0);
  CHECK(strcmp(s.text, expected) == 0);
  free(code);
  free(wav);
  CHECK(chatllm_destroy(obj) == 0);
}

static void test_vocabulary(void) {
  struct seen s;
  struct chatllm_obj *obj = started(&s);
  CHECK(chatllm_text_tokenize(obj, "ab<|im_end|>") == 3);
  CHECK(s.ids == 1 && strcmp(s.id_line, "97,98,259") == 0);
  CHECK(chatllm_text_tokenize(obj, "") == 0);
  int count = 0, width = 0;
  const char *table = chatllm_get_token_vocab(obj, &count, &width);
  CHECK(table != NULL && count == 257 + 7 + 3 && width > 10);
  if (table != NULL) {
    CHECK(strcmp(table + 97 * width, "a") == 0);
    CHECK(strcmp(table + 256 * width, "\xE4\xBD\xA0") == 0 || strlen(table + 256 * width) > 0);
    CHECK(strcmp(table + 259 * width, "<|im_end|>") == 0);
    for (int i = 0; i < count; ++i) CHECK(table[i * width + width - 1] == '\0');
  }
  CHECK(chatllm_get_token_vocab(obj, NULL, NULL) == table);
  CHECK(strstr(chatllm_asr_model_info(obj), "\"kernels\"") != NULL);
  CHECK(chatllm_destroy(obj) == 0);

  CHECK(strstr(chatllm_inspect_model(model_path), "\"purpose\": \"ASR\"") != NULL);
  CHECK(strstr(chatllm_inspect_model(model_path), "\"hidden_size\": 96") != NULL);
  CHECK(strstr(chatllm_inspect_model("/nowhere.bin"), "{\"error\": \"cannot open") != NULL);
  CHECK(strstr(chatllm_inspect_model(wav_path), "not a GGMM model") != NULL);
  CHECK(strstr(chatllm_inspect_model(NULL), "{\"error\"") != NULL);
  CHECK(strstr(chatllm_asr_kernel_sets(), "generic") != NULL);
  CHECK(strlen(chatllm_asr_version()) > 0);
}

static void count_token(void *user_data, const chatllm_asr_token *token) {
  struct seen *s = user_data;
  (void)token;
  pthread_mutex_lock(&s->mutex);
  ++s->other;
  pthread_cond_broadcast(&s->changed);
  pthread_mutex_unlock(&s->mutex);
}

struct long_run {
  struct chatllm_obj *obj;
  int result;
};

static void *run_long(void *argument) {
  struct long_run *run = argument;
  float *pcm = make_sound(24000);
  chatllm_asr_options options = {0};
  options.size = sizeof options;
  options.ignore_stop = 1;
  options.max_new_tokens = 60000;
  run->result = chatllm_asr_run(run->obj, pcm, 24000, &options);
  free(pcm);
  return NULL;
}

static int finish_of(struct chatllm_obj *obj) {
  chatllm_asr_timings t = {0};
  t.size = sizeof t;
  CHECK(chatllm_asr_get_timings(obj, &t) == 0);
  return t.finish;
}

static void test_abort(void) {
  struct seen s;
  struct chatllm_obj *obj = started(&s);
  char text[256];
  tag(text, sizeof text);

  /* From another thread. */
  chatllm_asr_set_token_callback(obj, count_token, &s);
  struct long_run run = {obj, -99};
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, run_long, &run) == 0);
  pthread_mutex_lock(&s.mutex);
  while (s.other < 3) pthread_cond_wait(&s.changed, &s.mutex);
  pthread_mutex_unlock(&s.mutex);
  CHECK(chatllm_user_input(obj, text) == CHATLLM_ASR_BUSY);
  CHECK(chatllm_destroy(obj) != 0);
  chatllm_abort_generation(obj);
  pthread_join(thread, NULL);
  CHECK(run.result == 0);
  CHECK(finish_of(obj) == CHATLLM_ASR_FINISH_ABORT);
  chatllm_asr_set_token_callback(obj, NULL, NULL);

  /* From inside the callback. */
  s.chunks = 0;
  s.abort_at = 2;
  CHECK(chatllm_user_input(obj, text) == 0);
  CHECK(s.chunks == 2);
  CHECK(finish_of(obj) == CHATLLM_ASR_FINISH_ABORT);
  s.abort_at = 0;

  /* Right after an asynchronous start: before the second piece of text at the latest, however busy the machine is. */
  for (int i = 0; i < 20; ++i) {
    s.hold = 1;
    CHECK(chatllm_async_user_input(obj, text) == 0);
    chatllm_abort_generation(obj);
    pthread_mutex_lock(&s.mutex);
    s.hold = 0;
    pthread_cond_broadcast(&s.changed);
    pthread_mutex_unlock(&s.mutex);
    wait_completed(&s, i + 1);
    CHECK(chatllm_get_async_result_int(obj) == 0);
    CHECK(finish_of(obj) == CHATLLM_ASR_FINISH_ABORT);
  }

  /* An abort while nothing runs concerns no later run. */
  chatllm_abort_generation(obj);
  s.text[0] = '\0';
  CHECK(chatllm_user_input(obj, text) == 0);
  CHECK(finish_of(obj) != CHATLLM_ASR_FINISH_ABORT && strlen(s.text) > 0);
  CHECK(chatllm_destroy(obj) == 0);
}

static void test_calls_while_busy(void) {
  struct seen s;
  struct chatllm_obj *obj = started(&s);
  char text[256];
  tag(text, sizeof text);
  s.calls_inside = 1;
  CHECK(chatllm_user_input(obj, text) == 0);
  CHECK(s.calls_inside == 0 && s.errors == 0 && s.ended == 1);

  /* Polling: what is not INT_MIN any more takes the next call at once. */
  s.polled = 1;
  for (int i = 0; i < 50; ++i) {
    CHECK(chatllm_async_tool_input(obj, "x") == 0);
    while (chatllm_get_async_result_int(obj) == INT_MIN) {
    }
    CHECK(chatllm_get_cursor(obj) >= 0);
  }
  wait_completed(&s, 50);
  s.polled = 0;

  s.chain = 5;
  CHECK(chatllm_async_user_input(obj, text) == 0);
  wait_completed(&s, 56);
  CHECK(chatllm_destroy(obj) == 0);

  for (int i = 0; i < 20; ++i) {
    obj = started(&s);
    s.destroy_at_end = 1;
    CHECK((i == 0 ? chatllm_async_user_input(obj, text) : chatllm_async_tool_input(obj, "x")) == 0);
    wait_completed(&s, 1);
  }
}

static void test_wrong_calls(void) {
  struct seen s;
  seen_init(&s);
  int n;
  float *data;
  int64_t shape[2];
  chatllm_asr_timings timings = {0};
  CHECK(chatllm_destroy(NULL) != 0);
  chatllm_append_param(NULL, "x");
  chatllm_append_init_param(NULL);
  CHECK(chatllm_init() == 0);
  CHECK(chatllm_start(NULL, on_print, on_end, &s) != 0);
  chatllm_set_gen_max_tokens(NULL, 1);
  chatllm_restart(NULL, NULL);
  chatllm_multimedia_msg_prepare(NULL);
  CHECK(chatllm_multimedia_msg_append(NULL, "audio", "") != 0);
  CHECK(chatllm_user_input(NULL, "x") != 0);
  CHECK(chatllm_user_input_multimedia_msg(NULL) != 0);
  chatllm_history_append(NULL, ROLE_USER, "x");
  CHECK(chatllm_get_cursor(NULL) == -1);
  CHECK(chatllm_set_cursor(NULL, 0) != 0);
  CHECK(chatllm_set_ai_prefix(NULL, "x") != 0);
  CHECK(chatllm_ai_continue(NULL, "x") != 0);
  CHECK(chatllm_text_tokenize(NULL, "x") == -1);
  chatllm_abort_generation(NULL);
  chatllm_show_statistics(NULL);
  CHECK(chatllm_async_start(NULL, on_print, on_end, &s) != 0);
  CHECK(chatllm_async_user_input(NULL, "x") != 0);
  CHECK(chatllm_async_user_input(NULL, NULL) != 0);
  CHECK(chatllm_async_ai_continue(NULL, "x") != 0);
  CHECK(chatllm_get_async_result_int(NULL) != 0);
  CHECK(chatllm_get_token_vocab(NULL, &n, &n) == NULL);
  chatllm_set_lens_callback(NULL, NULL, NULL);
  CHECK(chatllm_asr_run(NULL, NULL, 0, NULL) != 0);
  CHECK(chatllm_asr_get_timings(NULL, &timings) != 0);
  CHECK(chatllm_asr_model_info(NULL) == NULL);
  CHECK(strstr(chatllm_asr_last_error(NULL), "NULL") != NULL);
  chatllm_asr_set_token_callback(NULL, NULL, NULL);
  chatllm_asr_free(NULL);

  /* Before the start. */
  struct chatllm_obj *obj = chatllm_create();
  CHECK(chatllm_user_input(obj, "x") == CHATLLM_ASR_NOT_STARTED);
  CHECK(chatllm_async_user_input(obj, "x") == 0); /* fails on its thread */
  while (chatllm_get_async_result_int(obj) == INT_MIN) nap_ms(1);
  CHECK(chatllm_get_async_result_int(obj) == CHATLLM_ASR_NOT_STARTED);
  CHECK(chatllm_ai_continue(obj, "x") == CHATLLM_ASR_NOT_STARTED);
  CHECK(chatllm_text_tokenize(obj, "x") == -1);
  CHECK(chatllm_get_token_vocab(obj, &n, &n) == NULL);
  CHECK(chatllm_asr_model_info(obj) == NULL);
  CHECK(chatllm_get_cursor(obj) == -1);
  chatllm_abort_generation(obj);
  chatllm_show_statistics(obj);
  chatllm_restart(obj, "context");

  /* Starts that fail, each with one line. */
  CHECK(chatllm_start(obj, on_print, on_end, &s) == CHATLLM_ASR_BAD_ARGUMENT);
  CHECK(s.errors == 1 && strstr(s.error, "-m PATH") != NULL);
  chatllm_append_param(obj, "-m");
  CHECK(chatllm_start(obj, on_print, on_end, &s) == CHATLLM_ASR_BAD_ARGUMENT);
  CHECK(s.errors == 2 && strstr(s.error, "-m needs a value") != NULL);
  chatllm_append_param(obj, "/nowhere.bin");
  CHECK(chatllm_start(obj, on_print, on_end, &s) == CHATLLM_ASR_BAD_MODEL);
  CHECK(s.errors == 3 && strstr(s.error, "/nowhere.bin") != NULL);
  chatllm_append_param(obj, "-m");
  chatllm_append_param(obj, model_path);
  CHECK(chatllm_start(obj, NULL, NULL, NULL) == 0); /* callbacks may be missing */
  CHECK(chatllm_start(obj, on_print, on_end, &s) == 0);
  float sample = 0.5f;
  CHECK(chatllm_asr_run(obj, NULL, 100, NULL) == CHATLLM_ASR_BAD_AUDIO);
  CHECK(chatllm_asr_run(obj, &sample, -1, NULL) == CHATLLM_ASR_BAD_AUDIO);
  CHECK(s.ended == 2); /* f_end comes after failures too */
  chatllm_asr_options options = {0};
  CHECK(chatllm_asr_run(obj, &sample, 1, &options) == CHATLLM_ASR_BAD_ARGUMENT);
  CHECK(chatllm_asr_get_timings(obj, &timings) == CHATLLM_ASR_BAD_ARGUMENT);
  CHECK(chatllm_asr_log_mel(obj, &sample, 1, NULL, shape) == CHATLLM_ASR_BAD_ARGUMENT);
  CHECK(chatllm_asr_log_mel(obj, &sample, 1, &data, NULL) == CHATLLM_ASR_BAD_ARGUMENT);
  CHECK(chatllm_asr_log_mel(obj, &sample, 1, &data, shape) == CHATLLM_ASR_BAD_AUDIO && data == NULL);
  CHECK(chatllm_asr_prompt_ids(obj, INT64_MAX, NULL, NULL, 0) == CHATLLM_ASR_TOO_LONG);
  CHECK(chatllm_asr_prompt_ids(obj, -5, NULL, NULL, 0) > 0);
  CHECK(chatllm_user_input(obj, NULL) == CHATLLM_ASR_BAD_ARGUMENT);
  CHECK(chatllm_set_ai_prefix(obj, NULL) == CHATLLM_ASR_BAD_ARGUMENT);
  CHECK(chatllm_multimedia_msg_append(obj, NULL, NULL) == CHATLLM_ASR_BAD_ARGUMENT);
  chatllm_append_param(obj, "--wrong");
  CHECK(chatllm_start(obj, on_print, on_end, &s) == CHATLLM_ASR_BAD_ARGUMENT);
  CHECK(strstr(s.error, "'--wrong'") != NULL);
  CHECK(chatllm_asr_model_info(obj) == NULL || chatllm_get_token_vocab(obj, &n, &n) != NULL);
  CHECK(chatllm_destroy(obj) == 0);
}

static void test_options(void) {
  static const char *const bad[][4] = {{"-n", "x", NULL},
                                       {"--threads", "-3", NULL},
                                       {"--set", "language", "Klingon", NULL},
                                       {"--kernels", "sse9", NULL},
                                       {"--attention", "wide", NULL},
                                       {"--max_new_tokens", "99999999999999999999", NULL},
                                       {"--set", "language", NULL},
                                       {"--set", "format", "vtt"},
                                       {"-mgl", "any", NULL},
                                       {"--sys_file", "/nowhere"},
                                       {"--wide", NULL},
                                       {"--kv", "language", "Klingon"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
    struct seen s;
    seen_init(&s);
    struct chatllm_obj *obj = create(&s);
    for (int j = 0; j < 4 && bad[i][j] != NULL; ++j) chatllm_append_param(obj, bad[i][j]);
    const int status = chatllm_start(obj, on_print, on_end, &s);
    CHECK(status == CHATLLM_ASR_BAD_ARGUMENT || (strcmp(bad[i][0], "--sys_file") == 0 && status != 0));
    CHECK(s.errors == 1 && s.infos == 0);
    CHECK(chatllm_destroy(obj) == 0);
  }
  static const char *const good[] = {"--hide-banner",
                                     "--log-level",
                                     "4",
                                     "--seed",
                                     "1",
                                     "-ngl",
                                     "all",
                                     "--repeat_penalty",
                                     "1.1",
                                     "--format",
                                     "chat",
                                     "-t",
                                     "0.5",
                                     "--temp",
                                     "0",
                                     "--set",
                                     "language",
                                     "ENGLISH",
                                     "-s",
                                     "context",
                                     "-c",
                                     "4096",
                                     "-l",
                                     "-1",
                                     "--ai-prefix",
                                     "",
                                     "--attention",
                                     "full",
                                     "--kernels",
                                     "generic"};
  struct seen s;
  seen_init(&s);
  struct chatllm_obj *obj = create(&s);
  for (size_t i = 0; i < sizeof good / sizeof *good; ++i) chatllm_append_param(obj, good[i]);
  CHECK(chatllm_start(obj, on_print, on_end, &s) == 0);
  CHECK(s.errors == 0);
  CHECK(strstr(chatllm_asr_model_info(obj), "\"kernels\": \"generic\"") != NULL);
  char text[256];
  tag(text, sizeof text);
  CHECK(chatllm_user_input(obj, text) == 0);
  CHECK(chatllm_destroy(obj) == 0);
}

/* Words of chatllm.cpp that have nothing to do with speech take their values with them and change nothing. */
static void test_ignored_options(void) {
  static const char *const words[] = {"-k 20",
                                      "-q 0.7",
                                      "--extending shift",
                                      "--cache_dtype f32",
                                      "-fa on",
                                      "-mgl any all",
                                      "--layer_spec 0:4",
                                      "--beam_size 2",
                                      "--num_beams 2",
                                      "--thought_tags <t> </t>",
                                      "--moe_on_cpu",
                                      "+detect_thoughts",
                                      "--detect-thoughts",
                                      "-Os",
                                      "-no-thinking",
                                      "--lens lm fn 3",
                                      "--lens identity 1",
                                      "--save_session 2 /x",
                                      "--serve-rpc 80",
                                      "--model_gpu_layers any 3",
                                      "--flash-attn on",
                                      "--single_turn",
                                      "--reasoning_effort low",
                                      "--load_session /x",
                                      "--kv speed 3 tone warm"};
  struct seen s;
  seen_init(&s);
  struct chatllm_obj *obj = create(&s);
  for (size_t i = 0; i < sizeof words / sizeof *words; ++i) {
    char copy[64], *rest = copy;
    snprintf(copy, sizeof copy, "%s", words[i]);
    for (char *word; (word = strtok_r(rest, " ", &rest)) != NULL;) chatllm_append_param(obj, word);
  }
  CHECK(chatllm_start(obj, on_print, on_end, &s) == 0);
  CHECK(s.errors == 0 && s.infos == 1);
  CHECK(s.other == 3); /* a note each: +detect_thoughts, speed, tone */
  CHECK(chatllm_destroy(obj) == 0);
}

static void test_settings_after_the_start(void) {
  struct seen s;
  struct chatllm_obj *obj = create(&s);
  seen_init(&s);
  CHECK(chatllm_set_additional_args(NULL, "language=English") != 0);
  CHECK(chatllm_set_additional_args(obj, "language=English") == CHATLLM_ASR_NOT_STARTED);
  CHECK(chatllm_history_get_cursor(NULL) == -1 && chatllm_history_set_cursor(NULL, 0) == -1);
  CHECK(chatllm_history_get_cursor(obj) == -1);
  CHECK(chatllm_start(obj, on_print, on_end, &s) == 0);
  const int64_t detected = chatllm_asr_prompt_ids(obj, 16000, NULL, NULL, 0);
  CHECK(chatllm_set_additional_args(obj, "language=English") == 0);
  CHECK(chatllm_asr_prompt_ids(obj, 16000, NULL, NULL, 0) > detected);
  CHECK(chatllm_set_additional_args(obj, "language=Klingon") == CHATLLM_ASR_BAD_ARGUMENT);
  CHECK(chatllm_set_additional_args(obj, "language") == CHATLLM_ASR_BAD_ARGUMENT);
  CHECK(chatllm_set_additional_args(obj, NULL) == CHATLLM_ASR_BAD_ARGUMENT);
  CHECK(chatllm_asr_prompt_ids(obj, 16000, NULL, NULL, 0) > detected);
  CHECK(chatllm_set_additional_args(obj, "language=") == 0);
  CHECK(chatllm_asr_prompt_ids(obj, 16000, NULL, NULL, 0) == detected);

  char text[256];
  tag(text, sizeof text);
  CHECK(chatllm_history_get_cursor(obj) == 0);
  CHECK(chatllm_user_input(obj, text) == 0);
  const int tokens = chatllm_get_cursor(obj);
  CHECK(chatllm_history_get_cursor(obj) == 2 && chatllm_history_set_cursor(obj, 7) == 2);
  CHECK(chatllm_get_cursor(obj) == tokens);
  CHECK(chatllm_history_set_cursor(obj, 1) == 1 && chatllm_get_cursor(obj) < tokens);
  CHECK(chatllm_history_set_cursor(obj, -1) == 0 && chatllm_get_cursor(obj) == 0);
  CHECK(chatllm_user_input(obj, text) == 0);
  CHECK(chatllm_get_cursor(obj) == tokens);
  CHECK(chatllm_destroy(obj) == 0);
}

/* ---- a forced aligner ---- */

static struct chatllm_obj *started_aligner(struct seen *s, const char *key, const char *value) {
  seen_init(s);
  struct chatllm_obj *obj = create(s);
  const char *const words[] = {"-m", aligner_path, "--set", key, value};
  for (size_t i = 0; i < sizeof words / sizeof *words; ++i) chatllm_append_param(obj, words[i]);
  CHECK(chatllm_start(obj, on_print, on_end, s) == 0);
  return obj;
}

/* Runs on a text around the audio; what was printed. */
static const char *aligned(struct chatllm_obj *obj, struct seen *s, const char *before, const char *after) {
  char text[512];
  snprintf(text, sizeof text, "%s{{audio:%s}}%s", before, wav_path, after);
  s->text[0] = '\0', s->chunks = 0;
  CHECK(chatllm_user_input(obj, text) == 0);
  CHECK(s->errors == 0 && s->chunks <= 1);
  return s->text;
}

/* The lines of SRT that are no times, joined by '|'; the times are checked: in order, and inside the audio. */
static const char *srt_texts(const char *srt) {
  static char texts[1024];
  texts[0] = '\0';
  int last = 0, number = 0;
  char copy[4096], *rest = copy;
  snprintf(copy, sizeof copy, "%s", srt);
  for (char *line; (line = strtok_r(rest, "\n", &rest)) != NULL;) {
    int h1, m1, s1, ms1, h2, m2, s2, ms2, end = 0;
    if (sscanf(line, "%d:%d:%d,%d --> %d:%d:%d,%d%n", &h1, &m1, &s1, &ms1, &h2, &m2, &s2, &ms2, &end) == 8) {
      const int from = s1 * 1000 + ms1, to = s2 * 1000 + ms2;
      CHECK(end == (int)strlen(line) && h1 + m1 + h2 + m2 == 0);
      CHECK(last <= from && from <= to && to <= 1500);
      last = to;
    } else if (atoi(line) == number + 1) {
      ++number;
    } else {
      snprintf(texts + strlen(texts), sizeof texts - strlen(texts), "%s|", line);
    }
  }
  return texts;
}

static void test_alignment_by_message(void) {
  struct seen s;
  struct chatllm_obj *obj = started_aligner(&s, "format", "srt");
  CHECK(strcmp(srt_texts(aligned(obj, &s, "", "\xE4\xBD\xA0\xE5\xA5\xBD, World! \xE4\xBD\xA0")),
               "\xE4\xBD\xA0|\xE5\xA5\xBD|World|\xE4\xBD\xA0|") == 0);
  CHECK(s.ended == 1 && s.chunks == 1);
  CHECK(strcmp(srt_texts(aligned(obj, &s, "one ", " two")), "one|two|") == 0);
  CHECK(strcmp(aligned(obj, &s, "", ""), "") == 0 && strcmp(aligned(obj, &s, "...", " \xF0\x9F\x98\x80"), "") == 0);

  CHECK(chatllm_set_additional_args(obj, "language=Klingon") == 0); /* text of any language is aligned */
  CHECK(strcmp(srt_texts(aligned(obj, &s, "", "Don't stop, - now.")), "Don't|stop,|-|now.|") == 0);
  CHECK(chatllm_set_additional_args(obj, "delimiter=|") == 0);
  CHECK(strcmp(srt_texts(aligned(obj, &s, "", "|?|a b.||c\n d| ")), "?|a b.|c d|") == 0);

  CHECK(chatllm_set_additional_args(obj, "format=json") == 0);
  CHECK(strncmp(aligned(obj, &s, "", "?|say \"a\""), "[\n    {\n        \"start\":0,\n        \"end\":0,\n", 40) == 0);
  CHECK(strstr(s.text, "\"text\": \"?\"\n    },\n    {\n") != NULL);
  CHECK(strstr(s.text, "\"text\": \"say \\\"a\\\"\"\n    }\n]\n") != NULL);
  CHECK(strcmp(aligned(obj, &s, "", ""), "[\n]\n") == 0);

  /* As a message, and what goes wrong. */
  size_t size;
  unsigned char *wav = make_wav(24000, &size);
  char *code = base64(wav, size);
  aligned(obj, &s, "", "one two|three");
  char expected[sizeof s.text];
  strcpy(expected, s.text);
  s.text[0] = '\0';
  chatllm_multimedia_msg_prepare(obj);
  CHECK(chatllm_multimedia_msg_append(obj, "audio", code) == 0);
  CHECK(chatllm_multimedia_msg_append(obj, "text", "one two|three") == 0);
  CHECK(chatllm_user_input_multimedia_msg(obj) == 0);
  CHECK(strcmp(s.text, expected) == 0 && s.errors == 0);
  CHECK(chatllm_user_input(obj, "one two") != 0 && s.errors == 1);
  float *pcm = make_sound(16000 * 6);
  double times[2];
  const char *unit = "a";
  CHECK(chatllm_asr_align(obj, pcm, 16000 * 6, &unit, 1, CHATLLM_ASR_WINDOW, times) == CHATLLM_ASR_TOO_LONG);
  CHECK(s.errors == 2);
  free(pcm), free(code), free(wav);
  CHECK(chatllm_destroy(obj) == 0);
}

/* Calls outside speech recognition fail with exactly one line. */
static void test_unsupported(void) {
  struct seen s;
  struct chatllm_obj *obj = started(&s);
  int expected = 0;
#define REFUSED(call)              \
  do {                             \
    CHECK((call) != 0);            \
    CHECK(s.errors == ++expected); \
  } while (0)
  REFUSED(chatllm_tool_input(obj, "x"));
  REFUSED(chatllm_tool_completion(obj, "x"));
  REFUSED(chatllm_embedding(obj, "x", EMBEDDING_FOR_QUERY));
  REFUSED(chatllm_qa_rank(obj, "x", "y"));
  REFUSED(chatllm_rag_select_store(obj, "x"));
  REFUSED(chatllm_save_session(obj, "/tmp/x"));
  REFUSED(chatllm_load_session(obj, "/tmp/x"));
  REFUSED(chatllm_history_append_multimedia_msg(obj, ROLE_USER));
  chatllm_history_append(obj, ROLE_USER, "x");
  CHECK(s.errors == ++expected);
  chatllm_set_lens_callback(obj, NULL, NULL);
  int completed = 0;
#define REFUSED_ASYNC(call)                        \
  do {                                             \
    CHECK((call) == 0);                            \
    wait_completed(&s, ++completed);               \
    CHECK(chatllm_get_async_result_int(obj) != 0); \
    CHECK(s.errors == ++expected);                 \
  } while (0)
  REFUSED_ASYNC(chatllm_async_tool_input(obj, "x"));
  REFUSED_ASYNC(chatllm_async_tool_completion(obj, "x"));
  REFUSED_ASYNC(chatllm_async_embedding(obj, "x", EMBEDDING_FOR_DOC));
  REFUSED_ASYNC(chatllm_async_qa_rank(obj, "x", "y"));
  CHECK(chatllm_destroy(obj) == 0);
}

static void *one_user(void *argument) {
  (void)argument;
  for (int i = 0; i < 5; ++i) {
    struct seen s;
    struct chatllm_obj *obj = started(&s);
    char text[256];
    tag(text, sizeof text);
    CHECK(chatllm_user_input(obj, text) == 0);
    CHECK(chatllm_destroy(obj) == 0);
  }
  return NULL;
}

static void test_objects_on_several_threads(void) {
  pthread_t threads[4];
  for (int i = 0; i < 4; ++i) CHECK(pthread_create(&threads[i], NULL, one_user, NULL) == 0);
  for (int i = 0; i < 4; ++i) pthread_join(threads[i], NULL);
}

/* ---- submitted runs ---- */

enum { MOST_TOKENS = 64 };

/* What the events of a run told. */
struct heard {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  struct chatllm_obj *obj;
  chatllm_asr_run_t *run;
  int begins, steps, ends, late;
  int tokens; /* of the current hypothesis */
  int32_t ids[MOST_TOKENS];
  int status, finish, new_tokens;
  char message[256];
  int cancel_at, release_at; /* token at which the callback does so */
  int submit_at_end;         /* the END event submits `next` */
  struct heard *next;
  int destroy_inside; /* the END event tries to destroy the object */
};

static void heard_init(struct heard *h, struct chatllm_obj *obj) {
  memset(h, 0, sizeof *h);
  pthread_mutex_init(&h->mutex, NULL);
  pthread_cond_init(&h->changed, NULL);
  h->obj = obj;
}

static chatllm_asr_run_t *submit(struct heard *h, const float *pcm, int64_t samples, int new_tokens, int live);

static void on_event(void *user_data, const chatllm_asr_event *event) {
  struct heard *h = user_data;
  pthread_mutex_lock(&h->mutex);
  if (h->ends > 0) ++h->late;
  if (event->size != sizeof *event || event->time_ns <= 0) ++h->late;
  switch (event->kind) {
    case CHATLLM_ASR_EVENT_BEGIN:
      ++h->begins;
      break;
    case CHATLLM_ASR_EVENT_TOKEN:
      if (h->begins != 1) ++h->late;
      if (h->tokens < MOST_TOKENS) h->ids[h->tokens] = event->token->id;
      ++h->tokens;
      break;
    case CHATLLM_ASR_EVENT_STEP:
      ++h->steps;
      h->tokens = 0;
      break;
    case CHATLLM_ASR_EVENT_END:
      h->status = event->status;
      h->finish = event->timings->finish;
      h->new_tokens = event->timings->new_tokens;
      snprintf(h->message, sizeof h->message, "%s", event->message);
      break;
    default:
      ++h->late;
  }
  const int token = event->kind == CHATLLM_ASR_EVENT_TOKEN ? h->tokens : -1;
  pthread_mutex_unlock(&h->mutex);

  if (token > 0 && token == h->cancel_at) chatllm_asr_cancel(h->run);
  if (token > 0 && token == h->release_at) chatllm_asr_release(h->run);
  if (event->kind != CHATLLM_ASR_EVENT_END) return;
  if (h->destroy_inside) CHECK(chatllm_destroy(h->obj) == CHATLLM_ASR_BUSY);
  if (h->submit_at_end) {
    float *pcm = make_sound(8000);
    h->next->run = submit(h->next, pcm, 8000, 3, 0);
    free(pcm); /* it was copied */
  }
  pthread_mutex_lock(&h->mutex);
  ++h->ends;
  pthread_cond_broadcast(&h->changed);
  pthread_mutex_unlock(&h->mutex);
}

static chatllm_asr_run_t *submit(struct heard *h, const float *pcm, int64_t samples, int new_tokens, int live) {
  chatllm_asr_options options = {0};
  options.size = sizeof options;
  options.ignore_stop = 1;
  options.max_new_tokens = new_tokens;
  options.live = live;
  return chatllm_asr_submit(h->obj, pcm, samples, &options, on_event, h);
}

/* Waits until a count of what was heard, such as ends, has reached a number. */
static void wait_heard(struct heard *h, const int *what, int count) {
  struct timespec limit;
  clock_gettime(CLOCK_REALTIME, &limit);
  limit.tv_sec += 120;
  pthread_mutex_lock(&h->mutex);
  while (*what < count)
    if (pthread_cond_timedwait(&h->changed, &h->mutex, &limit) != 0) break;
  CHECK(*what >= count);
  pthread_mutex_unlock(&h->mutex);
}

static void wait_tokens(struct heard *h, int count) {
  for (int i = 0; i < 120000; ++i) {
    pthread_mutex_lock(&h->mutex);
    const int tokens = h->tokens;
    pthread_mutex_unlock(&h->mutex);
    if (tokens >= count) return;
    nap_ms(1);
  }
  CHECK(!"no tokens came");
}

struct ids {
  int count;
  int32_t ids[MOST_TOKENS];
};

static void collect_id(void *user_data, const chatllm_asr_token *token) {
  struct ids *ids = user_data;
  if (ids->count < MOST_TOKENS) ids->ids[ids->count++] = token->id;
}

/* The tokens of a plain run. */
static struct ids plain(struct chatllm_obj *obj, const float *pcm, int64_t samples, int new_tokens) {
  struct ids ids = {0};
  chatllm_asr_options options = {0};
  options.size = sizeof options;
  options.ignore_stop = 1;
  options.max_new_tokens = new_tokens;
  chatllm_asr_set_token_callback(obj, collect_id, &ids);
  CHECK(chatllm_asr_run(obj, pcm, samples, &options) == 0);
  chatllm_asr_set_token_callback(obj, NULL, NULL);
  return ids;
}

static int same_ids(const struct heard *h, const struct ids *expected) {
  return h->tokens == expected->count && memcmp(h->ids, expected->ids, (size_t)expected->count * sizeof *h->ids) == 0;
}

static void test_submitted_runs(void) {
  enum { RUNS = 10 };
  struct seen s;
  struct chatllm_obj *obj = started(&s);
  float *pcm = make_sound(64000);
  struct ids expected[RUNS];
  struct heard heard[RUNS];
  for (int i = 0; i < RUNS; ++i) expected[i] = plain(obj, pcm + 700 * i, 9000 + 5000 * i, 10 + 3 * i);
  s.ended = 0;
  for (int i = 0; i < RUNS; ++i) {
    float *copy = malloc((size_t)(9000 + 5000 * i) * sizeof *copy);
    if (copy == NULL) exit(1);
    memcpy(copy, pcm + 700 * i, (size_t)(9000 + 5000 * i) * sizeof *copy);
    heard_init(&heard[i], obj);
    CHECK((heard[i].run = submit(&heard[i], copy, 9000 + 5000 * i, 10 + 3 * i, 0)) != NULL);
    free(copy);
  }
  struct ids beside = plain(obj, pcm, 9000, 10); /* a plain run among them */
  CHECK(beside.count == expected[0].count && memcmp(&beside, &expected[0], sizeof beside) == 0);
  for (int i = 0; i < RUNS; ++i) {
    wait_heard(&heard[i], &heard[i].ends, 1);
    CHECK(heard[i].begins == 1 && heard[i].ends == 1 && heard[i].steps == 0 && heard[i].late == 0);
    CHECK(heard[i].status == 0 && heard[i].finish == CHATLLM_ASR_FINISH_LENGTH && heard[i].message[0] == '\0');
    CHECK(same_ids(&heard[i], &expected[i]) && heard[i].new_tokens == 10 + 3 * i);
    chatllm_asr_release(heard[i].run);
  }
  CHECK(s.ended == 1 && s.errors == 0); /* of the plain run: submitted ones have their own events */

  /* A run that ends submits the next one. */
  struct heard first, second;
  heard_init(&first, obj), heard_init(&second, obj);
  first.submit_at_end = 1, first.next = &second;
  first.destroy_inside = 1;
  first.run = submit(&first, pcm, 9000, 2, 0);
  wait_heard(&first, &first.ends, 1);
  wait_heard(&second, &second.ends, 1);
  CHECK(second.tokens == 3 && second.status == 0);
  chatllm_asr_release(first.run);
  chatllm_asr_release(second.run);
  free(pcm);
  CHECK(chatllm_destroy(obj) == 0);
}

static void test_cancel_and_release(void) {
  struct seen s;
  struct chatllm_obj *obj = started(&s);
  float *pcm = make_sound(24000);
  struct ids expected = plain(obj, pcm, 24000, 20);

  /* A running, a waiting and an ended one; another is not touched. */
  struct heard endless, other, waiting, done;
  heard_init(&endless, obj), heard_init(&other, obj), heard_init(&waiting, obj), heard_init(&done, obj);
  done.run = submit(&done, pcm, 24000, 1, 0);
  wait_heard(&done, &done.ends, 1);
  endless.run = submit(&endless, pcm, 24000, 60000, 0);
  other.run = submit(&other, pcm, 24000, 20, 0);
  waiting.run = submit(&waiting, pcm, 24000, 60000, 0);
  chatllm_asr_cancel(waiting.run);
  chatllm_asr_cancel(done.run);
  wait_tokens(&endless, 3);
  chatllm_asr_cancel(endless.run);
  chatllm_asr_cancel(endless.run);
  wait_heard(&endless, &endless.ends, 1);
  wait_heard(&waiting, &waiting.ends, 1);
  wait_heard(&other, &other.ends, 1);
  CHECK(endless.status == 0 && endless.finish == CHATLLM_ASR_FINISH_ABORT && endless.late == 0);
  CHECK(waiting.status == 0 && waiting.finish == CHATLLM_ASR_FINISH_ABORT);
  CHECK(other.finish == CHATLLM_ASR_FINISH_LENGTH && same_ids(&other, &expected));
  CHECK(done.ends == 1 && done.late == 0 && done.finish == CHATLLM_ASR_FINISH_LENGTH);
  chatllm_asr_cancel(endless.run);
  chatllm_asr_release(endless.run);
  chatllm_asr_release(other.run);
  chatllm_asr_release(waiting.run);
  chatllm_asr_release(done.run);

  /* From the callback. */
  heard_init(&endless, obj), heard_init(&other, obj);
  endless.cancel_at = 1;
  pthread_mutex_lock(&endless.mutex); /* the callback waits until the handle is known */
  endless.run = submit(&endless, pcm, 24000, 60000, 0);
  pthread_mutex_unlock(&endless.mutex);
  wait_heard(&endless, &endless.ends, 1);
  CHECK(endless.finish == CHATLLM_ASR_FINISH_ABORT && endless.tokens == 1);
  chatllm_asr_release(endless.run);
  heard_init(&endless, obj);
  endless.release_at = 2;
  pthread_mutex_lock(&endless.mutex);
  endless.run = submit(&endless, pcm, 24000, 60000, 0);
  pthread_mutex_unlock(&endless.mutex);
  other.run = submit(&other, pcm, 24000, 20, 0);
  wait_heard(&other, &other.ends, 1);
  CHECK(same_ids(&other, &expected));
  CHECK(endless.tokens == 2 && endless.ends == 0);
  chatllm_asr_release(other.run);

  /* Nothing is told once release has returned. */
  for (int i = 0; i < 30; ++i) {
    heard_init(&endless, obj);
    endless.run = submit(&endless, pcm, 24000, 60000, 0);
    if (i % 3 == 1) wait_tokens(&endless, i);
    if (i % 3 == 2) nap_ms(1);
    chatllm_asr_release(endless.run);
    const int tokens = endless.tokens, ends = endless.ends; /* without the lock: nobody else is there */
    if (i % 10 == 0) nap_ms(2);
    CHECK(endless.tokens == tokens && endless.ends == ends);
    memset(&endless, 0x55, sizeof endless);
  }
  free(pcm);
  CHECK(chatllm_destroy(obj) == 0);
}

static int steps_of(struct heard *h) {
  pthread_mutex_lock(&h->mutex);
  const int steps = h->steps;
  pthread_mutex_unlock(&h->mutex);
  return steps;
}

static void test_live_runs(void) {
  struct seen s;
  struct chatllm_obj *obj = started(&s);
  float *pcm = make_sound(160000);
  for (int64_t piece = 100; piece <= 160000; piece = piece * 9) {
    const int64_t total = piece < 1000 ? 3000 : 160000;
    struct ids expected = plain(obj, pcm, total, 12);
    struct heard h;
    heard_init(&h, obj);
    h.run = submit(&h, NULL, 0, 12, 1);
    CHECK(h.run != NULL);
    for (int64_t at = 0; at < total; at += piece) {
      const int steps = steps_of(&h);
      CHECK(chatllm_asr_feed(h.run, pcm + at, at + piece < total ? piece : total - at, 0) == 0);
      if (at == 5 * piece) { /* each step is a hypothesis of all audio so far */
        for (int i = 0; i < 60000 && steps_of(&h) == steps; ++i) nap_ms(1);
        CHECK(steps_of(&h) > steps);
      }
    }
    CHECK(chatllm_asr_feed(h.run, NULL, 0, 1) == 0);
    CHECK(chatllm_asr_feed(h.run, pcm, 10, 0) == CHATLLM_ASR_BAD_ARGUMENT);
    CHECK(chatllm_asr_last_status() == CHATLLM_ASR_BAD_ARGUMENT);
    wait_heard(&h, &h.ends, 1);
    CHECK(h.status == 0 && h.finish == CHATLLM_ASR_FINISH_LENGTH && h.begins == 1 && h.late == 0);
    CHECK(same_ids(&h, &expected));
    chatllm_asr_release(h.run);
  }

  struct heard h;
  heard_init(&h, obj);
  h.run = submit(&h, pcm, 16000, 60000, 1);
  wait_tokens(&h, 2);
  CHECK(chatllm_asr_feed(h.run, NULL, -1, 0) == CHATLLM_ASR_BAD_ARGUMENT);
  CHECK(chatllm_asr_feed(h.run, NULL, 5, 0) == CHATLLM_ASR_BAD_ARGUMENT);
  chatllm_asr_cancel(h.run);
  wait_heard(&h, &h.ends, 1);
  CHECK(h.finish == CHATLLM_ASR_FINISH_ABORT && h.status == 0);
  chatllm_asr_release(h.run);

  heard_init(&h, obj); /* that never gets any audio */
  h.run = submit(&h, NULL, 0, 5, 1);
  nap_ms(1);
  CHECK(h.begins == 0 && h.ends == 0);
  CHECK(chatllm_asr_feed(h.run, NULL, 0, 1) == 0);
  wait_heard(&h, &h.ends, 1);
  CHECK(h.status == CHATLLM_ASR_BAD_AUDIO && strstr(h.message, "no samples") != NULL);
  chatllm_asr_release(h.run);

  heard_init(&h, obj); /* and one that nobody ends */
  h.run = submit(&h, NULL, 0, 5, 1);
  CHECK(chatllm_destroy(obj) == 0);
  CHECK(h.ends == 1 && h.finish == CHATLLM_ASR_FINISH_ABORT);
  CHECK(chatllm_asr_feed(h.run, pcm, 100, 0) != 0);
  chatllm_asr_cancel(h.run);
  chatllm_asr_release(h.run);
  free(pcm);
}

static void test_wrong_submits(void) {
  struct seen s;
  seen_init(&s);
  float *pcm = make_sound(8000);
  struct heard h;
  heard_init(&h, NULL);
  CHECK(submit(&h, pcm, 8000, 1, 0) == NULL && chatllm_asr_last_status() == CHATLLM_ASR_BAD_ARGUMENT);
  CHECK(chatllm_asr_feed(NULL, pcm, 1, 0) == CHATLLM_ASR_BAD_ARGUMENT);
  chatllm_asr_cancel(NULL);
  chatllm_asr_release(NULL);
  struct chatllm_obj *obj = create(&s);
  heard_init(&h, obj);
  CHECK(submit(&h, pcm, 8000, 1, 0) == NULL && chatllm_asr_last_status() == CHATLLM_ASR_NOT_STARTED);
  chatllm_append_param(obj, "--batch");
  chatllm_append_param(obj, "2");
  CHECK(chatllm_start(obj, on_print, on_end, &s) == 0);
  CHECK(chatllm_asr_submit(obj, pcm, 8000, NULL, NULL, NULL) == NULL);
  CHECK(strstr(chatllm_asr_last_error(NULL), "callback") != NULL);
  chatllm_asr_options options = {0};
  CHECK(chatllm_asr_submit(obj, pcm, 8000, &options, on_event, &h) == NULL);
  CHECK(chatllm_asr_last_status() == CHATLLM_ASR_BAD_ARGUMENT);
  options.size = sizeof options;
  options.language = "Klingon";
  CHECK(chatllm_asr_submit(obj, pcm, 8000, &options, on_event, &h) == NULL);
  CHECK(strstr(chatllm_asr_last_error(NULL), "Klingon") != NULL);
  CHECK(h.begins == 0 && h.ends == 0);

  /* What is wrong with the audio comes with the end, and harms nobody. */
  struct heard broken, silent, fine;
  heard_init(&broken, obj), heard_init(&silent, obj), heard_init(&fine, obj);
  struct ids expected = plain(obj, pcm, 8000, 9);
  pcm[4000] = NAN;
  broken.run = submit(&broken, pcm, 8000, 9, 0);
  silent.run = submit(&silent, NULL, 0, 9, 0);
  pcm[4000] = 0;
  struct ids zeroed = plain(obj, pcm, 8000, 9);
  fine.run = submit(&fine, pcm, 8000, 9, 0);
  wait_heard(&fine, &fine.ends, 1);
  wait_heard(&broken, &broken.ends, 1);
  wait_heard(&silent, &silent.ends, 1);
  CHECK(broken.status == CHATLLM_ASR_BAD_AUDIO && strstr(broken.message, "sample 4000") != NULL);
  CHECK(broken.finish == CHATLLM_ASR_FINISH_NONE && broken.tokens == 0);
  CHECK(silent.status == CHATLLM_ASR_BAD_AUDIO);
  CHECK(fine.status == 0 && same_ids(&fine, &zeroed));
  chatllm_asr_release(broken.run);
  chatllm_asr_release(silent.run);
  chatllm_asr_release(fine.run);
  (void)expected;

  /* Structures of an older header are shorter. */
  options.language = NULL;
  options.size = offsetof(chatllm_asr_options, live);
  options.live = 77;
  options.max_new_tokens = 2;
  CHECK(chatllm_asr_run(obj, pcm, 8000, &options) == 0);
  chatllm_asr_timings t;
  memset(&t, 0x55, sizeof t);
  t.size = offsetof(chatllm_asr_timings, wait_ms);
  CHECK(chatllm_asr_get_timings(obj, &t) == 0);
  CHECK(t.new_tokens <= 2 && t.size == offsetof(chatllm_asr_timings, wait_ms));
  uint64_t untouched;
  memcpy(&untouched, &t.wait_ms, 8);
  CHECK(untouched == 0x5555555555555555u);
  free(pcm);
  CHECK(chatllm_destroy(obj) == 0);
}

static void *feed_and_release(void *argument) {
  struct heard *h = argument;
  float *pcm = make_sound(4000);
  h->run = submit(h, pcm, 4000, 5, 1);
  for (int i = 0; i < 4; ++i) CHECK(chatllm_asr_feed(h->run, pcm, 1000, 0) == 0);
  nap_ms(h->cancel_at);
  chatllm_asr_release(h->run);
  memset(h, 0x55, sizeof *h);
  free(pcm);
  return NULL;
}

static void test_runs_of_many_threads(void) {
  struct seen s;
  struct chatllm_obj *obj = started(&s);
  for (int round = 0; round < 10; ++round) {
    struct heard heard[6];
    pthread_t threads[6];
    for (int i = 0; i < 6; ++i) {
      heard_init(&heard[i], obj);
      heard[i].cancel_at = -i; /* never reached by a token */
      heard[i].cancel_at = 0;
      CHECK(pthread_create(&threads[i], NULL, feed_and_release, &heard[i]) == 0);
    }
    for (int i = 0; i < 6; ++i) pthread_join(threads[i], NULL);
  }
  /* Everything is cancelled by the end of the object, and told. */
  float *pcm = make_sound(24000);
  struct heard heard[5];
  for (int i = 0; i < 5; ++i) {
    heard_init(&heard[i], obj);
    heard[i].run = submit(&heard[i], pcm, 24000, 60000, 0);
  }
  wait_tokens(&heard[0], 2);
  CHECK(chatllm_start(obj, on_print, on_end, &s) == CHATLLM_ASR_BUSY);
  CHECK(chatllm_destroy(obj) == 0);
  for (int i = 0; i < 5; ++i) {
    CHECK(heard[i].ends == 1 && heard[i].finish == CHATLLM_ASR_FINISH_ABORT && heard[i].status == 0);
    chatllm_asr_release(heard[i].run);
  }
  free(pcm);
}

/* ---- destroying an object in answer to the end of its run ---- */

struct answered {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  struct chatllm_obj *obj;
  int inside; /* destroy in f_end itself */
  int ended, destroyed, completed;
};

static void on_answered_end(void *user_data) {
  struct answered *a = user_data;
  if (a->inside) {
    CHECK(chatllm_destroy(a->obj) == 0);
    a->destroyed = 1;
  }
  pthread_mutex_lock(&a->mutex);
  a->ended = 1;
  pthread_cond_broadcast(&a->changed);
  pthread_mutex_unlock(&a->mutex);
}

static void on_answered_print(void *user_data, int type, const char *text) {
  struct answered *a = user_data;
  (void)text;
  if (type == PRINT_EVT_ASYNC_COMPLETED) ++a->completed;
}

static void *destroy_after_end(void *argument) {
  struct answered *a = argument;
  pthread_mutex_lock(&a->mutex);
  while (!a->ended) pthread_cond_wait(&a->changed, &a->mutex);
  pthread_mutex_unlock(&a->mutex);
  CHECK(chatllm_destroy(a->obj) == 0);
  a->destroyed = 1;
  return NULL;
}

static void test_destroy_in_answer_to_the_end(void) {
  char text[256];
  tag(text, sizeof text);
  for (int i = 0; i < 60; ++i) {
    struct seen s;
    seen_init(&s);
    struct answered a = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, create(&s), i % 2, 0, 0, 0};
    const int async = i % 4 >= 2;
    CHECK(chatllm_start(a.obj, on_answered_print, on_answered_end, &a) == 0);
    pthread_t thread;
    if (!a.inside) CHECK(pthread_create(&thread, NULL, destroy_after_end, &a) == 0);
    CHECK((async ? chatllm_async_user_input(a.obj, text) : chatllm_user_input(a.obj, text)) == 0);
    if (!a.inside) pthread_join(thread, NULL);
    pthread_mutex_lock(&a.mutex);
    while (!a.ended) pthread_cond_wait(&a.changed, &a.mutex);
    pthread_mutex_unlock(&a.mutex);
    CHECK(a.destroyed == 1);
    CHECK(a.completed == (async && !a.inside)); /* nothing is told after the end of the object */
    if (async && a.inside) nap_ms(2);           /* its thread returns from f_end */
  }
}

/* A child of a fork is told so, by every call. */
static void test_fork(void) {
  struct seen s;
  struct chatllm_obj *obj = started(&s);
  struct heard h;
  heard_init(&h, obj);
  h.run = submit(&h, NULL, 0, 1, 1);
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    const float sample = 0.5f;
    chatllm_asr_cancel(h.run);
    const int wrong = (submit(&h, &sample, 1, 1, 0) != NULL || chatllm_asr_last_status() != CHATLLM_ASR_FORKED) +
                      (chatllm_asr_feed(h.run, &sample, 1, 0) != CHATLLM_ASR_FORKED) +
                      (chatllm_asr_run(obj, &sample, 1, NULL) != CHATLLM_ASR_FORKED) +
                      (chatllm_destroy(obj) != CHATLLM_ASR_FORKED) +
                      (strstr(chatllm_asr_last_error(obj), "forked") == NULL);
    chatllm_abort_generation(obj);
    _exit(wrong);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  float *pcm = make_sound(8000);
  CHECK(chatllm_asr_run(obj, pcm, 8000, NULL) == 0);
  free(pcm);
  CHECK(chatllm_destroy(obj) == 0);
  chatllm_asr_release(h.run);
}

/* The child of a fork loads a model of its own, whatever the parent's threads were doing. */
static void *load_again_and_again(void *argument) {
  atomic_int *stop = argument;
  while (!atomic_load(stop)) {
    struct seen s;
    CHECK(chatllm_destroy(started(&s)) == 0);
  }
  return NULL;
}

static void test_fork_while_loading(void) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  return; /* children may not start threads while the parent had some; they wait for a lock of the allocator for ever */
#endif
  atomic_int stop = 0;
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, load_again_and_again, &stop) == 0);
  for (int i = 0; i < 20; ++i) {
    nap_ms(1 + i % 3);
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      alarm(60); /* a child that hangs fails */
      failures = 0;
      struct seen s;
      struct chatllm_obj *obj = started(&s);
      float *pcm = make_sound(8000);
      CHECK(chatllm_asr_run(obj, pcm, 8000, NULL) == 0);
      CHECK(chatllm_destroy(obj) == 0);
      _exit(failures != 0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  atomic_store(&stop, 1);
  pthread_join(thread, NULL);
}

static int entries(const char *folder) {
  int count = 0;
  DIR *dir = opendir(folder);
  if (dir == NULL) return -1;
  while (readdir(dir) != NULL) ++count;
  closedir(dir);
  return count;
}

static long resident_kb(void) {
  long total = 0, pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file == NULL) return 0;
  if (fscanf(file, "%ld %ld", &total, &pages) != 2) pages = 0;
  fclose(file);
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void test_rounds_without_growth(int rounds) {
  float *pcm = make_sound(12000);
  const int warm = rounds / 4;
  long before = 0;
  int threads = 0, files = 0;
  for (int i = 0; i < rounds; ++i) {
    if (i == warm) before = resident_kb(), threads = entries("/proc/self/task"), files = entries("/proc/self/fd");
    struct seen s;
    seen_init(&s);
    struct chatllm_obj *obj = create(&s);
    chatllm_append_param(obj, "-n");
    chatllm_append_param(obj, i % 10 == 0 ? "3" : "1");
    CHECK(chatllm_start(obj, on_print, on_end, &s) == 0);
    if (i % 3 == 0) {
      char text[256];
      tag(text, sizeof text);
      CHECK(chatllm_async_user_input(obj, text) == 0);
      wait_completed(&s, 1);
    } else {
      CHECK(chatllm_asr_run(obj, pcm, 12000, NULL) == 0);
    }
    CHECK(chatllm_destroy(obj) == 0);
  }
  const long growth = resident_kb() - before;
  printf("%d rounds: %ld kB of growth after the first %d\n", rounds, growth, warm);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(growth < 1000);
#endif
  CHECK(entries("/proc/self/task") == threads);
  CHECK(entries("/proc/self/fd") == files);
  free(pcm);
}

static long peak_kb(void) {
  char line[128];
  long kb = 0;
  FILE *file = fopen("/proc/self/status", "r");
  if (file == NULL) return 0;
  while (fgets(line, sizeof line, file) != NULL)
    if (sscanf(line, "VmHWM: %ld", &kb) == 1) break;
  fclose(file);
  return kb;
}

/* Audio is looked at before there is memory for it: 10 MB that would be 160 million samples, sparse gigabytes, and
 * files without an end. */
static void test_memory_of_audio_that_does_not_fit(void) {
  struct seen s;
  struct chatllm_obj *obj = create(&s);
  seen_init(&s);
  chatllm_append_param(obj, "-c");
  chatllm_append_param(obj, "4096");
  CHECK(chatllm_start(obj, on_print, on_end, &s) == 0);
  static char path[] = "/tmp/chatllm-long-XXXXXX";
  const int fd = mkstemp(path);
  CHECK(fd >= 0);
  char text[256];
  snprintf(text, sizeof text, "{{audio:%s}}", path);
  const long before = peak_kb();

  size_t size;
  unsigned char *head = make_wav(0, &size);
  const uint32_t rate = 1000, few = 10 << 20, many = 1 << 30;
  memcpy(head + 24, &rate, 4), head[34] = 8, memcpy(head + 40, &few, 4);
  CHECK(write(fd, head, size) == (ssize_t)size && ftruncate(fd, (off_t)(size + few)) == 0);
  CHECK(chatllm_user_input(obj, text) == CHATLLM_ASR_TOO_LONG);
  CHECK(strstr(s.error, "cut it first") != NULL);

  memcpy(head + 40, &many, 4), head[34] = 16;
  CHECK(pwrite(fd, head, size, 0) == (ssize_t)size && ftruncate(fd, (off_t)(size + many)) == 0);
  CHECK(chatllm_user_input(obj, text) == CHATLLM_ASR_TOO_LONG);
  CHECK(pwrite(fd, "xxxx", 4, 0) == 4); /* no WAV file at all */
  CHECK(chatllm_user_input(obj, text) == CHATLLM_ASR_BAD_AUDIO);
  CHECK(chatllm_user_input(obj, "{{audio:/dev/zero}}") == CHATLLM_ASR_BAD_AUDIO);
  CHECK(strstr(s.error, "not a WAV file") != NULL);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(peak_kb() - before < 20000);
#else
  (void)before; /* sanitizers keep what is freed */
#endif
  close(fd), unlink(path), free(head);
  CHECK(chatllm_destroy(obj) == 0);
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

#define RUN(call)                                                                               \
  do {                                                                                          \
    const double start = seconds();                                                             \
    const int before = failures;                                                                \
    call;                                                                                       \
    printf("%-4s %s (%.2f s)\n", failures == before ? "ok" : "FAIL", #call, seconds() - start); \
    fflush(stdout);                                                                             \
  } while (0)

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  model_path = argv[1], aligner_path = argv[2];
  const int rounds = argc > 3 ? atoi(argv[3]) : getenv("CHATLLM_TEST_SLOW") != NULL ? 3000 : 300;
  const int fd = mkstemp(wav_path);
  size_t size;
  unsigned char *wav = make_wav(24000, &size);
  if (fd < 0 || write(fd, wav, size) != (ssize_t)size) return 1;
  close(fd);
  free(wav);
  RUN(test_symbols());
  RUN(test_wrong_calls());
  RUN(test_options());
  RUN(test_ignored_options());
  RUN(test_settings_after_the_start());
  RUN(test_alignment_by_message());
  RUN(test_ways_of_giving_audio());
  RUN(test_vocabulary());
  RUN(test_abort());
  RUN(test_calls_while_busy());
  RUN(test_unsupported());
  RUN(test_fork());
  RUN(test_objects_on_several_threads());
  RUN(test_submitted_runs());
  RUN(test_cancel_and_release());
  RUN(test_live_runs());
  RUN(test_wrong_submits());
  RUN(test_runs_of_many_threads());
  RUN(test_destroy_in_answer_to_the_end());
  RUN(test_fork_while_loading());
  RUN(test_memory_of_audio_that_does_not_fit());
  RUN(test_rounds_without_growth(rounds));
  unlink(wav_path);
  printf(failures == 0 ? "all passed\n" : "%d failures\n", failures);
  return failures != 0;
}
