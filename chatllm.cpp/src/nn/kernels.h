// The numerics behind one table: each instruction set fills a Kernels, the best that the CPU runs is chosen at run
// time. A product is out[t][r] = sum_k w[r][k] x[t][k]: tokens (or rows of a decode step, or pixels of a convolution)
// t, rows of weights r, inputs k. The words of this folder:
//
// - Group: 32 inputs that share a scale, in the weights of a file as in the tokens that are quantized for them.
// - Panel: 16 rows of weights, interleaved so that a vector holds the same inputs of all of them: a broadcast of a
//   token's inputs meets 16 rows at once, and no sum has to be added across a vector. The weights of a model are packed
//   into panels once, when it is loaded (pack.h).
// - Tile: the few tokens (4 to 16) whose sums with a panel or two fit the registers. They are packed side by side:
//   quantized to int8, a scale for each group, or interleaved in float32. A panel that lies in the first-level cache is
//   multiplied with one tile after another.
// - Few tokens, up to 16: a decode step or the check of a draft. Time is that of reading the weights from memory, once
//   for all tokens. A token's results are the same bits whatever the others are and however many: each sum is made of
//   the same operations in the same order.
// - Many tokens, a few dozen: the weights of two panels are brought, once for all tokens, into a form that the CPU
//   multiplies faster than the one they are kept in. That form has wide blocks, stretches of inputs that are
//   multiplied at a time: 32 for a matrix unit in bfloat16; about 256, with one scale for each row and each token, for
//   int8 products of coarse matrices (wide_bytes.inl). Float sums of all tokens with the two panels lie in memory and
//   grow block by block; at the end they are stored, or activated and packed for the next product.
//
// The generic set has no panels and no tiles: it reads rows in the file's own form and tokens as they are, and is the
// truth that the others are tested against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#if defined(_M_X64)
#include <immintrin.h>
#endif

#include "nn/blocks.h"

namespace chatllm {

constexpr int kPanel = 16;  // weight rows interleaved in a panel
constexpr int kGroup = 32;  // inputs that share a scale

// How a matrix lies in memory.
enum class Layout {
  Rows,        // as in the file, row after row
  Panels4,     // per 64 inputs: 2 x [8 groups of 4 inputs][16 rows] nibbles, then 2 x 16 fp16 scales; value (q - 8) d
  Panels4M,    // the same, then 2 x 16 fp16 minimums; value q d + m
  Panels8,     // per 64 inputs: 2 x [8][16 rows][4 inputs] bytes q + 128, then 2 x 16 fp16 scales; value q d
  PanelsF16,   // [inputs][16 rows] fp16
  PanelsBF16,  // [inputs][16 rows] bfloat16, inputs padded to 32
  PanelsF32,   // [inputs][16 rows] float32
};

struct Matrix {
  const uint8_t *data = nullptr;
  int64_t rows = 0, cols = 0;
  DType type = DType::F32;
  Layout layout = Layout::Rows;
  bool coarse =
      false;  // of a file of 4-bit weights: with many tokens, a rounding far below that of such weights is fine

  int64_t panels() const { return (rows + kPanel - 1) / kPanel; }
};

// Bytes of one panel (of one row for Layout::Rows).
size_t panel_bytes(const Matrix &m);
inline bool is_int8(Layout layout) {
  return layout == Layout::Panels4 || layout == Layout::Panels4M || layout == Layout::Panels8;
}

// Addresses of tokens: token t starts at (t / inner) * outer_stride + (t % inner) * inner_stride. A convolution's
// output pixels are such a grid over its padded input, with one segment of three pixels per row of the kernel.
struct Grid {
  int64_t inner = INT64_MAX, outer_stride = 0, inner_stride = 0;
  int64_t segments = 1, segment_stride = 0;

