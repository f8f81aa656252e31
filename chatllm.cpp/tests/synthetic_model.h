// Writes a GGMM file of a Qwen3-ASR with random weights, of any sizes.
#pragma once

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "model/ggmm.h"
#include "quantize.h"

namespace test {

struct ModelSpec {
  int d_model = 32, encoder_layers = 2, encoder_heads = 2, encoder_ffn = 64, conv_channels = 8, mel_bins = 128;
  int n_window = 50, n_window_infer = 800;
  int hidden = 64, layers = 2, heads = 4, kv_heads = 2, head_dim = 16, ffn = 96, max_positions = 65536;
  int spare_ids = 3;  // at the end of the vocabulary, without a token
  int classes = 0;    // of times, 100 ms each: a forced aligner
  bool tied = false;
  chatllm::DType type = chatllm::DType::Q8_0;
  bool mixed = false;  // another type for each matrix
  uint64_t seed = 1;
  std::vector<std::string> words;   // tokens after the 256 bytes, in GPT-2's alphabet
  std::vector<std::string> merges;  // "left right"
};

// A model that loads and runs in a millisecond; mutants of it stay small enough for the machine.
inline ModelSpec small_spec() {
  ModelSpec spec;
  spec.d_model = 8;
  spec.encoder_layers = 1;
  spec.encoder_ffn = 8;
  spec.conv_channels = 2;
  spec.hidden = 32;
  spec.layers = 1;
  spec.heads = 2;
  spec.kv_heads = 1;
  spec.head_dim = 6;
  spec.ffn = 32;
  spec.max_positions = 4096;
  spec.mel_bins = 16;
  spec.mixed = true;
  spec.words = {"ab", "abc"};
  spec.merges = {"a b", "ab c"};
  return spec;
}

// What build_model() wrote, and where its parts begin.
struct ModelBytes {
  std::vector<uint8_t> bytes;
  std::vector<size_t> boundaries;
};

// GPT-2's alphabet: the code point that stands for a byte.
inline std::string alphabet_letter(int byte) {
  const auto printable = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
  int code = byte;
  if (!printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
  }
  std::string text;
  chatllm::append_utf8(text, static_cast<uint32_t>(code));
  return text;
}

inline std::vector<std::string> special_tokens() {
  return {"<|endoftext|>", "<|im_start|>",  "<|im_end|>", "<|audio_start|>",
          "<|audio_end|>", "<|audio_pad|>", "<asr_text>"};
}

class ModelWriter {
 public:
  explicit ModelWriter(const ModelSpec &spec) : s_(spec), random_(spec.seed) {}

  ModelBytes build() {
    vocabulary_ = static_cast<int>(256 + s_.words.size());
    total_ = vocabulary_ + static_cast<int>(specials().size()) + s_.spare_ids;
    put_bytes(&out_.bytes, "ggmm", 4);
    for (const int value : {1, 0, 0, 0}) i32(value);
    mark();
    const std::string json = metadata();
    put_bytes(&out_.bytes, json.data(), json.size());
    while (out_.bytes.size() % 4 != 0) out_.bytes.push_back(0);
    offset(8);
    configuration();
    offset(12);
    for (int b = 0; b < 256; ++b) token(alphabet_letter(b));
    for (const std::string &word : s_.words) token(word);
    i32(-1);
    mark();
    for (const std::string &merge : s_.merges) string(merge);
    i32(-1);
    offset(16);
    encoder();
    decoder();
    return std::move(out_);
  }

 private:
  using DType = chatllm::DType;

  void i32(int32_t value) { put_bytes(&out_.bytes, &value, 4); }
  void f32(float value) { put_bytes(&out_.bytes, &value, 4); }
  void mark() { out_.boundaries.push_back(out_.bytes.size()); }
  void offset(size_t at) {
    const int32_t here = static_cast<int32_t>(out_.bytes.size());
    std::memcpy(&out_.bytes[at], &here, 4);
    mark();
  }
  void string(const std::string &text) {
    i32(static_cast<int32_t>(text.size()));
    put_bytes(&out_.bytes, text.data(), text.size());
  }
  void token(const std::string &text) {
    string(text);
    out_.bytes.push_back(1);
  }

  std::vector<std::string> specials() const {
    std::vector<std::string> names = special_tokens();
    if (s_.classes > 0) names.push_back("<timestamp>");
    return names;
  }

