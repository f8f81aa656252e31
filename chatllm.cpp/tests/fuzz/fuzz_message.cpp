// Fuzz target: texts of strangers through the C API: file tags, message parts, settings, prompts. In a text, byte 1
// stands for the path of a good WAV file, byte 2 for its content in base64.
#include "fuzz.h"

namespace {

std::string base64(const std::vector<uint8_t> &bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    uint32_t bits = 0;
    for (size_t i = 0; i < 3; ++i) bits = bits << 8 | (at + i < bytes.size() ? bytes[at + i] : 0u);
    for (int shift = 18; shift >= 0; shift -= 6) text += kDigits[bits >> shift & 63];
  }
  return text;
}

struct chatllm_obj *start(const std::string &model) {
  struct chatllm_obj *obj = chatllm_create();
  for (const char *word :
       {"-m", model.c_str(), "-n", "1", "--max_new_tokens", "2", "--multimedia_file_tags", "{{", "}}", "-c", "512"})
    chatllm_append_param(obj, word);
  const auto print = [](void *, int, const char *text) { fuzz::told(text); };
  EXPECT(chatllm_start(obj, print, nullptr, nullptr) == CHATLLM_ASR_OK);
  return obj;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const std::vector<float> pcm = test::sound(0.1);
  static const std::string &path = fuzz::kept_file(fuzz::wav(pcm), ".wav"), content = base64(fuzz::wav(pcm));
  static struct chatllm_obj *const objects[] = {start(fuzz::small_recognizer()), start(fuzz::small_aligner())};
  fuzz::Choices choices(data, size);
  struct chatllm_obj *const obj = objects[choices.below(2)];
  const size_t way = choices.below(12);
  const uint8_t cut = choices.byte();
  std::string text;
  for (const char c : choices.rest()) text += c == 1 ? path : c == 2 ? content : std::string(1, c);
  const std::string first = text.substr(0, cut);
  const char *second = text.c_str() + first.size();  // both end at their first zero
  chatllm_asr_options options{};
  options.size = sizeof options;
  options.max_new_tokens = 1;
  const int64_t samples = static_cast<int64_t>(pcm.size());
  switch (way) {
    case 0:
      fuzz::checked(chatllm_user_input(obj, text.c_str()), obj);
      break;
    case 1:
      chatllm_multimedia_msg_prepare(obj);
      fuzz::checked(chatllm_multimedia_msg_append(obj, "text", first.c_str()), obj);
      fuzz::checked(chatllm_multimedia_msg_append(obj, "audio", second), obj);
      fuzz::checked(chatllm_user_input_multimedia_msg(obj), obj);
      break;
    case 2:
      fuzz::checked(chatllm_multimedia_msg_append(obj, first.c_str(), second), obj);
      break;
    case 3:
      fuzz::checked(chatllm_set_additional_args(obj, text.c_str()), obj);
      fuzz::checked(chatllm_user_input(obj, ("{{audio:" + path + "}}a b \xE4\xBD\xA0").c_str()), obj);
      chatllm_set_additional_args(obj, "language=English");
      chatllm_set_additional_args(obj, "delimiter=");
      break;
    case 4:
      chatllm_restart(obj, text.c_str());
      fuzz::checked(chatllm_asr_run(obj, pcm.data(), samples, nullptr), obj);
      chatllm_restart(obj, "");
      break;
    case 5:
      chatllm_set_ai_prefix(obj, text.c_str());
      fuzz::checked(chatllm_asr_run(obj, pcm.data(), samples, nullptr), obj);
      chatllm_set_ai_prefix(obj, "");
      break;
    case 6:
      fuzz::checked(chatllm_ai_continue(obj, text.c_str()), obj);
      break;
    case 7:
      options.language = first.c_str();
      options.context = second;
      fuzz::checked(chatllm_asr_run(obj, pcm.data(), samples, &options), obj);
      break;
    case 8:
      options.prefix = first.c_str();
      options.context = second;
      EXPECT(chatllm_asr_prompt_ids(obj, samples, &options, nullptr, 0) != 0);
      break;
    case 9:
      EXPECT(chatllm_text_tokenize(obj, text.c_str()) >= -1);
      break;
    case 10: {
      const char *const units[] = {first.c_str(), second};
      double times[4] = {};
      if (fuzz::checked(chatllm_asr_align(obj, pcm.data(), samples, units, 2, 0, times), obj) == CHATLLM_ASR_OK)
        for (int i = 0; i < 3; ++i) EXPECT(times[i] <= times[i + 1]);
      break;
    }
    default:
      EXPECT(chatllm_inspect_model(text.c_str()) != nullptr);
  }
  chatllm_multimedia_msg_prepare(obj);
  return 0;
}
