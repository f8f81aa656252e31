#include "_shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_platform.h"

/* ---- events: a chain of blocks, filled at the tail, read at the head ---- */

enum { BLOCK_BYTES = 16 * 1024 };

typedef struct record {
  q3a_event event;
  char text[];
} record;

typedef struct block {
  struct block *next;
  size_t capacity, used, read;
  unsigned char bytes[];
} block;

struct q3a_session {
  const q3a_api *api;
  struct chatllm_obj *object;
  int started;

  pf_mutex mutex; /* guards all below */
  pf_cond changed;
  block *head, *tail;
  int lost; /* an event found no memory */
  int running;
  int abort_wanted;
  int joinable;
  pf_thread worker;

  /* The run; written before its thread starts, read by that thread. */
  const float *pcm;
  int64_t n_samples;
  chatllm_asr_options options;
  char *input, *context;
  int max_new_tokens;

  chatllm_asr_timings timings; /* of the last run; written by its thread before the last event */
};

static size_t record_bytes(size_t text_len) {
  return (offsetof(record, text) + text_len + 7) & ~(size_t)7;
}

static block *block_with_room(q3a_session *session, size_t bytes) {
  block *tail = session->tail;
  if (tail != NULL && tail->capacity - tail->used >= bytes) return tail;
  size_t capacity = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
  block *fresh = (block *)malloc(offsetof(block, bytes) + capacity);
  if (fresh == NULL) return NULL;
  fresh->next = NULL;
  fresh->capacity = capacity;
  fresh->used = fresh->read = 0;
  if (tail != NULL)
    tail->next = fresh;
  else
    session->head = fresh;
  session->tail = fresh;
  return fresh;
}

/* Appends under the lock. */
static void append(q3a_session *session, q3a_event event, const char *text, size_t text_len) {
  size_t bytes = record_bytes(text_len);
  block *target = block_with_room(session, bytes);
  if (target == NULL) {
    session->lost = 1;
    return;
  }
  record *slot = (record *)(target->bytes + target->used);
  slot->event = event;
  slot->event.text_len = (int32_t)text_len;
  if (text_len > 0) memcpy(slot->text, text, text_len);
  target->used += bytes;
}

static void push(q3a_session *session, q3a_event event, const char *text, size_t text_len) {
  pf_lock(&session->mutex);
  append(session, event, text, text_len);
  pf_broadcast(&session->changed);
  pf_unlock(&session->mutex);
}

/* Frees blocks that are read to the end, but keeps the last one for the events to come. */
static void drop_read_blocks(q3a_session *session) {
  while (session->head != NULL && session->head->read == session->head->used) {
    block *done = session->head;
    if (done->next == NULL) {
      done->read = done->used = 0;
      return;
    }
    session->head = done->next;
    free(done);
  }
}

static void clear_events(q3a_session *session) {
  while (session->head != NULL) {
    block *next = session->head->next;
    free(session->head);
    session->head = next;
  }
  session->tail = NULL;
  session->lost = 0;
}

/* ---- callbacks, in the engine's thread ---- */

/* An abort that came before the engine had begun the run would be forgotten: it is repeated at the first sign of life.
 */
static void repeat_abort(q3a_session *session) {
  pf_lock(&session->mutex);
  int wanted = session->abort_wanted;
  pf_unlock(&session->mutex);
  if (wanted) session->api->abort_generation(session->object);
}

static void on_token(void *user_data, const chatllm_asr_token *token) {
  q3a_session *session = (q3a_session *)user_data;
  q3a_event event = {0};
  event.kind = Q3A_TOKEN;
  event.time_ns = token->time_ns;
  event.id = token->id;
  event.logprob = token->logprob;
  event.special = token->special;
  push(session, event, token->text, token->text_len > 0 ? (size_t)token->text_len : 0);
  repeat_abort(session);
}