  std::string metadata() const {
    auto field = [](const char *name, int value) { return std::string("\"") + name + "\": " + std::to_string(value); };
    std::string specials;
    int id = vocabulary_;
    for (const std::string &name : this->specials())
      specials += (specials.empty() ? "\"" : ", \"") + std::to_string(id++) + "\": {\"content\": \"" + name +
                  "\", \"special\": true}";
    return "{\"model_name\": \"synthetic\", \"config.json\": {\"timestamp_segment_time\": 100, \"thinker_config\": "
           "{\"audio_config\": {" +
           field("d_model", s_.d_model) + ", " + field("encoder_layers", s_.encoder_layers) + ", " +
           field("encoder_attention_heads", s_.encoder_heads) + ", " + field("encoder_ffn_dim", s_.encoder_ffn) + ", " +
           field("output_dim", s_.hidden) + ", " + field("downsample_hidden_size", s_.conv_channels) + ", " +
           field("num_mel_bins", s_.mel_bins) + ", " + field("n_window", s_.n_window) + ", " +
           field("n_window_infer", s_.n_window_infer) +
           "}, \"text_config\": {\"rms_norm_eps\": 1e-06}}, \"support_languages\": [\"Chinese\", \"English\"]}, "
           "\"tokenizer_config.json\": {\"added_tokens_decoder\": {" +
           specials + "}}}";
  }

  void configuration() {
    i32(s_.classes > 0 ? chatllm::kModelQwen3ForcedAligner : chatllm::kModelQwen3Asr);
    i32(1);
    for (const int value : {static_cast<int>(s_.type), total_, s_.hidden, s_.heads, s_.layers, s_.ffn, s_.max_positions,
                            -1, -1, -1, -1, s_.kv_heads, s_.head_dim})
      i32(value);
    f32(1e6f);
    f32(-1);
    for (const int value : {-1, -1, -1, -1, -1, -1}) i32(value);
    i32(s_.tied ? 1 : 0);
    for (int i = 0; i < 128; ++i) i32(0);
    for (int i = 0; i < 4; ++i) i32(0);
    if (s_.classes > 0) i32(s_.classes);
  }

  // The wanted type if rows of this length can have it.
  DType type_for(int64_t cols) {
    static constexpr DType kAll[] = {DType::Q4_0, DType::Q8_0, DType::F16, DType::Q4_1, DType::F32, DType::Q4_K};
    const DType wanted = s_.mixed ? kAll[matrices_++ % 6] : s_.type;
    if (wanted == DType::Q4_K && cols % 256 != 0 && cols % 32 == 0) return DType::Q8_0;
    return cols % chatllm::block_shape(wanted).values == 0 ? wanted : DType::F16;
  }

  void header(const std::string &name, const std::vector<int> &shape, DType type) {
    mark();
    string(name);
    i32(static_cast<int32_t>(shape.size()));
    for (const int n : shape) i32(n);
    i32(static_cast<int32_t>(type));
    while (out_.bytes.size() % 16 != 0) out_.bytes.push_back(0);
    mark();
  }
  void matrix(const std::string &name, int rows, int cols, float gain = 1) {
    const DType type = type_for(cols);
    header(name, {rows, cols}, type);
    const auto data = random_matrix(type, rows, cols, gain / std::sqrt(static_cast<float>(cols)), &random_);
    put_bytes(&out_.bytes, data.data(), data.size());
  }
  void vector(const std::string &name, int n, float mean) {
    header(name, {n}, DType::F32);
    for (int i = 0; i < n; ++i) f32(mean + 0.1f * random_.normal());
  }
  void norm(const std::string &name, int n) {
    vector(name + ".weight", n, 1);
    vector(name + ".bias", n, 0);
  }
  void linear(const std::string &name, int rows, int cols) {
    matrix(name + ".weight", rows, cols);
    vector(name + ".bias", rows, 0);
  }
  void convolution(const std::string &name, int out, int in) {
    header(name + ".weight", {out, in, 3, 3}, DType::F16);
    for (int i = 0; i < out * in * 9; ++i)
      put_half(&out_.bytes, 1.5f * random_.normal() / std::sqrt(9.0f * static_cast<float>(in)));
    vector(name + ".bias", out, 0);
  }

