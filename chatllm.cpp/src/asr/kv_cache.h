// Keys and values of all layers, in blocks of positions that are allocated as the text grows.
#pragma once

#include <memory>
#include <vector>

#include "base/memory.h"
#include "nn/kernels.h"

namespace chatllm {

// Blocks that caches of one shape have given back: fresh pages cost more time than the few that a short clip needs.
class KvBlocks {
 public:
  explicit KvBlocks(size_t most) : most_(most) { spare_.reserve(most); }  // giving back takes no memory
  Buffer<uint8_t> take(size_t bytes) {
    if (spare_.empty()) return Buffer<uint8_t>(bytes);
    Buffer<uint8_t> block = std::move(spare_.back());
    spare_.pop_back();
    return block;
  }
  void give(Buffer<uint8_t> &&block) {
    if (spare_.size() < most_) spare_.push_back(std::move(block));
  }
  void release() { spare_.clear(); }

 private:
  size_t most_;
  std::vector<Buffer<uint8_t>> spare_;
};

class KvCache {
 public:
  static constexpr int64_t kBlock = kKvBlock;  // positions

  // head_keys, head_values: bytes of a block's keys and values of one head.
  KvCache(int64_t layers, int64_t kv_heads, int64_t head_keys, int64_t head_values, KvBlocks *spare = nullptr)
      : spare_(spare),
        kv_heads_(static_cast<size_t>(kv_heads)),
        head_keys_(static_cast<size_t>(head_keys)),
        head_values_(static_cast<size_t>(head_values)),
        layer_bytes_(kv_heads_ * (head_keys_ + head_values_)),
        block_bytes_(static_cast<size_t>(layers) * layer_bytes_) {}

  // Makes room for `positions`; throws std::bad_alloc and keeps what there was.
  void reserve(int64_t positions) {
    while (static_cast<int64_t>(blocks_.size()) * kBlock < positions)
      blocks_.push_back(spare_ != nullptr ? spare_->take(block_bytes_) : Buffer<uint8_t>(block_bytes_));
  }
  // Keeps at most the blocks that this many positions need.
  void shrink(int64_t positions) {
    const size_t keep = static_cast<size_t>((positions + kBlock - 1) / kBlock);
    while (blocks_.size() > keep) {
      if (spare_ != nullptr) spare_->give(std::move(blocks_.back()));
      blocks_.pop_back();
    }
    blocks_.shrink_to_fit();
  }

  // A head's keys, and values, of the block that holds `position`.
  uint8_t *keys(int64_t layer, int64_t head, int64_t position) {
    return this->layer(layer, position) + static_cast<size_t>(head) * head_keys_;
  }
  uint8_t *values(int64_t layer, int64_t head, int64_t position) {
    return this->layer(layer, position) + kv_heads_ * head_keys_ + static_cast<size_t>(head) * head_values_;
  }
  // Bytes of a position, all layers together.
  size_t position_bytes() const { return block_bytes_ / kBlock; }

 private:
  uint8_t *layer(int64_t layer, int64_t position) {
    return blocks_[static_cast<size_t>(position / kBlock)].data() + static_cast<size_t>(layer) * layer_bytes_;
  }

  KvBlocks *spare_;
  size_t kv_heads_, head_keys_, head_values_, layer_bytes_, block_bytes_;
  std::vector<Buffer<uint8_t>> blocks_;
};

}  // namespace chatllm