static void on_print(void *user_data, int print_type, const char *utf8_str) {
  q3a_session *session = (q3a_session *)user_data;
  q3a_event event = {0};
  event.time_ns = pf_now_ns();
  if (print_type == PRINT_CHAT_CHUNK) {
    if (session->api->asr_set_token_callback != NULL) return; /* the token event has said it */
    event.kind = Q3A_CHUNK;
    event.id = -1;
    push(session, event, utf8_str, strlen(utf8_str));
    repeat_abort(session);
    return;
  }
  event.kind = Q3A_LINE;
  event.id = print_type;
  push(session, event, utf8_str, utf8_str != NULL ? strlen(utf8_str) : 0);
}

static void on_end(void *user_data) {
  (void)user_data;
} /* the return of the blocking call is the end */

/* ---- runs ---- */

static int run_engine(q3a_session *session) {
  const q3a_api *api = session->api;
  if (session->input == NULL) return api->asr_run(session->object, session->pcm, session->n_samples, &session->options);
  api->restart(session->object, session->context);
  api->set_gen_max_tokens(session->object, session->max_new_tokens);
  return api->user_input(session->object, session->input);
}

static void run_main(void *argument) {
  q3a_session *session = (q3a_session *)argument;
  q3a_event event = {0};
  event.kind = Q3A_BEGIN;
  event.time_ns = pf_now_ns();
  push(session, event, NULL, 0);

  int status = run_engine(session);

  const q3a_api *api = session->api;
  memset(&session->timings, 0, sizeof session->timings);
  session->timings.size = sizeof session->timings;
  if (api->asr_get_timings != NULL) api->asr_get_timings(session->object, &session->timings);
  const char *message = status != 0 && api->asr_last_error != NULL ? api->asr_last_error(session->object) : NULL;

  memset(&event, 0, sizeof event);
  event.kind = Q3A_END;
  event.time_ns = pf_now_ns();
  pf_lock(&session->mutex);
  event.id = session->lost && status == 0 ? CHATLLM_ASR_NO_MEMORY : status;
  append(session, event, message, message != NULL ? strlen(message) : 0);
  session->running = 0;
  pf_broadcast(&session->changed);
  pf_unlock(&session->mutex);
}

static void join_finished(q3a_session *session) {
  if (!session->joinable) return;
  pf_thread_join(session->worker);
  session->joinable = 0;
}

static char *copy_text(const char *text) {
  size_t bytes = strlen(text) + 1;
  char *copy = (char *)malloc(bytes);
  if (copy != NULL) memcpy(copy, text, bytes);
  return copy;
}

static void free_texts(q3a_session *session) {
  free(session->input);
  free(session->context);
  session->input = session->context = NULL;
}

/* 0 when the session may begin a run: the last one is over and its thread joined. */
static int prepare_run(q3a_session *session) {
  if (session->object == NULL || !session->started) return CHATLLM_ASR_NOT_STARTED;
  pf_lock(&session->mutex);
  int running = session->running;
  if (!running) {
    clear_events(session);
    session->abort_wanted = 0;
  }
  pf_unlock(&session->mutex);
  if (running) return CHATLLM_ASR_BUSY;
  join_finished(session);
  free_texts(session);
  return 0;
}

static int begin_run(q3a_session *session) {
  pf_lock(&session->mutex);
  session->running = session->joinable = pf_thread_create(&session->worker, run_main, session) == 0;
  pf_unlock(&session->mutex); /* the new thread's first event waits for this */
  return session->joinable ? 0 : CHATLLM_ASR_NO_MEMORY;
}

int q3a_run_pcm(q3a_session *session, const float *pcm, int64_t n_samples, const chatllm_asr_options *options) {
  int status = prepare_run(session);
  if (status != 0) return status;
  session->pcm = pcm;
  session->n_samples = n_samples;
  session->options = *options;
  return begin_run(session);
}

