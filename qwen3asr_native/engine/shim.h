/* shim.h - between the engine and Python: events collected in C++, so that the engine's threads never call Python.
 *
 * A machine is one chatllm object. A run is one utterance on it, with its events in order; any number of runs may be
 * under way. Callbacks stamp the time and append; Python takes events whenever it likes, without the GIL, so a slow or
 * busy reader neither slows a token nor moves its time stamp.
 *
 * Two ways to the engine: libraries with our additions get every run at once (chatllm_asr_submit). Libraries with only
 * chatllm.cpp's own API run one after the other, on a thread of the machine.
 *
 * In a forked child the engine's threads are gone: every call there does nothing but say CHATLLM_ASR_FORKED.
 */
#ifndef QWEN3ASR_SHIM_H
#define QWEN3ASR_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include "libchatllm.h"
#include "libchatllm_asr.h"

#ifdef __cplusplus
extern "C" {
#endif

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

  chatllm_asr_run_t *(API_CALL *asr_submit)(struct chatllm_obj *, const float *, int64_t, const chatllm_asr_options *,
                                            f_chatllm_asr_event, void *);
  int(API_CALL *asr_feed)(chatllm_asr_run_t *, const float *, int64_t, int);
  void(API_CALL *asr_cancel)(chatllm_asr_run_t *);
  void(API_CALL *asr_release)(chatllm_asr_run_t *);
  int(API_CALL *asr_log_mel)(struct chatllm_obj *, const float *, int64_t, float **, int64_t *);
  int(API_CALL *asr_encode)(struct chatllm_obj *, const float *, int64_t, int, float **, int64_t *);
  int(API_CALL *asr_prefill_logits)(struct chatllm_obj *, const float *, int64_t, const chatllm_asr_options *, float **,
                                    int64_t *);
  void(API_CALL *asr_free)(void *);
  int64_t(API_CALL *asr_prompt_ids)(struct chatllm_obj *, int64_t, const chatllm_asr_options *, int32_t *, int64_t);
  int(API_CALL *asr_last_status)(void);
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
  Q3A_STEP = 5,  /* live speech: the hypothesis is whole; the next token begins a new one */
  Q3A_END = 6 /* the run is over; id is the engine's status, the text says what failed; comes again when asked again */
};

typedef struct q3a_event {
  int64_t time_ns; /* CLOCK_MONOTONIC, in the engine's thread */
  int32_t kind;
  int32_t id;
  float logprob;
  int32_t special;
  int32_t text_len;
  const char *text; /* not terminated; valid until the next q3a_next on the run */
} q3a_event;

typedef struct q3a_machine q3a_machine;
typedef struct q3a_run q3a_run;

/* A machine with a new object, not started. NULL when memory is short. */
q3a_machine *q3a_new(const q3a_api *api);

/* Loads the model. Returns the engine's result. */
int q3a_start(q3a_machine *machine);

/* The next line that the start has printed, as an event of kind Q3A_LINE; Q3A_NONE after the last. */
int q3a_next_line(q3a_machine *machine, q3a_event *event);

struct chatllm_obj *q3a_object(q3a_machine *machine);

/* Cancels every run, waits for their ends, frees the engine's object. Events already made stay readable. */
int q3a_destroy_object(q3a_machine *machine);

/* Frees the machine, when its runs are freed too. */
void q3a_free(q3a_machine *machine);

/* A run that has not begun. NULL when memory is short. */
q3a_run *q3a_new_run(q3a_machine *machine);

/* Begins it. What fails is the run's end, as what fails later: every begun run ends. The samples are copied. */
void q3a_submit(q3a_run *run, const float *pcm, int64_t n_samples, const chatllm_asr_options *options);

/* The same for a library without PCM input: input is the text with a file tag. context may be NULL. */
void q3a_submit_text(q3a_run *run, const char *input, const char *context, int max_new_tokens);

/* More audio for a run with options->live; last: there will be no more. The engine's status. */
int q3a_feed(q3a_run *run, const float *pcm, int64_t n_samples, int last);

/* Takes the next event, waiting at most timeout_ms. Returns its kind, or CHATLLM_ASR_FORKED. */
int q3a_next(q3a_run *run, q3a_event *event, int timeout_ms);

/* Stops the run within one decode step; from any thread, at any time. Its end comes with CHATLLM_ASR_FINISH_ABORT. */
void q3a_cancel(q3a_run *run);

/* Waits for the end of the run without taking its events. 1: it has ended, or has never begun. */
int q3a_wait_end(q3a_run *run, int timeout_ms);

/* Waits until the number of runs of the machine that have ended is not `known`; returns it. */
int64_t q3a_wait_any_end(q3a_machine *machine, int64_t known, int timeout_ms);

/* Of the last step or end that was made; zeros where the library does not measure. */
void q3a_timings(q3a_run *run, chatllm_asr_timings *timings);

/* Cancels the run if it goes on, and frees it. */
void q3a_free_run(q3a_run *run);

/* The clock of all time stamps. */
int64_t q3a_now_ns(void);

#ifdef __cplusplus
}
#endif

#endif
