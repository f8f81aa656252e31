/* libchatllm.h - the C API of chatllm.cpp, implemented anew for Qwen3-ASR.
 *
 * Programs and bindings written for upstream's libchatllm run against this library unchanged. Every function of the API
 * exists; those that have no meaning for speech recognition print one CHATLLM_PRINTLN_ERROR line and return an error.
 * Strings are UTF-8. Integer results are 0 on success unless said otherwise. No function aborts the process, writes to
 * the standard streams, or throws.
 */
#ifndef LIBCHATLLM_H
#define LIBCHATLLM_H

#if defined(_WIN32) && defined(CHATLLM_SHARED)
#ifdef CHATLLM_BUILD
#define DLL_DECL __declspec(dllexport)
#else
#define DLL_DECL __declspec(dllimport)
#endif
#define API_CALL __stdcall
#elif defined(_WIN32)
#define DLL_DECL
#define API_CALL __stdcall
#else
#define DLL_DECL __attribute__((visibility("default")))
#define API_CALL
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum PrintType {
  PRINT_CHAT_CHUNK = 0, /* generated text; may be less than a line, never less than a character */
  PRINTLN_META = 1,     /* from here on: whole lines */
  PRINTLN_ERROR = 2,
  PRINTLN_REF = 3,
  PRINTLN_REWRITTEN_QUERY = 4,
  PRINTLN_HISTORY_USER = 5,
  PRINTLN_HISTORY_AI = 6,
  PRINTLN_TOOL_CALLING = 7,
  PRINTLN_EMBEDDING = 8,
  PRINTLN_RANKING = 9,
  PRINTLN_TOKEN_IDS = 10, /* "1,3,5" */
  PRINTLN_LOGGING = 11,   /* first character is the level: space D I W E . */
  PRINTLN_BEAM_SEARCH = 12,
  PRINTLN_MODEL_INFO = 13, /* JSON */
  PRINT_THOUGHT_CHUNK = 14,
  PRINT_EVT_ASYNC_COMPLETED = 100, /* an asynchronous call has ended; the string is empty */
  PRINT_EVT_THOUGHT_COMPLETED = 101
};

enum RoleType { ROLE_USER = 2, ROLE_ASSISTANT = 3, ROLE_TOOL = 4 };

enum EmbeddingPurpose { EMBEDDING_FOR_DOC = 0, EMBEDDING_FOR_QUERY = 1 };

struct chatllm_obj;

typedef void (*f_chatllm_print)(void *user_data, int print_type, const char *utf8_str);
typedef void (*f_chatllm_end)(void *user_data);
typedef void (*f_chatllm_lens_callback)(void *user_data, int layer_id, int n_tokens, const float *logits,
                                        const int *ordering);

/* Process-wide options, before the first object is created. Accepted words: see chatllm_append_param. */
DLL_DECL void API_CALL chatllm_append_init_param(const char *utf8_str);
DLL_DECL int API_CALL chatllm_init(void);

/* NULL when memory is short. */
DLL_DECL struct chatllm_obj *API_CALL chatllm_create(void);

/* Frees everything the object owns. Non-zero, and nothing freed, while a call of this header or chatllm_asr_run is
 * generating. Once f_end or PRINT_EVT_ASYNC_COMPLETED has begun, the object is no longer generating: it may be
 * destroyed from there, and from another thread (then this waits for that callback to return). Runs of
 * chatllm_asr_submit are cancelled, and their ends told, before this returns; from one of their callbacks it is refused
 * (CHATLLM_ASR_BUSY). Only those callbacks may still call with the object while this is under way, no other thread. */
DLL_DECL int API_CALL chatllm_destroy(struct chatllm_obj *obj);

/* One command-line word: "-m", then "model.bin". '-' and '_' are the same inside an option's name.
 *   -m --model PATH          -n --threads N            -c --max_context_length N     -l --max_length N
 *   --max_new_tokens N       -t --temp X (0 = greedy)  --seed N                      -s --system TEXT (the context)
 *   --set KEY VALUE          --multimedia_file_tags OPEN CLOSE                       --ai_prefix TEXT
 *   --format chat            --hide_banner             --log_level N                 --repeat_penalty X
 *   -ngl N                   --kernels NAME            --attention window|full       --batch N (utterances at a time)
 *   --sys_file PATH (the context)                      --kv KEY VALUE ... (as --set, up to the last word)
 * --set language NAME (any case; "auto" or "" detects). --kernels: auto or a name of chatllm_asr_kernel_sets().
 * Of a forced aligner: --set format srt|json, --set delimiter TEXT (of the pieces that get a time each; without one
 * each Chinese character or other word does). Its message is the audio and the text that is said in it; the answer, one
 * chunk. Other options of chatllm.cpp, which do not concern speech, are accepted and ignored; a word that is none is an
 * error.
 */
DLL_DECL void API_CALL chatllm_append_param(struct chatllm_obj *obj, const char *utf8_str);

/* Parses the words, loads the model, prints one PRINTLN_MODEL_INFO line. */
DLL_DECL int API_CALL chatllm_start(struct chatllm_obj *obj, f_chatllm_print f_print, f_chatllm_end f_end,
                                    void *user_data);

/* Limit for the rounds to come; -1 for none but the context. */
DLL_DECL void API_CALL chatllm_set_gen_max_tokens(struct chatllm_obj *obj, int gen_max_tokens);

/* Forgets the conversation. NULL keeps the system prompt. */
DLL_DECL void API_CALL chatllm_restart(struct chatllm_obj *obj, const char *utf8_sys_prompt);

