"""The cffi module ``qwen3asr_native._native``: what Python calls of the shim and of the engine."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent if "__file__" in globals() else Path.cwd()

CDEF = """
struct chatllm_obj;

typedef struct chatllm_asr_options {
  uint32_t size;
  int32_t max_new_tokens;
  int32_t attention;
  int32_t ignore_stop;
  const char *language;
  const char *context;
  const char *prefix;
  int32_t live;
} chatllm_asr_options;

typedef struct chatllm_asr_timings {
  uint32_t size;
  int32_t finish;
  int32_t audio_tokens;
  int32_t prompt_tokens;
  int32_t new_tokens;
  int32_t threads;
  int64_t start_ns;
  int64_t first_token_ns;
  double audio_ms;
  double load_ms;
  double mel_ms;
  double encode_ms;
  double prefill_ms;
  double first_token_ms;
  double decode_ms;
  double total_ms;
  double wait_ms;
} chatllm_asr_timings;

typedef struct chatllm_asr_machine {
  uint32_t size;
  int32_t threads;
  double int8_ops;
  double bf16_ops;
  double float_ops;
  double read_bytes;
} chatllm_asr_machine;

const char *chatllm_inspect_model(const char *);
const char *chatllm_asr_kernel_sets(void);
int chatllm_asr_measure_machine(const char *, int, chatllm_asr_machine *);
const char *chatllm_asr_last_error(struct chatllm_obj *);
const char *chatllm_asr_version(void);

typedef struct q3a_api {
  void (*append_param)(struct chatllm_obj *, const char *);
  int (*asr_run)(struct chatllm_obj *, const float *, int64_t, const chatllm_asr_options *);
  int (*asr_log_mel)(struct chatllm_obj *, const float *, int64_t, float **, int64_t *);
  int (*asr_encode)(struct chatllm_obj *, const float *, int64_t, int, float **, int64_t *);
  int (*asr_prefill_logits)(struct chatllm_obj *, const float *, int64_t, const chatllm_asr_options *, float **,
                            int64_t *);
  void (*asr_free)(void *);
  int64_t (*asr_prompt_ids)(struct chatllm_obj *, int64_t, const chatllm_asr_options *, int32_t *, int64_t);
  const char *(*asr_last_error)(struct chatllm_obj *);
  const char *(*asr_model_info)(struct chatllm_obj *);
  ...;
} q3a_api;

typedef struct q3a_event {
  int64_t time_ns;
  int32_t kind;
  int32_t id;
  float logprob;
  int32_t special;
  int32_t text_len;
  const char *text;
} q3a_event;

#define Q3A_NONE ...
#define Q3A_BEGIN ...
#define Q3A_TOKEN ...
#define Q3A_CHUNK ...
#define Q3A_LINE ...
#define Q3A_END ...
#define PRINTLN_ERROR ...
#define PRINTLN_MODEL_INFO ...

typedef struct q3a_session q3a_session;

const q3a_api *q3a_embedded(void);
const q3a_api *q3a_open_library(const char *path, int plain, char *message, size_t capacity);
q3a_session *q3a_new(const q3a_api *api);
int q3a_start(q3a_session *session);
struct chatllm_obj *q3a_object(q3a_session *session);
int q3a_run_pcm(q3a_session *session, const float *pcm, int64_t n_samples, const chatllm_asr_options *options);
int q3a_run_text(q3a_session *session, const char *input, const char *context, int max_new_tokens);
int q3a_next(q3a_session *session, q3a_event *event, int timeout_ms);
void q3a_abort(q3a_session *session);
int q3a_wait_end(q3a_session *session, int timeout_ms);
const chatllm_asr_timings *q3a_timings(const q3a_session *session);
int q3a_destroy_object(q3a_session *session);
void q3a_free(q3a_session *session);
int64_t q3a_now_ns(void);
"""

ENGINE_SOURCES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "chatllm.cpp" / "src").rglob("*.cpp"))

ffibuilder = FFI()
ffibuilder.cdef(CDEF)
ffibuilder.set_source(
    "qwen3asr_native._native",
    '#include "_shim.h"',
    sources=["qwen3asr_native/_shim.c", *ENGINE_SOURCES],
    include_dirs=["qwen3asr_native", "chatllm.cpp/include", "chatllm.cpp/src"],
    depends=[
        str(path.relative_to(ROOT))
        for folder in ("chatllm.cpp", "qwen3asr_native")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".h", ".inl", ".inc")
    ],
    language="c++",
    py_limited_api=not sysconfig.get_config_var("Py_GIL_DISABLED"),
)
