// What the decoder remembers of one utterance: its keys and values, and what they were computed from.
#pragma once

#include <algorithm>
#include <vector>

#include "asr/kv_cache.h"

namespace chatllm {

// What lies at a position: a token, or a row of the encoder. Equal keys mean equal inputs.
using PositionKey = uint64_t;

inline PositionKey token_key(int32_t id) {
  return static_cast<uint32_t>(id);
}
// Row `row` of the encoder's work number `work`; no two works of a recognizer have the same number.
inline PositionKey audio_key(uint64_t work, int64_t row) {
  return uint64_t{1} << 63 | work << 20 | static_cast<uint64_t>(row);
}

class Sequence {
 public:
  explicit Sequence(KvCache cache) : cache_(std::move(cache)) {}

  int64_t length() const { return static_cast<int64_t>(keys_.size()); }
  void truncate(int64_t length) { keys_.resize(static_cast<size_t>(std::min(length, this->length()))); }
  // How many of its first positions hold what these keys say.
  int64_t common_prefix(const std::vector<PositionKey> &keys) const {
    const size_t most = std::min(keys.size(), keys_.size());
    return std::mismatch(keys_.begin(), keys_.begin() + static_cast<std::ptrdiff_t>(most), keys.begin()).first -
           keys_.begin();
  }
  // Makes room for more positions; throws std::bad_alloc and keeps what there was.
  void reserve(int64_t more) {
    cache_.reserve(length() + more);
    keys_.reserve(static_cast<size_t>(length() + more + KvCache::kBlock - 1) / KvCache::kBlock * KvCache::kBlock);
  }
  // Memory of positions beyond the length, or beyond `keep`, goes back.
  void shrink(int64_t keep) { cache_.shrink(std::max(length(), keep)); }
  const std::vector<PositionKey> &keys() const { return keys_; }
  size_t position_bytes() const { return cache_.position_bytes(); }

 private:
  friend class Decoder;
  // What has been computed behind the last position.
  void append(const PositionKey *keys, int64_t count) { keys_.insert(keys_.end(), keys, keys + count); }

  KvCache cache_;
  std::vector<PositionKey> keys_;
};

}  // namespace chatllm