  void encoder() {
    const int d = s_.d_model, c = s_.conv_channels, bins = ((((s_.mel_bins - 1) / 2 + 1) - 1) / 2 + 1 - 1) / 2 + 1;
    convolution("audio.conv2d1", c, 1);
    convolution("audio.conv2d2", c, c);
    convolution("audio.conv2d3", c, c);
    matrix("audio.conv_out.weight", d, c * bins);
    for (int i = 0; i < s_.encoder_layers; ++i) {
      const std::string at = "audio.layers." + std::to_string(i);
      for (const char *name : {"q_proj", "k_proj", "v_proj", "o_proj"}) linear(at + ".self_attn." + name, d, d);
      linear(at + ".mlp.fc0", s_.encoder_ffn, d);
      linear(at + ".mlp.fc1", d, s_.encoder_ffn);
      norm(at + ".input_layernorm", d);
      norm(at + ".post_attention_layernorm", d);
    }
    norm("audio.ln_post", d);
    linear("multi_modal_projector.proj1", d, d);
    linear("multi_modal_projector.proj2", s_.hidden, d);
  }

  void decoder() {
    const int h = s_.hidden, q = s_.heads * s_.head_dim, kv = s_.kv_heads * s_.head_dim;
    matrix("model.embed_tokens.weight", total_, h, std::sqrt(static_cast<float>(h)));
    for (int i = 0; i < s_.layers; ++i) {
      const std::string at = "model.layers." + std::to_string(i);
      matrix(at + ".self_attn.q_proj.weight", q, h);
      matrix(at + ".self_attn.k_proj.weight", kv, h);
      matrix(at + ".self_attn.v_proj.weight", kv, h);
      matrix(at + ".self_attn.o_proj.weight", h, q);
      matrix(at + ".mlp.gate_proj.weight", s_.ffn, h);
      matrix(at + ".mlp.up_proj.weight", s_.ffn, h);
      matrix(at + ".mlp.down_proj.weight", h, s_.ffn);
      vector(at + ".self_attn.q_norm.weight", s_.head_dim, 1);
      vector(at + ".self_attn.k_norm.weight", s_.head_dim, 1);
      vector(at + ".input_layernorm.weight", h, 1);
      vector(at + ".post_attention_layernorm.weight", h, 1);
    }
    vector("model.norm.weight", h, 1);
    if (!s_.tied) matrix("lm_head.weight", s_.classes > 0 ? s_.classes : total_, h);
  }

  ModelSpec s_;
  Random random_;
  ModelBytes out_;
  int vocabulary_ = 0, total_ = 0, matrices_ = 0;
};

inline ModelBytes build_model(const ModelSpec &spec) {
  return ModelWriter(spec).build();
}

// A file of its own in the folder for temporary files, gone with the object.
class TempFile {
 public:
  explicit TempFile(const std::vector<uint8_t> &bytes, const std::string &ending = ".bin") {
    static std::atomic<int> count{0};
    const auto unique =
        reinterpret_cast<uintptr_t>(this) ^ std::hash<std::string>{}(std::filesystem::current_path().string());
    path_ = (std::filesystem::temp_directory_path() /
             ("chatllm-test-" + std::to_string(unique) + "-" + std::to_string(++count) + ending))
                .string();
    write(bytes);
  }
  ~TempFile() { std::remove(path_.c_str()); }
  TempFile(const TempFile &) = delete;
  TempFile &operator=(const TempFile &) = delete;

  void write(const std::vector<uint8_t> &bytes) const {
    std::remove(path_.c_str());  // a new file: some file systems flush one that is written over
    FILE *file = std::fopen(path_.c_str(), "wb");
    const size_t written = file == nullptr || bytes.empty() ? 0 : std::fwrite(bytes.data(), 1, bytes.size(), file);
    if (file == nullptr || written != bytes.size() || std::fclose(file) != 0)
      throw std::runtime_error("cannot write " + path_);
  }
  const std::string &path() const { return path_; }

 private:
  std::string path_;
};

// Something like speech: a few gliding tones under an envelope, with noise.
inline std::vector<float> sound(double seconds, uint64_t seed = 1) {
  Random random(seed);
  const size_t n = static_cast<size_t>(seconds * 16000);
  std::vector<float> pcm(n);
  const double f = 120 + random.uniform() * 80;
  for (size_t i = 0; i < n; ++i) {
    const double t = static_cast<double>(i) / 16000;
    double x = 0;
    for (int h = 1; h < 12; ++h) x += std::sin(6.283185307 * h * f * t + 3 * std::sin(2.1 * t * h)) / h;
    pcm[i] = static_cast<float>(0.15 * x * (0.6 + 0.4 * std::sin(6.283 * 3.3 * t))) + 0.01f * random.normal();
  }
  return pcm;
}

}  // namespace test
