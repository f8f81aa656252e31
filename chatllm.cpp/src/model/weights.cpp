#include "model/weights.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>

#include "base/error.h"
#include "base/fork.h"
#include "nn/pack.h"

namespace chatllm {

namespace {

// Blocks of 32 as ggml's Q8_0: scale max|x| / 127 in fp16, then 32 signed bytes.
std::vector<uint8_t> to_q8_0(DType type, const std::vector<uint8_t> &values, int64_t count) {
  std::vector<uint8_t> blocks(static_cast<size_t>(count / kGroup * (kGroup + 2)));
  uint8_t *out = blocks.data();
  for (int64_t at = 0; at < count; at += kGroup) {
    float x[kGroup], top = 0;
    dequantize_row(type, values.data() + static_cast<size_t>(at) * (type == DType::F16 ? 2 : 4), x, kGroup);
    for (const float value : x) top = std::max(top, std::abs(value));
    const uint16_t scale = float_to_half(top / 127);
    const float inverse = top > 0 ? 127 / top : 0.0f;
    std::memcpy(out, &scale, 2);
    out += 2;
    for (const float value : x) *out++ = static_cast<uint8_t>(static_cast<int8_t>(std::lround(value * inverse)));
  }
  return blocks;
}

}  // namespace

// Collects what is to be packed, then packs everything into one arena with all threads.
class Model::Packer {
 public:
  Packer(const GgmmFile &file, const Kernels &kernels, std::deque<std::vector<float>> &vectors)
      : file_(file), kernels_(kernels), vectors_(vectors) {
    const Tensor *first = file.find("audio.layers.0.self_attn.q_proj.weight");
    four_bit_encoder_ = first != nullptr && is_four_bit(first->type);
  }

  const float *vector(const std::string &name, int64_t size) {
    const Tensor &tensor = file_.get(name, {size});
    if (tensor.type != DType::F32)
      fail(Status::BadModel,
           format("the model file is damaged: tensor '%s' is %s instead of f32", name.c_str(), type_name(tensor.type)));
    vectors_.emplace_back(static_cast<size_t>(size));
    file_.file().read(tensor.at, vectors_.back().data(), tensor.bytes);
    return vectors_.back().data();
  }

  LayerNorm layer_norm(const std::string &name, int64_t size) {
    return {vector(name + ".weight", size), vector(name + ".bias", size)};
  }

  // Appends the matrix `name`.weight (and .bias) to a linear layer.
  void add(Linear &linear, const std::string &name, int64_t rows, int64_t cols, bool bias) {
    const Tensor &tensor = file_.get(name + ".weight", {rows, cols});
    place(linear, tensor, tensor.type, rows, cols, bias ? vector(name + ".bias", rows) : nullptr, {});
  }

  // A 3x3 convolution as a matrix whose columns follow the order of pixels in a channels-last map.
  void add_conv(Linear &linear, const std::string &name, int64_t out, int64_t in) {
    const Tensor &tensor = file_.get(name + ".weight", {out, in, 3, 3});
    if (tensor.type != DType::F16 && tensor.type != DType::F32)
      fail(Status::BadModel,
           format("the model file is damaged: tensor '%s.weight' is neither f16 nor f32", name.c_str()));
    const size_t size = tensor.type == DType::F16 ? 2 : 4;
    std::vector<uint8_t> original(tensor.bytes), permuted(tensor.bytes);
    file_.file().read(tensor.at, original.data(), original.size());
    for (int64_t o = 0; o < out; ++o)
      for (int64_t i = 0; i < in; ++i)
        for (int64_t k = 0; k < 9; ++k)
          std::memcpy(&permuted[static_cast<size_t>((o * 9 + k) * in + i) * size],
                      &original[static_cast<size_t>((o * in + i) * 9 + k) * size], size);
    DType type = tensor.type;
    // 8-bit weights where they are faster than 16-bit ones; where there is a matrix unit for those, only beside 4-bit
    // layers. The error stays below that of the 8-bit activations, and far below that of such layers.
    if (kernels_.fast_bytes && (four_bit_encoder_ || !has_matrix_unit(kernels_)) && 9 * in % kGroup == 0) {
      permuted = to_q8_0(type, permuted, out * 9 * in);
      type = DType::Q8_0;
    }
    place(linear, tensor, type, out, 9 * in, vector(name + ".bias", out), std::move(permuted));
  }

