#include "model/config.h"

#include "base/error.h"

namespace chatllm {

int EncoderConfig::conv_bins() const {
  return static_cast<int>(halved(halved(halved(mel_bins))));
}

int EncoderConfig::tokens(int64_t frames) const {
  return frames <= 0 ? 0 : static_cast<int>(halved(halved(halved(frames))));
}

int64_t EncoderConfig::total_tokens(int64_t frames) const {
  return frames / chunk_frames * tokens(chunk_frames) + tokens(frames % chunk_frames);
}

Config Config::read(const GgmmFile &file) {
  const GgmmHeader &h = file.header();
  const Json &root = file.metadata()["config.json"];
  const Json &thinker = root["thinker_config"];
  const Json &audio = thinker["audio_config"], &text = thinker["text_config"];
  Config c;
  c.name = file.metadata()["model_name"].string();

  EncoderConfig &e = c.encoder;
  e.d_model = audio["d_model"].integer("d_model", 4, 1 << 14);
  const Json &layers = audio["encoder_layers"];
  e.layers =
      (layers.kind() == Json::Kind::Null ? audio["num_hidden_layers"] : layers).integer("encoder_layers", 1, 512);
  e.heads = audio["encoder_attention_heads"].integer("encoder_attention_heads", 1, 512);
  e.ffn = audio["encoder_ffn_dim"].integer("encoder_ffn_dim", 1, 1 << 17);
  e.output_dim = audio["output_dim"].integer("output_dim", 1, 1 << 16);
  e.conv_channels = audio["downsample_hidden_size"].integer("downsample_hidden_size", 1, 1 << 13);
  e.mel_bins = audio["num_mel_bins"].integer("num_mel_bins", 8, 1024);
  const int n_window = audio["n_window"].integer("n_window", 1, 1 << 14);
  const int n_window_infer = audio["n_window_infer"].integer("n_window_infer", 1, 1 << 20);
  e.chunk_frames = 2 * n_window;
  e.window_chunks = n_window_infer / e.chunk_frames;
  if (e.d_model % e.heads != 0 || e.d_model % 2 != 0)
    fail(Status::BadModel,
         format("the model file is damaged: encoder_attention_heads (%d) do not divide d_model (%d) into even parts",
                e.heads, e.d_model));
  if (e.window_chunks < 1)
    fail(Status::BadModel, "the model file is damaged: n_window_infer is less than 2 * n_window");
  if (e.output_dim != h.hidden)
    fail(Status::BadModel, format("the model file is damaged: output_dim (%d) is not the decoder's hidden size (%d)",
                                  e.output_dim, h.hidden));

  DecoderConfig &d = c.decoder;
  d.vocab = h.vocab_size;
  d.hidden = h.hidden;
  d.layers = h.layers;
  d.heads = h.heads;
  d.kv_heads = h.kv_heads;
  d.head_dim = h.head_dim;
  d.ffn = h.ffn;
  d.max_positions = h.max_positions;
  d.rope_theta = h.rope_theta;
  d.rms_eps = static_cast<float>(text["rms_norm_eps"].number("rms_norm_eps", 1e-6));
  if (!(d.rms_eps > 0 && d.rms_eps < 1))
    fail(Status::BadModel, "the model file is damaged: rms_norm_eps is out of range");

  c.aligner = h.model_type == kModelQwen3ForcedAligner;
  if (c.aligner) {
    c.classes = h.classify_num;
    c.class_ms = root["timestamp_segment_time"].number("timestamp_segment_time", 80);
    if (!(c.class_ms >= 1 && c.class_ms <= 10000))
      fail(Status::BadModel, "the model file is damaged: timestamp_segment_time is out of range");
  }

  for (const Json &language : root["support_languages"].items())
    if (!language.string().empty()) c.languages.push_back(language.string());
  return c;
}

}  // namespace chatllm
