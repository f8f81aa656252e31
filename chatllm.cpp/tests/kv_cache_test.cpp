// The cache grows block by block, keeps what it holds, and has no two elements in one place.
#include "asr/kv_cache.h"

#include <cstring>
#include <set>

#include "check.h"

using namespace chatllm;

namespace {

constexpr int64_t kDim = 5;
constexpr int64_t kElement = 2;  // bytes

// Byte i of a key: keys are interleaved by sixteen positions.
uint8_t *key_byte(KvCache &cache, int64_t layer, int64_t head, int64_t position, int64_t i) {
  const int64_t p = position % KvCache::kBlock;
  return cache.keys(layer, head, position) + ((p / 16 * kDim + i / kElement) * 16 + p % 16) * kElement + i % kElement;
}

}  // namespace

TEST(no_two_vectors_overlap_and_growth_keeps_them) {
  constexpr int64_t kLayers = 2, kHeads = 3, kPositions = 150;
  KvCache cache(kLayers, kHeads, kDim, static_cast<size_t>(kElement));
  auto stamp = [](int64_t l, int64_t h, int64_t p, int kind) {
    return static_cast<uint8_t>(l * 97 + h * 31 + p * 7 + kind * 13);
  };
  for (int64_t p = 0; p < kPositions; ++p) {
    cache.reserve(p + 1);
    for (int64_t l = 0; l < kLayers; ++l)
      for (int64_t h = 0; h < kHeads; ++h) {
        for (int64_t i = 0; i < kDim * kElement; ++i) *key_byte(cache, l, h, p, i) = stamp(l, h, p, 0);
        std::memset(cache.values(l, h, p), stamp(l, h, p, 1), kDim * kElement);
      }
  }
  std::set<const uint8_t *> places;
  int wrong = 0;
  for (int64_t p = 0; p < kPositions; ++p)
    for (int64_t l = 0; l < kLayers; ++l)
      for (int64_t h = 0; h < kHeads; ++h)
        for (int64_t i = 0; i < kDim * kElement; ++i) {
          wrong += *key_byte(cache, l, h, p, i) != stamp(l, h, p, 0);
          wrong += cache.values(l, h, p)[i] != stamp(l, h, p, 1);
          places.insert(key_byte(cache, l, h, p, i));
          places.insert(cache.values(l, h, p) + i);
        }
  CHECK_EQ(wrong, 0);
  CHECK_EQ(places.size(), static_cast<size_t>(kPositions * kLayers * kHeads * 2 * kDim * kElement));
}

TEST(positions_of_a_block_lie_one_after_another) {
  KvCache cache(1, 2, 8, 4);
  cache.reserve(130);
  for (int64_t p = 0; p < 130; ++p)
    if (p % KvCache::kBlock != 0) CHECK_EQ(cache.values(0, 1, p) - cache.values(0, 1, p - 1), std::ptrdiff_t{32});
}

TEST(shrinking_keeps_the_first_positions) {
  KvCache cache(1, 1, 4, 4);
  cache.reserve(1000);
  std::memset(cache.values(0, 0, 70), 42, 16);
  const uint8_t *place = cache.values(0, 0, 70);
  cache.shrink(71);
  CHECK(cache.values(0, 0, 70) == place);
  CHECK_EQ(static_cast<int>(*place), 42);
  cache.reserve(1000);
  CHECK_EQ(static_cast<int>(cache.values(0, 0, 70)[15]), 42);
  cache.shrink(0);
  cache.reserve(1);
  CHECK(cache.values(0, 0, 0) != nullptr);
}

TEST_MAIN
