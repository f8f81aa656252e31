// Fuzz target: the JSON reader, and the escaping of strings.
#include "base/error.h"
#include "base/json.h"
#include "fuzz.h"

namespace {

// Every string that was read can be written, and reads as it was.
void walk(const chatllm::Json &value) {
  const std::string quoted = chatllm::json_quote(value.string());
  const std::string again = chatllm::Json::parse(quoted.data(), quoted.size()).string();
  EXPECT(chatllm::json_quote(again) == quoted);
  try {
    EXPECT(value.integer("field", -5, 1000) >= -5);
  } catch (const chatllm::Error &) {
  }
  value.number(0);
  for (const chatllm::Json &item : value.items()) walk(item);
  for (const auto &member : value.members()) {
    EXPECT(value[member.first.c_str()].kind() == value[member.first.c_str()].kind());
    walk(member.second);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const std::string text(reinterpret_cast<const char *>(data), size);
  try {
    walk(chatllm::Json::parse(text.data(), text.size()));
  } catch (const chatllm::Error &e) {
    EXPECT(e.status() == chatllm::Status::BadModel);
  }
  const std::string quoted = chatllm::json_quote(text);  // of any bytes
  const std::string once = chatllm::Json::parse(quoted.data(), quoted.size()).string();
  EXPECT(chatllm::json_quote(once) == quoted);
  return 0;
}