  static Grid rows(int64_t stride) {
    Grid g;
    g.inner_stride = stride;
    return g;
  }
  int64_t at(int64_t t) const { return t / inner * outer_stride + t % inner * inner_stride; }
};

struct Epilogue {
  const float *bias = nullptr;  // per row of the matrix
  bool gelu = false;            // exact (erf)
  bool accumulate = false;      // out += instead of out =: the residual connection
};

// Panels of bytes that a product with one or two tokens reads side by side, with AVX-512: memory gives several streams
// faster than one. Nibbles take long enough to unpack that one stream is best.
constexpr int kStreams8 = 4;

// Up to this many tokens, a token's results are the same bits whatever their number: rows of a decode step, or of the
// draft that it verifies. More of them may take other forms of the weights (a matrix unit's, for example).
constexpr int64_t kFewTokens = 16;

constexpr int kMostTileTokens = 16;             // of any set
constexpr int kWideTile = 16, kWideBlock = 32;  // tokens and inputs of a tile for the matrix unit in bfloat16
constexpr int64_t wide_blocks(int64_t cols) {
  return (cols + kWideBlock - 1) / kWideBlock;
}
constexpr int64_t kWideStretch = 8;  // blocks of inputs that are unpacked at a time
// Floats of scratch for two panels of a stretch in bfloat16, or of a block in bytes and its scales, and of the sums of
// all tokens (in tiles of so many) with two panels.
constexpr size_t kWideScratch = 2 * kWideStretch * kWideBlock * kPanel / 2 + 2 * kPanel;
constexpr size_t wide_sums(int64_t tokens, int tile) {
  return static_cast<size_t>((tokens + 2 * tile - 1) / (2 * tile) * (2 * tile) * 2 * kPanel);
}

constexpr int whole_pairs(int tokens) {
  return (tokens + 1) / 2 * 2;
}
// A tile's packed int8 tokens, per group of 32 inputs, T = whole_pairs(tokens of this tile):
//   int8 q[T][32] ([T / 2][4][2][8], pairs of tokens, for the matrix product of ARM), float d[T], int32 correction[T]
//   (-8 times the sum of the group's q; only its 16 low bits for AVX2), float sum[T] (d times the sum of q)
constexpr size_t int8_group_bytes(int tokens) {
  return static_cast<size_t>(whole_pairs(tokens)) * (kGroup + 12);
}

// The KV cache in blocks of positions. Keys are interleaved by 16 positions, so that scores of neighbouring positions
// lie in one vector; values follow each other. generic: float32, keys [kKvBlock / 16][dim][16], values [kKvBlock][dim].
// The other sets: int8 with fp16 scales d, x = q d, q within 127. A key has a scale for each 32 inputs, because some of
// its inputs may be many times as large as others: [kKvBlock / 16][dim / 32]{d[16], q[32][16]}. A value has one:
// d[kKvBlock], q[kKvBlock][dim].
constexpr int64_t kKvBlock = 64, kKeyGroup = 32, kKeyScaleBytes = 16 * sizeof(uint16_t);

constexpr int64_t kv_key_tile_bytes(int64_t dim) {
  return (dim + kKeyGroup - 1) / kKeyGroup * kKeyScaleBytes + 16 * dim;
}
constexpr int64_t kv_value_scale_bytes() {
  return kKvBlock * static_cast<int64_t>(sizeof(uint16_t));
}
inline int8_t *kv_values(void *block) {
  return static_cast<int8_t *>(block) + kv_value_scale_bytes();
}
inline const int8_t *kv_values(const void *block) {
  return static_cast<const int8_t *>(block) + kv_value_scale_bytes();
}

// Products of many tokens, with weights that are brought into a form of their own once for all of them.
struct WideForm {
  int tokens;                             // worth it from this many on, more than kFewTokens; 0: the set has none
  int tile;                               // tokens of a tile
  int64_t (*block_inputs)(int64_t cols);  // inputs of a block, a multiple of 32: a token's segments must be multiples
  size_t (*tile_bytes)(int64_t cols);
  // Packs tokens [first, first + count) of x, count <= tile.
  void (*pack)(const float *x, const Grid &grid, int64_t first, int count, int64_t cols, void *tile);
  // The sums of `count` tokens with panels `panel` and, if there is one, `panel` + 1: [tile][2][tokens of a tile][16
  // rows] float32, wide_sums(count, tile) of them. scratch holds kWideScratch floats.
  void (*multiply)(const Matrix &w, const void *tiles, int64_t count, int64_t panel, float *sums, float *scratch);
  // Where these sums go: token i to out + offsets[i]; or, as inputs of the next product, to its packed tokens of w.rows
  // inputs: gelu(sum + bias), or silu(sum) up if there are sums `up` of a second matrix. The sums of a block's pairs of
  // panels lie one after another; the block is packed with the last of them.
  void (*store)(const float *sums, const Matrix &w, int64_t panel, int64_t count, float *out, const int64_t *offsets,
                const Epilogue &epilogue);
  void (*pack_sums)(float *sums, const float *up, const Matrix &w, int64_t panel, const float *bias, int64_t count,
                    void *tiles);
};

struct Kernels {
  const char *name;
  int tile_tokens;  // T; 0: products work on unpacked rows (generic)
  bool fast_bytes;  // products of 8-bit weights are faster than those of floats