int q3a_run_text(q3a_session *session, const char *input, const char *context, int max_new_tokens) {
  int status = prepare_run(session);
  if (status != 0) return status;
  session->input = copy_text(input);
  session->context = context != NULL ? copy_text(context) : NULL;
  session->max_new_tokens = max_new_tokens;
  if (session->input == NULL || (context != NULL && session->context == NULL)) {
    free_texts(session);
    return CHATLLM_ASR_NO_MEMORY;
  }
  return begin_run(session);
}

int q3a_next(q3a_session *session, q3a_event *event, int timeout_ms) {
  int64_t deadline = pf_now_ns() + (int64_t)timeout_ms * 1000000;
  memset(event, 0, sizeof *event);
  pf_lock(&session->mutex);
  drop_read_blocks(session);
  while (session->head == NULL || session->head->read == session->head->used) {
    if (!session->running || pf_now_ns() >= deadline) {
      /* Without memory for its last event, a run still ends. */
      if (!session->running && session->lost) {
        event->kind = Q3A_END;
        event->id = CHATLLM_ASR_NO_MEMORY;
        event->time_ns = pf_now_ns();
      }
      pf_unlock(&session->mutex);
      return event->kind;
    }
    pf_wait_until(&session->changed, &session->mutex, deadline);
    drop_read_blocks(session);
  }
  block *source = session->head;
  record *slot = (record *)(source->bytes + source->read);
  source->read += record_bytes((size_t)slot->event.text_len);
  *event = slot->event;
  event->text = slot->text;
  pf_unlock(&session->mutex);
  return event->kind;
}

void q3a_abort(q3a_session *session) {
  pf_lock(&session->mutex);
  int running = session->running;
  if (running) session->abort_wanted = 1;
  pf_unlock(&session->mutex);
  if (running) session->api->abort_generation(session->object);
}

int q3a_wait_end(q3a_session *session, int timeout_ms) {
  int64_t deadline = pf_now_ns() + (int64_t)timeout_ms * 1000000;
  pf_lock(&session->mutex);
  while (session->running && pf_now_ns() < deadline) pf_wait_until(&session->changed, &session->mutex, deadline);
  int ended = !session->running;
  pf_unlock(&session->mutex);
  return ended;
}

const chatllm_asr_timings *q3a_timings(const q3a_session *session) {
  return &session->timings;
}

/* ---- life ---- */

q3a_session *q3a_new(const q3a_api *api) {
  q3a_session *session = (q3a_session *)calloc(1, sizeof *session);
  if (session == NULL) return NULL;
  if (pf_sync_init(&session->mutex, &session->changed) != 0) {
    free(session);
    return NULL;
  }
  session->api = api;
  session->object = api->create();
  if (session->object == NULL) {
    pf_sync_destroy(&session->mutex, &session->changed);
    free(session);
    return NULL;
  }
  return session;
}

int q3a_start(q3a_session *session) {
  int status = session->api->start(session->object, on_print, on_end, session);
  if (status == 0) {
    session->started = 1;
    if (session->api->asr_set_token_callback != NULL)
      session->api->asr_set_token_callback(session->object, on_token, session);
  }
  return status;
}

struct chatllm_obj *q3a_object(q3a_session *session) {
  return session->object;
}

int q3a_destroy_object(q3a_session *session) {
  if (session->object == NULL) return 0;
  if (!q3a_wait_end(session, 0)) return CHATLLM_ASR_BUSY;
  join_finished(session);
  int status = session->api->destroy(session->object);
  if (status != 0) return status;
  session->object = NULL;
  session->started = 0;
  free_texts(session);
  pf_release_memory();
  return 0;
}

void q3a_free(q3a_session *session) {
  clear_events(session);
  free_texts(session);
  /* In a forked child somebody may seem to wait for ever on the condition: destroying it would wait for them. */
  if (session->object == NULL) pf_sync_destroy(&session->mutex, &session->changed);
  free(session);
}

int64_t q3a_now_ns(void) {
  return pf_now_ns();
}

/* ---- function tables ---- */

