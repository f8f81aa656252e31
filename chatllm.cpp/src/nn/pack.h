// From the file's rows to the panels that the vector kernels read.
#pragma once

#include "nn/kernels.h"

namespace chatllm {

// The layout in which a kernel set reads a matrix of this type.
Layout panel_layout(DType type, const Kernels &kernels);

// Where a group of 32 inputs lies in a panel of bytes or nibbles: its values, and its sixteen fp16 scales.
struct PanelGroup {
  uint8_t *values, *scales;
};
PanelGroup panel_group(Layout layout, uint8_t *panel, int64_t group);

// Packs panels [begin, end) of a matrix; `source` points to the first row of panel `begin` in the form of `type`,
// `packed` describes the target and out points to its first panel. Rows past the end become zeros.
void pack_panels(DType type, const uint8_t *source, const Matrix &packed, int64_t begin, int64_t end, uint8_t *out);

}  // namespace chatllm