  // Packs tokens [first, first + count) of x, count <= T, into `tile`; `cols` inputs each, zero-filled to a multiple
  // of 64.
  void (*pack_int8)(const float *x, const Grid &grid, int64_t first, int count, int64_t cols, uint8_t *tile);
  void (*pack_float)(const float *x, const Grid &grid, int64_t first, int count, int64_t cols, float *tile);

  // Multiplies a packed tile of `count` tokens with panels [begin, end). out points to the tile's first token; token i
  // of the tile is written at out + offsets[i].
  void (*multiply)(const Matrix &w, const void *tile, int count, int64_t begin, int64_t end, float *out,
                   const int64_t *offsets, const Epilogue &epilogue);
  // Many tokens: bytes, for coarse matrices of 8-bit or 4-bit weights; floats, for all others (the matrix unit in
  // bfloat16).
  WideForm wide_bytes, wide_floats;

  // Generic only: rows [begin, end) of w times tokens [0, count) of x. scratch holds cols floats.
  void (*multiply_rows)(const Matrix &w, const float *x, const Grid &grid, int64_t count, int64_t begin, int64_t end,
                        float *out, const Grid &out_grid, const Epilogue &epilogue, float *scratch);

  // c[m][n] = scale * sum_k a[m][k] b[k][n], float32; n is a multiple of 16 for all sets but generic.
  void (*sgemm)(int64_t m, int64_t n, int64_t k, float scale, const float *a, int64_t lda, const float *b, int64_t ldb,
                float *c, int64_t ldc);

  void (*layer_norm)(const float *x, const float *weight, const float *bias, float eps, int64_t n, float *out);
  void (*rms_norm)(const float *x, const float *weight, float eps, int64_t n, float *out);
  // Rotary positions, in place: pairs (x[i], x[i + half]) turned by angles with these cosines and sines.
  void (*rotate)(float *x, const float *cosines, const float *sines, int64_t half);
  void (*silu_mul)(const float *gate, const float *up, int64_t n, float *out);
  void (*gelu)(float *x, int64_t n);
  void (*softmax)(float *x, int64_t n);  // in place
  float (*max)(const float *x, int64_t n);
  double (*sum_exp)(const float *x, int64_t n, float subtract);  // sum of exp(x - subtract)