const q3a_api *q3a_embedded(void) {
  static const q3a_api api = {
      .create = chatllm_create,
      .destroy = chatllm_destroy,
      .append_param = chatllm_append_param,
      .start = chatllm_start,
      .set_gen_max_tokens = chatllm_set_gen_max_tokens,
      .restart = chatllm_restart,
      .user_input = chatllm_user_input,
      .abort_generation = chatllm_abort_generation,
      .asr_set_token_callback = chatllm_asr_set_token_callback,
      .asr_run = chatllm_asr_run,
      .asr_get_timings = chatllm_asr_get_timings,
      .asr_log_mel = chatllm_asr_log_mel,
      .asr_encode = chatllm_asr_encode,
      .asr_prefill_logits = chatllm_asr_prefill_logits,
      .asr_free = chatllm_asr_free,
      .asr_prompt_ids = chatllm_asr_prompt_ids,
      .asr_last_error = chatllm_asr_last_error,
      .asr_model_info = chatllm_asr_model_info,
  };
  return &api;
}

typedef struct symbol {
  const char *name;
  size_t offset;
} symbol;

static const symbol upstream_symbols[] = {
    {"chatllm_create", offsetof(q3a_api, create)},
    {"chatllm_destroy", offsetof(q3a_api, destroy)},
    {"chatllm_append_param", offsetof(q3a_api, append_param)},
    {"chatllm_start", offsetof(q3a_api, start)},
    {"chatllm_set_gen_max_tokens", offsetof(q3a_api, set_gen_max_tokens)},
    {"chatllm_restart", offsetof(q3a_api, restart)},
    {"chatllm_user_input", offsetof(q3a_api, user_input)},
    {"chatllm_abort_generation", offsetof(q3a_api, abort_generation)},
};

static const symbol asr_symbols[] = {
    {"chatllm_asr_set_token_callback", offsetof(q3a_api, asr_set_token_callback)},
    {"chatllm_asr_run", offsetof(q3a_api, asr_run)},
    {"chatllm_asr_get_timings", offsetof(q3a_api, asr_get_timings)},
    {"chatllm_asr_log_mel", offsetof(q3a_api, asr_log_mel)},
    {"chatllm_asr_encode", offsetof(q3a_api, asr_encode)},
    {"chatllm_asr_prefill_logits", offsetof(q3a_api, asr_prefill_logits)},
    {"chatllm_asr_free", offsetof(q3a_api, asr_free)},
    {"chatllm_asr_prompt_ids", offsetof(q3a_api, asr_prompt_ids)},
    {"chatllm_asr_last_error", offsetof(q3a_api, asr_last_error)},
    {"chatllm_asr_model_info", offsetof(q3a_api, asr_model_info)},
};

/* Fills table entries by name; returns the first name that the library lacks, or NULL. */
static const char *fill(q3a_api *api, void *library, const symbol *symbols, size_t count) {
  for (size_t i = 0; i < count; i++) {
    void *address = pf_library_symbol(library, symbols[i].name);
    if (address == NULL) return symbols[i].name;
    memcpy((char *)api + symbols[i].offset, &address, sizeof address);
  }
  return NULL;
}

const q3a_api *q3a_open_library(const char *path, int plain, char *message, size_t capacity) {
  void *library = pf_library_open(path, message, capacity);
  if (library == NULL) return NULL;
  q3a_api upstream = {0};
  const char *missing = fill(&upstream, library, upstream_symbols, sizeof upstream_symbols / sizeof *upstream_symbols);
  q3a_api *api = missing == NULL ? (q3a_api *)malloc(sizeof *api) : NULL;
  if (api == NULL) {
    if (missing != NULL)
      snprintf(message, capacity, "it has no function %s", missing);
    else
      snprintf(message, capacity, "out of memory");
    pf_library_close(library);
    return NULL;
  }
  *api = upstream;
  if (!plain && fill(api, library, asr_symbols, sizeof asr_symbols / sizeof *asr_symbols) != NULL)
    *api = upstream; /* all of the additions or none */
  return api;
}