/* A message made of parts; type is "text" or "audio"; the data of audio is the base64 of a whole media file. */
DLL_DECL void API_CALL chatllm_multimedia_msg_prepare(struct chatllm_obj *obj);
DLL_DECL int API_CALL chatllm_multimedia_msg_append(struct chatllm_obj *obj, const char *type, const char *utf8_str);

/* Runs on a text that may hold file tags ("{{audio:/path/file.wav}}"); returns after f_end. */
DLL_DECL int API_CALL chatllm_user_input(struct chatllm_obj *obj, const char *utf8_str);
DLL_DECL int API_CALL chatllm_user_input_multimedia_msg(struct chatllm_obj *obj);

DLL_DECL void API_CALL chatllm_history_append(struct chatllm_obj *obj, int role_type, const char *utf8_str);
DLL_DECL int API_CALL chatllm_history_append_multimedia_msg(struct chatllm_obj *obj, int role_type);

/* Tokens processed and generated so far. */
DLL_DECL int API_CALL chatllm_get_cursor(struct chatllm_obj *obj);
DLL_DECL int API_CALL chatllm_set_cursor(struct chatllm_obj *obj, int pos);

/* Messages of the conversation: 0 none, 1 the user's, 2 the answer too (each round is a conversation of its own).
 * Setting a lower number forgets what comes behind it; a higher one changes nothing. Both return the number, -1 on
 * error. */
DLL_DECL int API_CALL chatllm_history_get_cursor(struct chatllm_obj *obj);
DLL_DECL int API_CALL chatllm_history_set_cursor(struct chatllm_obj *obj, int pos);

/* "key=value": what --set KEY VALUE says, changed after the start. */
DLL_DECL int API_CALL chatllm_set_additional_args(struct chatllm_obj *obj, const char *utf8_str);

/* Text that every answer starts with; then: continue the last answer after a suffix. */
DLL_DECL int API_CALL chatllm_set_ai_prefix(struct chatllm_obj *obj, const char *utf8_str);
DLL_DECL int API_CALL chatllm_ai_continue(struct chatllm_obj *obj, const char *utf8_str);

DLL_DECL int API_CALL chatllm_tool_input(struct chatllm_obj *obj, const char *utf8_str);
DLL_DECL int API_CALL chatllm_tool_completion(struct chatllm_obj *obj, const char *utf8_str);

/* Prints the ids (PRINTLN_TOKEN_IDS); returns their number, -1 on error. */
DLL_DECL int API_CALL chatllm_text_tokenize(struct chatllm_obj *obj, const char *utf8_str);
DLL_DECL int API_CALL chatllm_embedding(struct chatllm_obj *obj, const char *utf8_str, int purpose);
DLL_DECL int API_CALL chatllm_qa_rank(struct chatllm_obj *obj, const char *utf8_str_q, const char *utf8_str_a);
DLL_DECL int API_CALL chatllm_rag_select_store(struct chatllm_obj *obj, const char *name);

/* From any thread; returns at once; generation ends within one decode step. */
DLL_DECL void API_CALL chatllm_abort_generation(struct chatllm_obj *obj);
DLL_DECL void API_CALL chatllm_show_statistics(struct chatllm_obj *obj);
DLL_DECL int API_CALL chatllm_save_session(struct chatllm_obj *obj, const char *utf8_str);
DLL_DECL int API_CALL chatllm_load_session(struct chatllm_obj *obj, const char *utf8_str);

/* The same calls on a thread of the library: 0 = started, then the event PRINT_EVT_ASYNC_COMPLETED. */
DLL_DECL int API_CALL chatllm_async_start(struct chatllm_obj *obj, f_chatllm_print f_print, f_chatllm_end f_end,
                                          void *user_data);
DLL_DECL int API_CALL chatllm_async_user_input(struct chatllm_obj *obj, const char *utf8_str);
DLL_DECL int API_CALL chatllm_async_user_input_multimedia_msg(struct chatllm_obj *obj);
DLL_DECL int API_CALL chatllm_async_ai_continue(struct chatllm_obj *obj, const char *utf8_str);
DLL_DECL int API_CALL chatllm_async_tool_input(struct chatllm_obj *obj, const char *utf8_str);
DLL_DECL int API_CALL chatllm_async_tool_completion(struct chatllm_obj *obj, const char *utf8_str);
DLL_DECL int API_CALL chatllm_async_embedding(struct chatllm_obj *obj, const char *utf8_str, int purpose);
DLL_DECL int API_CALL chatllm_async_qa_rank(struct chatllm_obj *obj, const char *utf8_str_q, const char *utf8_str_a);
/* The result of the asynchronous call; INT_MIN while it runs. */
DLL_DECL int API_CALL chatllm_get_async_result_int(struct chatllm_obj *obj);

/* A table of *n_vocab entries of *width bytes, zero-padded; owned by the object; NULL before the start. */
DLL_DECL const char *API_CALL chatllm_get_token_vocab(struct chatllm_obj *obj, int *n_vocab, int *width);
DLL_DECL void API_CALL chatllm_set_lens_callback(struct chatllm_obj *obj, f_chatllm_lens_callback f_lens,
                                                 void *user_data);

/* JSON description of a model file, from its header; valid until the thread's next call; on failure {"error": "..."}.
 */
DLL_DECL const char *API_CALL chatllm_inspect_model(const char *utf8_path);

#ifdef __cplusplus
}
#endif

#endif
