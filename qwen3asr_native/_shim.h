/* _shim.h - between the engine and Python: events collected in C, so that the engine's threads never call Python.
 *
 * A session is one chatllm object, at most one run at a time, and the events of that run in order. The run happens on a
 * thread of the session; callbacks stamp the time and append; Python takes events whenever it likes, without the GIL.
 * So a slow or busy consumer neither slows a token nor moves its time stamp.
 */
#ifndef QWEN3ASR_SHIM_H
#define QWEN3ASR_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include "libchatllm.h"
#include "libchatllm_asr.h"

/* Where the calls go: the engine compiled in, or a library opened by path. The asr_ entries of a library that has only
 * upstream's API are NULL. */
typedef struct q3a_api {
  struct chatllm_obj *(API_CALL *create)(void);
  int(API_CALL *destroy)(struct chatllm_obj *);
  void(API_CALL *append_param)(struct chatllm_obj *, const char *);
  int(API_CALL *start)(struct chatllm_obj *, f_chatllm_print, f_chatllm_end, void *);
  void(API_CALL *set_gen_max_tokens)(struct chatllm_obj *, int);
  void(API_CALL *restart)(struct chatllm_obj *, const char *);
  int(API_CALL *user_input)(struct chatllm_obj *, const char *);
  void(API_CALL *abort_generation)(struct chatllm_obj *);

  void(API_CALL *asr_set_token_callback)(struct chatllm_obj *, f_chatllm_asr_token, void *);
  int(API_CALL *asr_run)(struct chatllm_obj *, const float *, int64_t, const chatllm_asr_options *);
  int(API_CALL *asr_get_timings)(struct chatllm_obj *, chatllm_asr_timings *);
  int(API_CALL *asr_log_mel)(struct chatllm_obj *, const float *, int64_t, float **, int64_t *);
  int(API_CALL *asr_encode)(struct chatllm_obj *, const float *, int64_t, int, float **, int64_t *);
  int(API_CALL *asr_prefill_logits)(struct chatllm_obj *, const float *, int64_t, const chatllm_asr_options *, float **,
                                    int64_t *);
  void(API_CALL *asr_free)(void *);
  int64_t(API_CALL *asr_prompt_ids)(struct chatllm_obj *, int64_t, const chatllm_asr_options *, int32_t *, int64_t);
  const char *(API_CALL *asr_last_error)(struct chatllm_obj *);
  const char *(API_CALL *asr_model_info)(struct chatllm_obj *);
} q3a_api;

/* The engine compiled into this module. */
const q3a_api *q3a_embedded(void);

/* The library at a path; it stays open until the process ends, because its threads may outlive its objects. plain: use
 * upstream's API only, even where the library has ours. NULL, and a message, when it cannot be opened or lacks a
 * function. */
const q3a_api *q3a_open_library(const char *path, int plain, char *message, size_t capacity);

enum q3a_event_kind {
  Q3A_NONE = 0,  /* nothing within the time-out */
  Q3A_BEGIN = 1, /* the run was handed to the engine */
  Q3A_TOKEN = 2, /* a token with id and log-probability */
  Q3A_CHUNK = 3, /* text of a library without token events */
  Q3A_LINE = 4,  /* a printed line; id is its PrintType */
  Q3A_END = 5    /* the run is over; id is the engine's status, the text says what failed; no event follows */
};

typedef struct q3a_event {
  int64_t time_ns; /* CLOCK_MONOTONIC, in the engine's thread */
  int32_t kind;
  int32_t id;
  float logprob;
  int32_t special;
  int32_t text_len;
  const char *text; /* not terminated; valid until the next q3a_next on the session */
} q3a_event;

typedef struct q3a_session q3a_session;

/* A session with a new object, not started. NULL when memory is short. */
q3a_session *q3a_new(const q3a_api *api);

/* Loads the model; printed lines become events. Returns the engine's result. */
int q3a_start(q3a_session *session);

struct chatllm_obj *q3a_object(q3a_session *session);

/* Begins a run on the session's thread. pcm and what options point to must live until Q3A_END.
 * 0, CHATLLM_ASR_BUSY, CHATLLM_ASR_NOT_STARTED or CHATLLM_ASR_NO_MEMORY. */
int q3a_run_pcm(q3a_session *session, const float *pcm, int64_t n_samples, const chatllm_asr_options *options);

/* The same for a library without PCM input: input is the text with a file tag. context may be NULL. */
int q3a_run_text(q3a_session *session, const char *input, const char *context, int max_new_tokens);

/* Takes the next event, waiting at most timeout_ms. Returns its kind. */
int q3a_next(q3a_session *session, q3a_event *event, int timeout_ms);

/* Stops the current run, if there is one; from any thread, also before the run has reached the engine. */
void q3a_abort(q3a_session *session);

/* Waits for the end of the current run without taking its events. 1: no run is going on. */
int q3a_wait_end(q3a_session *session, int timeout_ms);

/* Of the run whose Q3A_END was taken; zeros where the library does not measure. */
const chatllm_asr_timings *q3a_timings(const q3a_session *session);

/* Frees the engine's object; events already made stay readable. The engine's result; non-zero while a run goes on. */
int q3a_destroy_object(q3a_session *session);

/* Frees the session. Its object must be destroyed, or is abandoned (in a forked child, where its threads are gone). */
void q3a_free(q3a_session *session);

/* The clock of all time stamps. */
int64_t q3a_now_ns(void);

#endif
