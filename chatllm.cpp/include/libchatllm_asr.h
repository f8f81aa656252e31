/* libchatllm_asr.h - additions to chatllm.cpp's C API for speech recognition inside a process.
 *
 * PCM input without a file, token events with ids, log-probabilities and time stamps, timings of each stage, the choice
 * of kernels, and the intermediate results that research and tests compare. Objects are those of libchatllm.h. Audio is
 * always 16 kHz mono float32 in [-1, 1]. Times are nanoseconds of CLOCK_MONOTONIC or milliseconds.
 */
#ifndef LIBCHATLLM_ASR_H
#define LIBCHATLLM_ASR_H

#include <stdint.h>

#include "libchatllm.h"

#ifdef __cplusplus
extern "C" {
#endif

enum chatllm_asr_status {
  CHATLLM_ASR_OK = 0,
  CHATLLM_ASR_ERROR = -1, /* anything without a code of its own; chatllm_asr_last_error() says what */
  CHATLLM_ASR_BAD_ARGUMENT = -2,
  CHATLLM_ASR_BAD_MODEL = -3, /* missing, truncated, hostile or unsupported model file */
  CHATLLM_ASR_BAD_AUDIO = -4, /* not audio, NaN or infinite samples */
  CHATLLM_ASR_NO_MEMORY = -5,
  CHATLLM_ASR_BUSY = -6, /* the object is generating */
  CHATLLM_ASR_NOT_STARTED = -7,
  CHATLLM_ASR_TOO_LONG = -8, /* the prompt does not fit the context */
  CHATLLM_ASR_FORKED = -9    /* the process was forked after the model was loaded */
};

enum chatllm_asr_finish {
  CHATLLM_ASR_FINISH_NONE = 0,   /* no run yet, or it failed */
  CHATLLM_ASR_FINISH_STOP = 1,   /* the model ended the text */
  CHATLLM_ASR_FINISH_LENGTH = 2, /* token limit or context full */
  CHATLLM_ASR_FINISH_ABORT = 3,  /* chatllm_abort_generation */
  CHATLLM_ASR_FINISH_LOOP = 4    /* runaway repetition, stopped early */
};

enum chatllm_asr_attention { CHATLLM_ASR_WINDOW = 0, CHATLLM_ASR_FULL = 1 };

typedef struct chatllm_asr_token {
  int64_t time_ns; /* CLOCK_MONOTONIC when the token was chosen */
  int32_t id;
  float logprob; /* natural logarithm, before any temperature */
  const char
      *text; /* bytes of the token, valid during the callback; may be part of a UTF-8 character; not terminated */
  int32_t text_len;
  int32_t special; /* 1 for tokens such as <asr_text> */
} chatllm_asr_token;

typedef void (*f_chatllm_asr_token)(void *user_data, const chatllm_asr_token *token);

/* Called from the generating thread for each token of the answer, stop tokens excluded, before PRINT_CHAT_CHUNK. */
DLL_DECL void API_CALL chatllm_asr_set_token_callback(struct chatllm_obj *obj, f_chatllm_asr_token f_token,
                                                      void *user_data);

typedef struct chatllm_asr_options {
  uint32_t size;          /* sizeof(chatllm_asr_options) of the caller; what an older, shorter one lacks is 0 */
  int32_t max_new_tokens; /* -1: the object's setting, or a limit derived from the length of the audio */
  int32_t attention;      /* chatllm_asr_attention */
  int32_t ignore_stop;    /* 1: generate max_new_tokens whatever comes (tests, benchmarks) */
  const char *language;   /* forced language; NULL, "" or "auto" detects */
  const char *context;    /* system prompt; NULL: the object's */
  const char *prefix;     /* text that the answer starts with, after the forced language; NULL: the object's */
  int32_t live;           /* chatllm_asr_submit: 1: audio comes by chatllm_asr_feed */
} chatllm_asr_options;

/* Recognizes n_samples of audio; blocks; f_end is called at the end. 0 also after an abort (see the finish reason).
 * Audio under 0.5 s is padded with zeros to 0.5 s. options may be NULL. */
DLL_DECL int API_CALL chatllm_asr_run(struct chatllm_obj *obj, const float *pcm, int64_t n_samples,
                                      const chatllm_asr_options *options);

typedef struct chatllm_asr_timings {
  uint32_t
      size; /* set by the caller to sizeof(chatllm_asr_timings); an older, shorter one is filled as far as it goes */
  int32_t finish; /* chatllm_asr_finish */
  int32_t audio_tokens;
  int32_t prompt_tokens; /* audio tokens included */
  int32_t new_tokens;    /* tokens handed out */
  int32_t threads;
  int64_t start_ns;       /* CLOCK_MONOTONIC at the entry of the run */
  int64_t first_token_ns; /* CLOCK_MONOTONIC of the first token; 0 when there was none */
  double audio_ms;        /* length of the audio */
  double load_ms;         /* of chatllm_start */
  double mel_ms;
  double encode_ms;
  double prefill_ms;
  double first_token_ms; /* from the entry to the first token; 0 when there was none */
  double decode_ms;      /* all decode steps after the first token */
  double total_ms;
  double wait_ms;             /* until its turn came; part of the times above that count from the entry */
  int32_t reused_tokens;      /* of the prompt: what was computed of an earlier one */
  int32_t encoded_windows;    /* of the encoder, 8 s each; from here on: of all steps of a live run */
  int32_t recomputed_windows; /* of these, once more because the audio had become louder */
  int32_t drafted_tokens;     /* of earlier hypotheses, verified several at a time */
  int32_t saved_steps;        /* of the decoder: tokens that a draft had right */
} chatllm_asr_timings;

/* Of the last run. */
DLL_DECL int API_CALL chatllm_asr_get_timings(struct chatllm_obj *obj, chatllm_asr_timings *timings);

/* ---- many utterances on one object ---- */

typedef struct chatllm_asr_run_s chatllm_asr_run_t; /* one utterance */

enum chatllm_asr_event_kind {
  CHATLLM_ASR_EVENT_BEGIN = 1, /* its turn came */
  CHATLLM_ASR_EVENT_TOKEN = 2,
  CHATLLM_ASR_EVENT_STEP = 3, /* live: the tokens since the last one are the hypothesis of all audio that was fed */
  CHATLLM_ASR_EVENT_END = 4   /* the last event, whatever happened */
};

/* Pointers are valid during the callback. */
typedef struct chatllm_asr_event {
  uint32_t size;
  int32_t kind; /* chatllm_asr_event_kind */
  int64_t time_ns;
  const chatllm_asr_token *token;     /* TOKEN */
  const chatllm_asr_timings *timings; /* STEP, END */
  int32_t status;                     /* END: chatllm_asr_status; 0 also after a cancel (see the finish reason) */
  const char *message;                /* END: one sentence; "" when nothing went wrong */
} chatllm_asr_event;

/* Called on the object's own thread, without locks. Must not block: all utterances of the object wait for it. It may
 * call submit, feed, cancel and release. */
typedef void (*f_chatllm_asr_event)(void *user_data, const chatllm_asr_event *event);

/* Queues an utterance and returns at once; from any thread, any number at a time. The samples and the texts of the
 * options are copied. Events may come before this returns; exactly one END comes, unless the run is released before.
 * With options->live more audio comes by chatllm_asr_feed; n_samples may be 0.
 * NULL on failure: chatllm_asr_last_status() and chatllm_asr_last_error(NULL) say why. What is wrong with the audio is
 * said by END. The handle is valid until chatllm_asr_release, even after chatllm_destroy. */
DLL_DECL chatllm_asr_run_t *API_CALL chatllm_asr_submit(struct chatllm_obj *obj, const float *pcm, int64_t n_samples,
                                                        const chatllm_asr_options *options, f_chatllm_asr_event f_event,
                                                        void *user_data);

/* More audio of a live run; copied. Each step of the engine makes a hypothesis of all audio so far: TOKEN events of the
 * whole hypothesis, then STEP; audio that is fed meanwhile waits for the next step. With `last` the hypothesis ends in
 * END instead, and is that of a run of the same audio. From any thread. Status; failures as for submit. */
DLL_DECL int API_CALL chatllm_asr_feed(chatllm_asr_run_t *run, const float *pcm, int64_t n_samples, int last);

/* From any thread, at any time, any number of times; returns at once. END comes with CHATLLM_ASR_FINISH_ABORT within
 * one step, unless the run has ended by itself. Other runs are not touched. */
DLL_DECL void API_CALL chatllm_asr_cancel(chatllm_asr_run_t *run);

/* Gives the handle back; cancels a run that has not ended. After it returns, no event of this run comes: it waits for
 * one that is under way, unless it is called from a callback of the object. */
DLL_DECL void API_CALL chatllm_asr_release(chatllm_asr_run_t *run);

/* The chatllm_asr_status of this thread's last failure in submit or feed. */
DLL_DECL int API_CALL chatllm_asr_last_status(void);

/* Intermediate results, float32, in memory that chatllm_asr_free gives back. Short audio is not padded.
 *   log_mel         [128, frames]            shape[0] = bins, shape[1] = frames
 *   encode          [audio tokens, hidden]   what replaces the embeddings of <|audio_pad|>
 *   prefill_logits  [vocabulary]             after the last position of the prompt; shape[0] = 1
 */
DLL_DECL int API_CALL chatllm_asr_log_mel(struct chatllm_obj *obj, const float *pcm, int64_t n_samples, float **data,
                                          int64_t shape[2]);
DLL_DECL int API_CALL chatllm_asr_encode(struct chatllm_obj *obj, const float *pcm, int64_t n_samples, int attention,
                                         float **data, int64_t shape[2]);
DLL_DECL int API_CALL chatllm_asr_prefill_logits(struct chatllm_obj *obj, const float *pcm, int64_t n_samples,
                                                 const chatllm_asr_options *options, float **data, int64_t shape[2]);
DLL_DECL void API_CALL chatllm_asr_free(void *data);

/* ---- word times, with a forced aligner model ---- */

/* When each unit of a text is said: times[2 * i] is the start and times[2 * i + 1] the end of units[i], in milliseconds
 * from the beginning of the audio; none is less than the one before. A unit is a word without punctuation, or one
 * ideograph. Times are those of the official package: multiples of the model's step, which may lie past the end of the
 * audio. attention as in the options. n_units may be 0. */
DLL_DECL int API_CALL chatllm_asr_align(struct chatllm_obj *obj, const float *pcm, int64_t n_samples,
                                        const char *const *units, int64_t n_units, int attention, double *times);

/* The scores [2 * n_units, time classes] that the times are chosen from, as other intermediate results. */
DLL_DECL int API_CALL chatllm_asr_align_scores(struct chatllm_obj *obj, const float *pcm, int64_t n_samples,
                                               const char *const *units, int64_t n_units, int attention, float **data,
                                               int64_t shape[2]);

/* What chatllm_asr_align does to the n times of the best classes, in place: those that break the order are moved. */
DLL_DECL int API_CALL chatllm_asr_repair_times(double *times, int64_t n);

/* Ids of the prompt for n_samples of audio, as run() builds it. Returns their number (negative: a status); writes at
 * most capacity of them. */
DLL_DECL int64_t API_CALL chatllm_asr_prompt_ids(struct chatllm_obj *obj, int64_t n_samples,
                                                 const chatllm_asr_options *options, int32_t *ids, int64_t capacity);

/* What went wrong in the object's last failed call: one sentence, valid until its next call. obj may be NULL: the
 * thread's last failure without an object, or in submit or feed. */
DLL_DECL const char *API_CALL chatllm_asr_last_error(struct chatllm_obj *obj);

/* The loaded model as JSON (sizes, languages, kernels, threads, tensor type, path); owned by the object. NULL before
 * the start. */
DLL_DECL const char *API_CALL chatllm_asr_model_info(struct chatllm_obj *obj);

/* Names of the kernel sets that this CPU can run, best first, separated by commas; the last is "generic". */
DLL_DECL const char *API_CALL chatllm_asr_kernel_sets(void);

/* What the machine can do: the limits that a run's times are held against. Per second, all threads together; a multiply
 * and an add are two operations. Measured with the widest instructions that the kernel set uses. */
typedef struct chatllm_asr_machine {
  uint32_t size; /* set by the caller to sizeof(chatllm_asr_machine) */
  int32_t threads;
  double int8_ops;   /* dot products of bytes in vector registers */
  double bf16_ops;   /* on the matrix unit where the set has one, else float_ops */
  double float_ops;  /* float32 multiply-adds */
  double read_bytes; /* reading memory far larger than the caches */
} chatllm_asr_machine;

/* Takes about a second and 256 MB. kernels: NULL or as for --kernels; threads: 0 for the CPUs that the process may use.
 */
DLL_DECL int API_CALL chatllm_asr_measure_machine(const char *kernels, int threads, chatllm_asr_machine *machine);

/* Version of the engine. */
DLL_DECL const char *API_CALL chatllm_asr_version(void);

#ifdef __cplusplus
}
#endif

#endif
