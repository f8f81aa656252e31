// The cache grows block by block, keeps what it holds, and has no two elements in one place.
#include "asr/kv_cache.h"

#include <cstring>
#include <set>

#include "check.h"

using namespace chatllm;

namespace {

constexpr int64_t kKeys = 640, kValues = 832;  // bytes of a head's block

}  // namespace

TEST(no_two_blocks_overlap_and_growth_keeps_them) {
  constexpr int64_t kLayers = 2, kHeads = 3, kPositions = 150;
  KvCache cache(kLayers, kHeads, kKeys, kValues);
  auto stamp = [](int64_t l, int64_t h, int64_t p, int kind) {
    return static_cast<uint8_t>(l * 97 + h * 31 + p / KvCache::kBlock * 7 + kind * 13);
  };
  for (int64_t p = 0; p < kPositions; p += KvCache::kBlock) {
    cache.reserve(p + 1);
    for (int64_t l = 0; l < kLayers; ++l)
      for (int64_t h = 0; h < kHeads; ++h) {
        std::memset(cache.keys(l, h, p), stamp(l, h, p, 0), kKeys);
        std::memset(cache.values(l, h, p), stamp(l, h, p, 1), kValues);
      }
  }
  std::set<const uint8_t *> places;
  int wrong = 0;
  for (int64_t p = 0; p < kPositions; ++p)
    for (int64_t l = 0; l < kLayers; ++l)
      for (int64_t h = 0; h < kHeads; ++h)
        for (int kind = 0; kind < 2; ++kind) {
          const uint8_t *block = kind == 0 ? cache.keys(l, h, p) : cache.values(l, h, p);
          for (int64_t i = 0; i < (kind == 0 ? kKeys : kValues); ++i) {
            wrong += block[i] != stamp(l, h, p, kind);
            places.insert(block + i);
          }
        }
  CHECK_EQ(wrong, 0);
  CHECK_EQ(places.size(), static_cast<size_t>(3 * kLayers * kHeads * (kKeys + kValues)));
  CHECK_EQ(cache.position_bytes() * KvCache::kBlock, static_cast<size_t>(kLayers * kHeads * (kKeys + kValues)));
}

TEST(shrinking_keeps_the_first_positions) {
  KvCache cache(1, 1, 1024, 1024);
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
