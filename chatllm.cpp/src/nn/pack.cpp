#include "nn/pack.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace chatllm {

namespace {

constexpr int kPair = 2 * kGroup;  // inputs that are stored together: two groups, so that vectors stay aligned

int64_t pairs(int64_t cols) {
  return (cols + kPair - 1) / kPair;
}

// Per group of 32 inputs and 16 rows.
constexpr size_t kNibbles = kPanel * kGroup / 2, kBytes = kPanel * kGroup, kHalves = kPanel * 2;

size_t pair_bytes(Layout layout) {
  return layout == Layout::Panels4    ? 2 * (kNibbles + kHalves)
         : layout == Layout::Panels4M ? 2 * (kNibbles + 2 * kHalves)
                                      : 2 * (kBytes + kHalves);
}

size_t source_row_bytes(DType type, int64_t cols) {
  return static_cast<size_t>(cols / block_shape(type).values * block_shape(type).bytes);
}

void put_half(uint8_t *at, uint16_t half) {
  at[0] = static_cast<uint8_t>(half);
  at[1] = static_cast<uint8_t>(half >> 8);
}

// One row's group of 32 inputs: q as unsigned numbers, scale and minimum as fp16.
struct Group {
  uint8_t q[kGroup];
  uint16_t scale, minimum;
};

void unpack_nibbles(const uint8_t *bytes, uint8_t *q) {
  for (int i = 0; i < 16; ++i) q[i] = bytes[i] & 15, q[i + 16] = bytes[i] >> 4;
}

Group read_group(DType type, const uint8_t *row, int64_t group) {
  Group g{};
  if (type == DType::Q4_0) {
    const uint8_t *block = row + group * 18;
    std::memcpy(&g.scale, block, 2);
    unpack_nibbles(block + 2, g.q);
  } else if (type == DType::Q4_1) {
    const uint8_t *block = row + group * 20;
    std::memcpy(&g.scale, block, 2);
    std::memcpy(&g.minimum, block + 2, 2);
    unpack_nibbles(block + 4, g.q);
  } else if (type == DType::Q8_0) {
    const uint8_t *block = row + group * 34;
    std::memcpy(&g.scale, block, 2);
    for (int i = 0; i < kGroup; ++i) g.q[i] = static_cast<uint8_t>(block[2 + i] ^ 0x80);  // q + 128
  } else {                                                                                // Q4_K
    const uint8_t *block = row + group / 8 * 144;
    float scale[8], minimum[8];
    q4_k_scales(block, scale, minimum);
    const int in_block = static_cast<int>(group % 8);
    g.scale = float_to_half(scale[in_block]);
    g.minimum = float_to_half(-minimum[in_block]);
    const uint8_t *q = block + 16 + in_block / 2 * 32;
    for (int i = 0; i < kGroup; ++i) g.q[i] = in_block % 2 ? q[i] >> 4 : q[i] & 15;
  }
  return g;
}

// `source` points to the panel's first row.
void pack_int8_panel(DType type, const uint8_t *source, const Matrix &packed, int64_t panel, uint8_t *out) {
  const size_t row_bytes = source_row_bytes(type, packed.cols);
  const bool nibbles = packed.layout != Layout::Panels8;
  const int64_t groups = packed.cols / kGroup;
  const int64_t rows = std::min<int64_t>(kPanel, packed.rows - panel * kPanel);
  std::memset(out, 0, panel_bytes(packed));
  for (int64_t g = 0; g < groups; ++g) {
    const auto [values, scales] = panel_group(packed.layout, out, g);
    for (int64_t r = 0; r < rows; ++r) {
      const Group group = read_group(type, source + static_cast<size_t>(r) * row_bytes, g);
      for (int i = 0; i < (nibbles ? 16 : 32); ++i)
        values[i / 4 * 64 + r * 4 + i % 4] =
            nibbles ? static_cast<uint8_t>(group.q[i] | group.q[i + 16] << 4) : group.q[i];
      put_half(scales + 2 * r, group.scale);
      if (packed.layout == Layout::Panels4M) put_half(scales + 2 * kHalves + 2 * r, group.minimum);
    }
  }
}

void pack_float_panel(DType type, const uint8_t *source, const Matrix &packed, int64_t panel, uint8_t *out) {
  const size_t size = type == DType::F16 ? 2 : 4;
  const int64_t rows = std::min<int64_t>(kPanel, packed.rows - panel * kPanel);
  std::memset(out, 0, panel_bytes(packed));
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t *row = source + static_cast<size_t>(r * packed.cols) * size;
    for (int64_t k = 0; k < packed.cols; ++k) {
      uint8_t *target = out + static_cast<size_t>(k * kPanel + r) * size;
      if (packed.layout == Layout::PanelsBF16) {
        uint16_t half;
        std::memcpy(&half, row + 2 * k, 2);
        put_half(target, float_to_bfloat(half_to_float(half)));
      } else {
        std::memcpy(target, row + static_cast<size_t>(k) * size, size);
      }
    }
  }
}

}  // namespace

size_t panel_bytes(const Matrix &m) {
  switch (m.layout) {
    case Layout::Rows: {
      const BlockShape block = block_shape(m.type);
      return static_cast<size_t>(m.cols / block.values * block.bytes);
    }
    case Layout::PanelsF16:
      return static_cast<size_t>(m.cols) * kPanel * 2;
    case Layout::PanelsBF16:
      return static_cast<size_t>(wide_blocks(m.cols) * kWideBlock) * kPanel * 2;
    case Layout::PanelsF32:
      return static_cast<size_t>(m.cols) * kPanel * 4;
    default:
      return static_cast<size_t>(pairs(m.cols)) * pair_bytes(m.layout);
  }
}

PanelGroup panel_group(Layout layout, uint8_t *panel, int64_t group) {
  const size_t bytes = layout == Layout::Panels8 ? kBytes : kNibbles, second = static_cast<size_t>(group % 2);
  uint8_t *pair = panel + static_cast<size_t>(group / 2) * pair_bytes(layout);
  return {pair + second * bytes, pair + 2 * bytes + second * kHalves};
}

Layout panel_layout(DType type, const Kernels &kernels) {
  if (kernels.tile_tokens == 0) return Layout::Rows;
  switch (type) {
    case DType::F32:
      return Layout::PanelsF32;
    case DType::F16:
      return has_matrix_unit(kernels) ? Layout::PanelsBF16 : Layout::PanelsF16;
    case DType::Q4_0:
      return Layout::Panels4;
    case DType::Q4_1:
    case DType::Q4_K:
      return Layout::Panels4M;
    case DType::Q8_0:
      return Layout::Panels8;
  }
  return Layout::Rows;
}

void pack_panels(DType type, const uint8_t *source, const Matrix &packed, int64_t begin, int64_t end, uint8_t *out) {
  for (int64_t panel = begin; panel < end; ++panel) {
    uint8_t *target = out + static_cast<size_t>(panel) * panel_bytes(packed);
    const uint8_t *rows = source + static_cast<size_t>((panel - begin) * kPanel) * source_row_bytes(type, packed.cols);
    if (is_int8(packed.layout))
      pack_int8_panel(type, rows, packed, panel, target);
    else
      pack_float_panel(type, rows, packed, panel, target);
  }
}

}  // namespace chatllm
