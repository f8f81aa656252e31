#include "model/describe.h"

#include "base/format.h"

namespace chatllm {

namespace {

// One JSON object, member after member.
class Writer {
 public:
  Writer &member(const char *name, const std::string &text) { return raw(name, json_quote(text)); }
  Writer &member(const char *name, int64_t number) { return raw(name, format("%lld", static_cast<long long>(number))); }
  Writer &number(const char *name, double value) { return raw(name, format("%g", value)); }
  Writer &member(const char *name, const Json &number) { return raw(name, format("%.0f", number.number(0))); }
  Writer &member(const char *name, const std::vector<std::string> &texts) {
    std::string all;
    for (const std::string &text : texts) all += (all.empty() ? "" : ", ") + json_quote(text);
    return raw(name, "[" + all + "]");
  }
  std::string text() const { return "{" + text_ + "}"; }

 private:
  Writer &raw(const char *name, const std::string &value) {
    text_ += (text_.empty() ? "\"" : ", \"") + std::string(name) + "\": " + value;
    return *this;
  }
  std::string text_;
};

void decoder_sizes(Writer &json, int64_t vocab, int64_t hidden, int64_t layers, int64_t heads, int64_t kv_heads,
                   int64_t head_dim) {
  json.member("vocab_size", vocab)
      .member("hidden_size", hidden)
      .member("layers", layers)
      .member("heads", heads)
      .member("kv_heads", kv_heads)
      .member("head_dim", head_dim);
}

}  // namespace

std::string describe_file(const GgmmFile &file) {
  const GgmmHeader &h = file.header();
  const Json &root = file.metadata()["config.json"], &audio = root["thinker_config"]["audio_config"];
  std::vector<std::string> languages;
  for (const Json &language : root["support_languages"].items()) languages.push_back(language.string());
  Writer json;
  json.member("path", file.file().path())
      .member("name", file.metadata()["model_name"].string())
      .member("purpose", std::string(h.model_type == kModelQwen3Asr ? "ASR" : "ForcedAligner"))
      .member("file_bytes", static_cast<int64_t>(file.file().size()))
      .member("model_type", h.model_type)
      .member("tensor_type", std::string(type_name(h.type)));
  decoder_sizes(json, h.vocab_size, h.hidden, h.layers, h.heads, h.kv_heads, h.head_dim);
  json.member("ffn", h.ffn)
      .member("context_length", h.max_positions)
      .member("encoder_width", audio["d_model"])
      .member("encoder_layers", audio["encoder_layers"])
      .member("languages", languages);
  return json.text();
}

std::string describe_model(const GgmmFile &file, const Config &c, const Engine &engine) {
  Writer json;
  json.member("name", c.name)
      .member("path", file.file().path())
      .member("kernels", std::string(engine.kernels))
      .member("threads", engine.threads)
      .member("tensor_type", std::string(type_name(file.header().type)))
      .member("context_length", engine.context_length);
  decoder_sizes(json, c.decoder.vocab, c.decoder.hidden, c.decoder.layers, c.decoder.heads, c.decoder.kv_heads,
                c.decoder.head_dim);
  json.member("encoder_width", c.encoder.d_model)
      .member("encoder_layers", c.encoder.layers)
      .member("mel_bins", c.encoder.mel_bins)
      .member("purpose", std::string(c.aligner ? "ForcedAligner" : "ASR"))
      .member("classes", c.classes)
      .number("class_ms", c.class_ms)
      .member("languages", c.languages);
  return json.text();
}

std::string describe_for_chatllm(const GgmmFile &file, const Config &c) {
  int64_t parameters = 0;
  for (const auto &tensor : file.tensors()) parameters += tensor.second.rows() * tensor.second.cols();
  Writer json;
  json.member("name", c.name)
      .member("purpose", std::string("ASR"))
      .member("capabilities", std::vector<std::string>{"Text", "Audio Input"})
      .member("context_length", c.decoder.max_positions)
      .member("training_context_length", c.decoder.max_positions)
      .member("param_num", parameters)
      .member("active_param_num", parameters);
  return json.text();
}

}  // namespace chatllm
