/* fake_libchatllm.c - a library with chatllm.cpp's own C API and no model behind it, to test how the package drives
 * one.
 *
 * The "model" is a text file of settings: "steps N" chunks in an answer, "delay_ms N" before each, "fail TEXT" prints
 * an error while answering. The answer says what arrived: system prompt, samples of the WAV file, forced language,
 * limit.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libchatllm.h"

enum { TEXT = 512 };

struct chatllm_obj {
  char model[TEXT], language[TEXT], system[TEXT], failure[TEXT];
  char option[TEXT]; /* the option that waits for its value */
  int steps, delay_ms, limit;
  volatile int stop;
  f_chatllm_print print;
  f_chatllm_end end;
  void *user_data;
};

static void copy(char *to, const char *from) {
  snprintf(to, TEXT, "%s", from);
}

struct chatllm_obj *chatllm_create(void) {
  return calloc(1, sizeof(struct chatllm_obj));
}

int chatllm_destroy(struct chatllm_obj *obj) {
  free(obj);
  return 0;
}

void chatllm_append_param(struct chatllm_obj *obj, const char *word) {
  if (strcmp(obj->option, "-m") == 0) copy(obj->model, word);
  if (strcmp(obj->option, "language") == 0) copy(obj->language, word);
  copy(obj->option, word);
}

int chatllm_start(struct chatllm_obj *obj, f_chatllm_print print, f_chatllm_end end, void *user_data) {
  obj->print = print;
  obj->end = end;
  obj->user_data = user_data;
  obj->limit = -1;
  FILE *file = fopen(obj->model, "r");
  char line[TEXT];
  if (file == NULL || fgets(line, sizeof line, file) == NULL || strcmp(line, "fake model\n") != 0) {
    print(user_data, PRINTLN_ERROR, "this is no model");
    if (file != NULL) fclose(file);
    return 1;
  }
  obj->steps = 3;
  while (fgets(line, sizeof line, file) != NULL) {
    line[strcspn(line, "\n")] = 0;
    sscanf(line, "steps %d", &obj->steps);
    sscanf(line, "delay_ms %d", &obj->delay_ms);
    if (strncmp(line, "fail ", 5) == 0) copy(obj->failure, line + 5);
  }
  fclose(file);
  print(user_data, PRINTLN_MODEL_INFO, "{\"name\": \"fake\", \"purpose\": \"ASR\"}");
  return 0;
}

void chatllm_set_gen_max_tokens(struct chatllm_obj *obj, int limit) {
  obj->limit = limit;
}

void chatllm_restart(struct chatllm_obj *obj, const char *system) {
  copy(obj->system, system ? system : "");
}

void chatllm_abort_generation(struct chatllm_obj *obj) {
  obj->stop = 1;
}

static void nap(int ms) {
  struct timespec time = {ms / 1000, (ms % 1000) * 1000000L};
  nanosleep(&time, NULL);
}

static long wave_samples(const char *input) {
  const char *prefix = "{{audio:";
  char path[TEXT];
  copy(path, strncmp(input, prefix, strlen(prefix)) == 0 ? input + strlen(prefix) : "");
  path[strcspn(path, "}")] = 0;
  FILE *file = fopen(path, "rb");
  char riff[4];
  if (file == NULL) return -1;
  int good = fread(riff, 1, 4, file) == 4 && memcmp(riff, "RIFF", 4) == 0;
  fseek(file, 0, SEEK_END);
  long bytes = ftell(file);
  fclose(file);
  return good ? (bytes - 44) / 2 : -1;
}

int chatllm_user_input(struct chatllm_obj *obj, const char *input) {
  long samples = wave_samples(input);
  char text[2 * TEXT];
  obj->stop = 0;
  if (samples < 0 || obj->failure[0] != 0) {
    obj->print(obj->user_data, PRINTLN_ERROR, samples < 0 ? "no audio" : obj->failure);
    obj->end(obj->user_data);
    return 0; /* upstream says so by the printed line only */
  }
  /* With a forced language the prompt already ends in "language NAME". */
  if (obj->language[0] == 0) obj->print(obj->user_data, PRINT_CHAT_CHUNK, "language English");
  obj->print(obj->user_data, PRINT_CHAT_CHUNK, "<asr_text>");
  snprintf(text, sizeof text, "%ld samples, system '%s', language '%s', limit %d", samples, obj->system, obj->language,
           obj->limit);
  obj->print(obj->user_data, PRINT_CHAT_CHUNK, text);
  for (int i = 0; i < obj->steps && !obj->stop; i++) {
    nap(obj->delay_ms);
    snprintf(text, sizeof text, " %d", i);
    obj->print(obj->user_data, PRINT_CHAT_CHUNK, text);
  }
  obj->end(obj->user_data);
  return 0;
}