  // Packs; afterwards the matrices are usable as long as the arena lives. Layers must not move any more.
  Pages finish(ThreadPool &pool) {
    size_t bytes = 0;
    for (Job &job : jobs_) {
      job.at = bytes;
      bytes += (job_bytes(job) + 63) / 64 * 64;
    }
    Pages arena(bytes);
    constexpr int64_t kPanels = 4;  // packed at a time
    std::vector<Buffer<uint8_t>> rows(static_cast<size_t>(pool.size()));
    for (Job &job : jobs_) {
      Matrix &m = job.linear->parts[job.part].matrix;
      uint8_t *target = arena.data() + job.at;
      m.data = target;
      const Tensor &tensor = *job.tensor;
      if (m.layout == Layout::Rows) {
        if (job.permuted.empty())
          file_.file().read(tensor.at, target, tensor.bytes);
        else
          std::memcpy(target, job.permuted.data(), job.permuted.size());
      } else if (!job.permuted.empty()) {
        pack_panels(m.type, job.permuted.data(), m, 0, m.panels(), target);
      } else {
        file_.file().will_need(tensor.at, tensor.bytes);
        for (Buffer<uint8_t> &buffer : rows) buffer.reserve(static_cast<size_t>(kPanels * kPanel) * tensor.row_bytes());
        std::atomic<bool> good{true};
        pool.run((m.panels() + kPanels - 1) / kPanels, [&](int64_t task, int thread) {
          const int64_t first = task * kPanels, last = std::min(first + kPanels, m.panels());
          const size_t begin = static_cast<size_t>(first * kPanel) * tensor.row_bytes(),
                       end = std::min(tensor.bytes, static_cast<size_t>(last * kPanel) * tensor.row_bytes());
          uint8_t *source = rows[static_cast<size_t>(thread)].data();
          if (file_.file().try_read(tensor.at + begin, source, end - begin))
            pack_panels(m.type, source, m, first, last, target);
          else
            good = false;
        });
        if (!good) file_.file().fail_to_read();
      }
      job.permuted = {};
    }
    file_.file().check_unchanged();
    return arena;
  }

 private:
  struct Job {
    Linear *linear;
    size_t part;
    const Tensor *tensor;
    std::vector<uint8_t> permuted;
    size_t at;
  };

  static size_t job_bytes(const Job &job) {
    const Matrix &m = job.linear->parts[job.part].matrix;
    return static_cast<size_t>(m.layout == Layout::Rows ? m.rows : m.panels()) * panel_bytes(m);
  }

  // `permuted`: the tensor's values in another order or as another type; empty: as in the file.
  void place(Linear &linear, const Tensor &tensor, DType type, int64_t rows, int64_t cols, const float *bias,
             std::vector<uint8_t> permuted) {
    Linear::Part part;
    part.matrix.rows = rows;
    part.matrix.cols = cols;
    part.matrix.type = type;
    part.matrix.layout = panel_layout(type, kernels_);
    // One scale for 256 inputs is coarse beside the few blocks of a small matrix, whose products cost nothing anyway.
    constexpr int64_t kFewestCoarse = 512;
    part.matrix.coarse =
        cols >= kFewestCoarse && (is_four_bit(tensor.type) || (tensor.shape.size() == 4 && four_bit_encoder_));
    part.bias = bias;
    part.offset = linear.rows;
    linear.rows += rows;
    linear.cols = cols;
    linear.parts.push_back(part);
    jobs_.push_back({&linear, linear.parts.size() - 1, &tensor, std::move(permuted), 0});
  }