  // The KV cache: blocks of kKvBlock positions of one head; what is in one is told above. Stored is one position's
  // `dim` values at a time. Loaded, by the generic set only: keys of sixteen positions, [dim][stride]; one position's
  // values.
  int64_t (*kv_key_bytes)(int64_t dim);
  int64_t (*kv_value_bytes)(int64_t dim);
  void (*key_store)(const float *x, int64_t dim, int64_t position, void *block);
  void (*value_store)(const float *x, int64_t dim, int64_t position, void *block);
  void (*key_load)(const void *block, int64_t dim, int64_t tile, float *out, int64_t stride);
  void (*value_load)(const void *block, int64_t dim, int64_t position, float *out);
  // For `heads` queries q[h][dim] that share keys and values (GQA): scores[h * stride + i] = scale * dot(q[h], k[i]),
  // written up to a multiple of 16 positions;  out[h][dim] += sum_i p[h * stride + i] v[i], where p is read up to a
  // multiple of 16. Meanwhile the block `next`, which will be read after this one, is fetched; it may be null.
  void (*kv_scores)(const float *q, int64_t heads, const void *block, int64_t count, int64_t dim, float scale,
                    float *scores, int64_t stride, const void *next);
  void (*kv_accumulate)(const float *p, int64_t heads, int64_t stride, const void *block, int64_t count, int64_t dim,
                        float *out, const void *next);

  // For measuring: loops of independent instructions in registers, returning the operations done; a pass over memory.
  int64_t (*peak_int8)(int64_t iterations);
  int64_t (*peak_bf16)(int64_t iterations);        // on the matrix unit; without one, as peak_float
  int64_t (*peak_wide_bytes)(int64_t iterations);  // on the matrix unit; without one, as peak_int8
  int64_t (*peak_float)(int64_t iterations);
  uint64_t (*read)(const uint8_t *data, size_t bytes);
};

// In bfloat16, which is then what 16-bit weights are kept in.
inline bool has_matrix_unit(const Kernels &kernels) {
  return kernels.wide_floats.tokens > 0;
}

#if defined(__GNUC__)
#define CHATLLM_NOINLINE __attribute__((noinline))
#else
#define CHATLLM_NOINLINE
#endif

inline void prefetch(const void *p) {
#if defined(__GNUC__)
  __builtin_prefetch(p);
#elif defined(_M_X64)
  _mm_prefetch(static_cast<const char *>(p), _MM_HINT_T0);
#else
  (void)p;
#endif
}

// Into the second-level cache.
inline void prefetch_far(const void *p) {
#if defined(__GNUC__)
  __builtin_prefetch(p, 0, 2);
#elif defined(_M_X64)
  _mm_prefetch(static_cast<const char *>(p), _MM_HINT_T1);
#else
  (void)p;
#endif
}

// To be written, a little later.
inline void prefetch_to_write(void *p) {
#if defined(__GNUC__) && defined(__x86_64__)
  __asm__ volatile("prefetchw %0" : : "m"(*static_cast<const char *>(p)));  // the builtin asks for a shared line
#elif defined(__GNUC__)
  __builtin_prefetch(p, 1);
#else
  prefetch(p);
#endif
}

extern const Kernels kGenericKernels;
// Sets that not every compiler and system can have.
#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#define CHATLLM_AMX 1
#else
#define CHATLLM_AMX 0
#endif
#if (defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 11)) || (defined(_M_X64) && _MSC_VER >= 1929)
#define CHATLLM_AVX_VNNI 1
#else
#define CHATLLM_AVX_VNNI 0
#endif
// 1: the same instruction in AVX-512's coding, to test and time the set "avxvnni" on a CPU that has no other; not for
// packages.
#if !defined(CHATLLM_EVEX_VNNI)
#define CHATLLM_EVEX_VNNI 0
#endif
#if defined(__aarch64__) && (defined(__clang__) ? __clang_major__ >= 16 : __GNUC__ >= 10)
#define CHATLLM_NEON_I8MM 1
#else
#define CHATLLM_NEON_I8MM 0
#endif

#if defined(__x86_64__) || defined(_M_X64)
extern const Kernels kAvx2Kernels, kAvxVnniKernels, kAvx512Kernels, kAvx512VnniKernels, kAmxKernels;
#elif defined(__aarch64__)
extern const Kernels kNeonKernels, kNeonDotKernels, kNeonI8mmKernels;
#endif

// The set of this name if the CPU can run it ("auto" or "": the best one); throws Error naming the usable ones.
const Kernels &choose_kernels(const char *name);
// Names of the usable sets, best first, separated by commas.
const char *kernel_names();

}  // namespace chatllm
