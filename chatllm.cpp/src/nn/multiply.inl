// From a run-time count of tokens and layout to the compiled tile; included by each vector set after its
// multiply_int8<N, layout> and multiply_float<N, type>.

template <int N>
void multiply_tokens(const Matrix &w, const void *tile, int64_t begin, int64_t end, float *out, const int64_t *offsets,
                     const Epilogue &e) {
  const uint8_t *bytes = static_cast<const uint8_t *>(tile);
  const float *floats = static_cast<const float *>(tile);
  switch (w.layout) {
    case Layout::Panels4:
      return multiply_int8<N, Layout::Panels4>(w, bytes, begin, end, out, offsets, e);
    case Layout::Panels4M:
      return multiply_int8<N, Layout::Panels4M>(w, bytes, begin, end, out, offsets, e);
    case Layout::Panels8:
      return multiply_int8<N, Layout::Panels8>(w, bytes, begin, end, out, offsets, e);
    case Layout::PanelsF16:
      return multiply_float<N, uint16_t>(w, floats, begin, end, out, offsets, e);
    case Layout::PanelsBF16:
      return multiply_float<N, Bf16>(w, floats, begin, end, out, offsets, e);
    case Layout::PanelsF32:
      return multiply_float<N, float>(w, floats, begin, end, out, offsets, e);
    case Layout::Rows:
      return;  // only the generic set reads rows
  }
}

template <int N>
void multiply_count(const Matrix &w, const void *tile, int count, int64_t begin, int64_t end, float *out,
                    const int64_t *offsets, const Epilogue &e) {
  if (count == N) return multiply_tokens<N>(w, tile, begin, end, out, offsets, e);
  if constexpr (N > 1) multiply_count<N - 1>(w, tile, count, begin, end, out, offsets, e);
}

void multiply(const Matrix &w, const void *tile, int count, int64_t begin, int64_t end, float *out,
              const int64_t *offsets, const Epilogue &e) {
  multiply_count<kTile>(w, tile, count, begin, end, out, offsets, e);
}

// The table of a set that has all the functions of these files.
constexpr Kernels vector_kernels(const char *name) {
  Kernels k{};
  k.name = name;
  k.tile_tokens = kTile;
  k.fast_bytes = kFastBytes;
  k.pack_int8 = pack_int8;
  k.pack_float = pack_float;
  k.multiply = multiply;
#if CHATLLM_VNNI || CHATLLM_DOT
  k.wide_bytes.tokens = kWideFrom;
  k.wide_bytes.tile = kWideTokens;
  k.wide_bytes.block_inputs = wide_block_inputs;
  k.wide_bytes.tile_bytes = wide_tile_bytes;
  k.wide_bytes.pack = pack_wide;
  k.wide_bytes.multiply = multiply_wide;
  k.wide_bytes.store = store_wide;
  k.wide_bytes.pack_sums = pack_sums;
#endif
  k.sgemm = sgemm;
  k.layer_norm = layer_norm;
  k.rms_norm = rms_norm;
  k.rotate = rotate;
  k.silu_mul = silu_mul;
  k.gelu = gelu;
  k.softmax = softmax;
  k.max = max_of;
  k.sum_exp = sum_exp;
  k.kv_key_bytes = [](int64_t dim) { return kKvBlock / 16 * kv_key_tile_bytes(dim); };
  k.kv_value_bytes = [](int64_t dim) { return kv_value_scale_bytes() + kKvBlock * dim; };
  k.key_store = key_store;
  k.value_store = value_store;
  k.kv_scores = kv_scores;
  k.kv_accumulate = kv_accumulate;
  k.peak_int8 = peak_int8;
  k.peak_bf16 = peak_float;
  k.peak_wide_bytes = peak_int8;
  k.peak_float = peak_float;
  k.read = read_memory;
  return k;
}