  const GgmmFile &file_;
  const Kernels &kernels_;
  std::deque<std::vector<float>> &vectors_;
  std::vector<Job> jobs_;
  bool four_bit_encoder_;  // then the convolutions before it may be rounded more too
};

Model::Model(const std::string &path, const Kernels &kernels, ThreadPool &pool)
    : file_(path), config_(Config::read(file_)), tokenizer_(file_) {
  Packer packer(file_, kernels, vectors_);

  const EncoderConfig &ec = config_.encoder;
  const int64_t d = ec.d_model;
  packer.add_conv(encoder_.conv1, "audio.conv2d1", ec.conv_channels, 1);
  packer.add_conv(encoder_.conv2, "audio.conv2d2", ec.conv_channels, ec.conv_channels);
  packer.add_conv(encoder_.conv3, "audio.conv2d3", ec.conv_channels, ec.conv_channels);
  packer.add(encoder_.conv_out, "audio.conv_out", d, static_cast<int64_t>(ec.conv_channels) * ec.conv_bins(), false);
  encoder_.layers.resize(static_cast<size_t>(ec.layers));
  for (int i = 0; i < ec.layers; ++i) {
    EncoderLayer &layer = encoder_.layers[static_cast<size_t>(i)];
    const std::string at = "audio.layers." + std::to_string(i);
    layer.attention_norm = packer.layer_norm(at + ".input_layernorm", d);
    layer.mlp_norm = packer.layer_norm(at + ".post_attention_layernorm", d);
    for (const char *name : {".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj"})
      packer.add(layer.qkv, at + name, d, d, true);
    packer.add(layer.out, at + ".self_attn.o_proj", d, d, true);
    packer.add(layer.fc0, at + ".mlp.fc0", ec.ffn, d, true);
    packer.add(layer.fc1, at + ".mlp.fc1", d, ec.ffn, true);
  }
  encoder_.ln_post = packer.layer_norm("audio.ln_post", d);
  packer.add(encoder_.proj1, "multi_modal_projector.proj1", d, d, true);
  packer.add(encoder_.proj2, "multi_modal_projector.proj2", ec.output_dim, d, true);

  const DecoderConfig &dc = config_.decoder;
  const int64_t q_rows = static_cast<int64_t>(dc.heads) * dc.head_dim,
                kv_rows = static_cast<int64_t>(dc.kv_heads) * dc.head_dim;
  decoder_.embedding = &file_.get("model.embed_tokens.weight", {dc.vocab, dc.hidden});
  decoder_.layers.resize(static_cast<size_t>(dc.layers));
  for (int i = 0; i < dc.layers; ++i) {
    DecoderLayer &layer = decoder_.layers[static_cast<size_t>(i)];
    const std::string at = "model.layers." + std::to_string(i);
    layer.attention_norm = packer.vector(at + ".input_layernorm.weight", dc.hidden);
    layer.mlp_norm = packer.vector(at + ".post_attention_layernorm.weight", dc.hidden);
    layer.q_norm = packer.vector(at + ".self_attn.q_norm.weight", dc.head_dim);
    layer.k_norm = packer.vector(at + ".self_attn.k_norm.weight", dc.head_dim);
    packer.add(layer.qkv, at + ".self_attn.q_proj", q_rows, dc.hidden, false);
    packer.add(layer.qkv, at + ".self_attn.k_proj", kv_rows, dc.hidden, false);
    packer.add(layer.qkv, at + ".self_attn.v_proj", kv_rows, dc.hidden, false);
    packer.add(layer.out, at + ".self_attn.o_proj", dc.hidden, q_rows, false);
    packer.add(layer.gate_up, at + ".mlp.gate_proj", dc.ffn, dc.hidden, false);
    packer.add(layer.gate_up, at + ".mlp.up_proj", dc.ffn, dc.hidden, false);
    packer.add(layer.down, at + ".mlp.down_proj", dc.hidden, dc.ffn, false);
  }
  decoder_.norm = packer.vector("model.norm.weight", dc.hidden);
  // A file that promises a head of its own and has none was cut off.
  const bool shared_head =
      !config_.aligner && file_.header().tied_embeddings && file_.find("lm_head.weight") == nullptr;
  packer.add(decoder_.lm_head, shared_head ? "model.embed_tokens" : "lm_head",
             config_.aligner ? config_.classes : dc.vocab, dc.hidden, false);
  arena_ = packer.finish(pool);
}

void Model::embed(int32_t token, float *out) const {
  const Tensor &table = *decoder_.embedding;
  file_.file().check_unchanged();
  const BlockShape block = block_shape(table.type);
  uint8_t bytes[4096];
  const int64_t most = static_cast<int64_t>(sizeof bytes) / block.bytes, blocks = table.cols() / block.values;
  size_t at = table.at + static_cast<size_t>(token) * table.row_bytes();
  for (int64_t done = 0; done < blocks;) {
    const int64_t n = std::min(most, blocks - done);
    file_.file().read(at, bytes, static_cast<size_t>(n * block.bytes));
    dequantize_row(table.type, bytes, out + done * block.values, n * block.values);
    at += static_cast<size_t>(n * block.bytes);
    done += n;
  }
}

namespace {

// Every loaded model of the process.
struct Cache {
  using Key = std::pair<FileIdentity, const Kernels *>;
  std::mutex mutex;
  std::map<Key, std::weak_ptr<const Model>> models;
};

// Never destroyed: objects may outlive static destruction. The child of a fork begins with an empty one: a thread that
// held the old one's mutex is not there to give it back.
Cache *make_cache();
Cache *cache = make_cache();

Cache *make_cache() {
  in_child_of_fork([] { cache = new Cache; });
  return new Cache;
}

}  // namespace

std::shared_ptr<const Model> Model::open(const std::string &path, const Kernels &kernels, ThreadPool &pool) {
  const Cache::Key key(InputFile(path).identity(), &kernels);
  std::lock_guard<std::mutex> lock(cache->mutex);  // a second loader waits for the first and then shares its result
  for (auto it = cache->models.begin(); it != cache->models.end();)
    it = it->second.expired() ? cache->models.erase(it) : std::next(it);
  if (auto model = cache->models[key].lock()) return model;
  auto model = naming(path, [&] { return std::shared_ptr<const Model>(new Model(path, kernels, pool)); });
  cache->models[key] = model;
  return model;
}

}  // namespace chatllm
