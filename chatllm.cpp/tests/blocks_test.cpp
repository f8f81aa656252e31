// Half precision and the decoding of each block type, against values worked out by hand.
#include "nn/blocks.h"

#include <limits>

#include "check.h"

using namespace chatllm;

namespace {

// The definition: (-1)^s 2^(e - 15) (1 + f / 1024), subnormals 2^-14 f / 1024.
double half_value(uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  const double sign = h & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

std::vector<float> decode(DType type, const std::vector<uint8_t> &bytes, int n) {
  std::vector<float> out(static_cast<size_t>(n));
  dequantize_row(type, bytes.data(), out.data(), n);
  return out;
}

}  // namespace

TEST(every_half_decodes_to_its_definition_and_back) {
  for (int i = 0; i < 65536; ++i) {
    const uint16_t h = static_cast<uint16_t>(i);
    const double expected = half_value(h);
    const float got = half_to_float(h);
    if (std::isnan(expected)) {
      CHECK(std::isnan(got));
      CHECK(std::isnan(half_to_float(float_to_half(got))));
      continue;
    }
    CHECK_EQ(static_cast<double>(got), expected);
    CHECK_EQ(std::signbit(got), (h & 0x8000) != 0);
    CHECK_EQ(float_to_half(got), h);
  }
}

TEST(float_to_half_rounds_to_nearest_even) {
  for (int i = 0; i < 0x7C00; ++i) {  // between each half and the next
    const double a = half_value(static_cast<uint16_t>(i));
    const double b = i + 1 == 0x7C00 ? 65536 : half_value(static_cast<uint16_t>(i + 1));
    const float middle = static_cast<float>((a + b) / 2);  // exact
    const uint16_t even = static_cast<uint16_t>(i % 2 ? i + 1 : i);
    CHECK_EQ(float_to_half(middle), even);
    CHECK_EQ(float_to_half(-middle), even | 0x8000);
    CHECK_EQ(float_to_half(std::nextafter(middle, 0.0f)), i);
    CHECK_EQ(float_to_half(std::nextafter(middle, 1e30f)), i + 1);
  }
}

TEST(float_to_half_at_the_ends) {
  CHECK_EQ(float_to_half(INFINITY), 0x7C00);
  CHECK_EQ(float_to_half(-INFINITY), 0xFC00);
  CHECK_EQ(float_to_half(3e38f), 0x7C00);
  CHECK_EQ(float_to_half(std::numeric_limits<float>::denorm_min()), 0);
  CHECK_EQ(float_to_half(-1e-30f), 0x8000);
  CHECK(std::isnan(half_to_float(float_to_half(NAN))));
}

TEST(sizes_of_blocks) {
  CHECK_EQ(block_shape(DType::F32).bytes, 4);
  CHECK_EQ(block_shape(DType::F16).bytes, 2);
  CHECK_EQ(block_shape(DType::Q4_0).bytes, 18);
  CHECK_EQ(block_shape(DType::Q4_1).bytes, 20);
  CHECK_EQ(block_shape(DType::Q8_0).bytes, 34);
  CHECK_EQ(block_shape(DType::Q4_K).bytes, 144);
  CHECK_EQ(block_shape(DType::Q4_K).values, 256);
  for (int i = -1; i < 40; ++i)
    if (i != 0 && i != 1 && i != 2 && i != 3 && i != 8 && i != 12)
      CHECK_EQ(block_shape(static_cast<DType>(i)).values, 0);
}

TEST(q4_0_low_nibbles_come_first) {
  std::vector<uint8_t> block = {0x00, 0x40};  // d = 2
  for (int i = 0; i < 16; ++i) block.push_back(static_cast<uint8_t>(i | (15 - i) << 4));
  const auto x = decode(DType::Q4_0, block, 32);
  for (int i = 0; i < 16; ++i) {
    CHECK_EQ(x[static_cast<size_t>(i)], 2.0f * static_cast<float>(i - 8));
    CHECK_EQ(x[static_cast<size_t>(i + 16)], 2.0f * static_cast<float>(7 - i));
  }
}

TEST(q4_1_adds_the_minimum) {
  std::vector<uint8_t> block = {0x00, 0x38, 0x00, 0xC2};  // d = 0.5, m = -3
  for (int i = 0; i < 16; ++i) block.push_back(static_cast<uint8_t>(i | (15 - i) << 4));
  const auto x = decode(DType::Q4_1, block, 32);
  for (int i = 0; i < 16; ++i) {
    CHECK_EQ(x[static_cast<size_t>(i)], 0.5f * static_cast<float>(i) - 3);
    CHECK_EQ(x[static_cast<size_t>(i + 16)], 0.5f * static_cast<float>(15 - i) - 3);
  }
}

TEST(q8_0_is_signed) {
  std::vector<uint8_t> block = {0x00, 0x3C};  // d = 1
  for (int i = 0; i < 32; ++i) block.push_back(static_cast<uint8_t>(i * 8));
  const auto x = decode(DType::Q8_0, block, 32);
  for (int i = 0; i < 32; ++i) CHECK_EQ(x[static_cast<size_t>(i)], i < 16 ? i * 8.0f : i * 8.0f - 256);
}

TEST(q4_k_unpacks_six_bit_scales_and_minimums) {
  // Scales 1, 2, 3, 4, 17, 34, 51, 63 and minimums 5, 6, 7, 8, 18, 35, 52, 62, packed by the definition: the first four
  // in six bits of a byte each; of the last four, the low four bits in bytes 8-11, the high two above the first ones.
  const int s[8] = {1, 2, 3, 4, 17, 34, 51, 63}, m[8] = {5, 6, 7, 8, 18, 35, 52, 62};
  std::vector<uint8_t> block = {0x00, 0x3C, 0x00, 0x40};  // d = 1, dmin = 2
  for (int i = 0; i < 4; ++i) block.push_back(static_cast<uint8_t>(s[i] | (s[i + 4] >> 4) << 6));
  for (int i = 0; i < 4; ++i) block.push_back(static_cast<uint8_t>(m[i] | (m[i + 4] >> 4) << 6));
  for (int i = 0; i < 4; ++i) block.push_back(static_cast<uint8_t>((s[i + 4] & 15) | (m[i + 4] & 15) << 4));
  for (int i = 0; i < 128; ++i) block.push_back(static_cast<uint8_t>(i % 16 | (i * 7 + 3) % 16 << 4));
  float scale[8], minimum[8];
  q4_k_scales(block.data(), scale, minimum);
  for (int g = 0; g < 8; ++g) {
    CHECK_EQ(scale[g], static_cast<float>(s[g]));
    CHECK_EQ(minimum[g], 2.0f * static_cast<float>(m[g]));
  }
  const auto x = decode(DType::Q4_K, block, 256);
  for (int g = 0; g < 8; ++g)
    for (int i = 0; i < 32; ++i) {
      const int byte = g / 2 * 32 + i, q = g % 2 ? (byte * 7 + 3) % 16 : byte % 16;
      CHECK_EQ(x[static_cast<size_t>(g * 32 + i)], static_cast<float>(q * s[g] - 2 * m[g]));
    }
}

TEST(rows_of_several_blocks_follow_one_another) {
  std::vector<uint8_t> row;
  for (int b = 0; b < 3; ++b) {
    row.insert(row.end(), {0x00, 0x3C});
    for (int i = 0; i < 32; ++i) row.push_back(static_cast<uint8_t>(b));
  }
  const auto x = decode(DType::Q8_0, row, 96);
  for (int i = 0; i < 96; ++i) CHECK_EQ(x[static_cast<size_t>(i)], static_cast<float>(i / 32));
  const auto y = decode(DType::F16, {0x00, 0x3C, 0x00, 0xC0, 0x01, 0x00}, 3);
  CHECK_EQ(y[0], 1.0f);
  CHECK_EQ(y[1], -2.0f);
  CHECK_EQ(y[2], std::ldexp(1.0f, -24));
}

TEST_MAIN
