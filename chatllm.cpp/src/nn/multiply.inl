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
