// The reader of model files: what it reads, and what it does with files that are cut, damaged or hostile.
#include "model/ggmm.h"

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include "asr/session.h"
#include "base/error.h"
#include "check.h"
#include "session_helpers.h"

using namespace chatllm;
using test::ModelSpec;
using test::Random;

namespace {

void put_i32(std::vector<uint8_t> *bytes, size_t at, int32_t value) {
  std::memcpy(&(*bytes)[at], &value, 4);
}
int32_t get_i32(const std::vector<uint8_t> &bytes, size_t at) {
  int32_t value;
  std::memcpy(&value, &bytes[at], 4);
  return value;
}

// Loads and, if that works, runs on a short sound. Returns the failure's sentence, "" when all went well.
std::string load_and_run(const std::string &path, const char *kernels) {
  static const std::vector<float> pcm = test::sound(0.6);
  try {
    const auto session = test::open_session(path, kernels, 1);
    test::recognize(*session, pcm, 3);
    return "";
  } catch (const Error &e) {
    return e.what();
  } catch (const std::bad_alloc &) {
    return "memory";
  }
}

bool is_sentence(const std::string &text) {
  return text.size() > 5 && text.find('\n') == std::string::npos && text.size() < 1000;
}

}  // namespace

TEST(header_and_directory_are_read) {
  ModelSpec spec;
  spec.words = {"th", "the"};
  spec.merges = {"t h", "th e"};
  spec.type = DType::Q4_0;
  const test::TempFile file(test::build_model(spec).bytes);
  const GgmmFile model(file.path());
  CHECK_EQ(model.header().hidden, 64);
  CHECK_EQ(model.header().head_dim, 16);
  CHECK_EQ(model.header().kv_heads, 2);
  CHECK_EQ(model.header().vocab_size, 256 + 2 + 7 + 3);
  CHECK(model.header().type == DType::Q4_0);
  CHECK_EQ(model.vocabulary().size(), size_t{258});
  CHECK_EQ(std::string(model.vocabulary()[257]), "the");
  CHECK_EQ(model.merges().size(), size_t{2});
  CHECK_EQ(std::string(model.merges()[1]), "th e");
  const Tensor &q = model.get("model.layers.1.self_attn.q_proj.weight", {64, 64});
  CHECK(q.type == DType::Q4_0);
  CHECK_EQ(q.bytes, size_t{64 * 36});
  CHECK_EQ(q.at % 16, size_t{0});
  CHECK(model.find("nothing") == nullptr);
  CHECK_FAILS(model.get("nothing", {1}), "lacks tensor 'nothing'");
  CHECK_FAILS(model.get("model.norm.weight", {65}), "is 64 where its header asks for 65");
  const GgmmFile quick(file.path(), false);
  CHECK_EQ(quick.header().layers, 2);
  CHECK(quick.tensors().empty());
}

TEST(files_that_are_no_models) {
  const auto good = test::build_model(test::small_spec()).bytes;
  CHECK_FAILS(GgmmFile("/nowhere/model.bin"), "cannot open model file '/nowhere/model.bin'");
  CHECK_FAILS(GgmmFile(std::filesystem::temp_directory_path().string()), "not a regular file");
  CHECK_FAILS(GgmmFile(test::TempFile({}).path()), "empty");
  CHECK_FAILS(GgmmFile(test::TempFile(std::vector<uint8_t>(5000, 'x')).path()), "not a GGMM model");
  CHECK_FAILS(GgmmFile(test::TempFile({'g', 'g', 'm', 'm'}).path()), "not a GGMM model");
  auto bytes = good;
  put_i32(&bytes, 4, 2);
  CHECK_FAILS(GgmmFile(test::TempFile(bytes).path()), "version 2");
}

TEST(every_field_of_the_configuration_is_checked) {
  const auto good = test::build_model(test::small_spec()).bytes;
  const size_t config = static_cast<size_t>(get_i32(good, 8));
  const char *const names[] = {"model of type",
                               "model revision",
                               "tensor type",
                               "vocabulary",
                               "hidden size",
                               "heads",
                               "number of layers",
                               "feed-forward size",
                               "number of positions",
                               "",
                               "",
                               "",
                               "",
                               "KV heads",
                               "head size"};
  for (int field = 0; field < 15; ++field) {
    if (field >= 9 && field <= 12) continue;  // bos, eos, pad and sep are not used
    for (const int32_t value : {INT32_MIN, -1, 0, 5, 7, 31, 33, 1 << 20, INT32_MAX}) {
      auto bytes = good;
      const size_t at = config + static_cast<size_t>(field) * 4;
      if (get_i32(bytes, at) == value) continue;
      put_i32(&bytes, at, value);
      const test::TempFile file(bytes);
      const std::string failure = load_and_run(file.path(), "generic");
      const bool harmless = field == 2 || field == 8;  // the main type says nothing about a tensor; fewer positions
      // A size that may be one is found out by a tensor that has another.
      const bool says =
          is_sentence(failure) && failure.find(file.path()) != std::string::npos &&
          (failure.find(names[field]) != std::string::npos || failure.find("tensor '") != std::string::npos);
      if (!(harmless && (failure.empty() || failure.find("does not fit the context") != std::string::npos)) && !says)
        test::failed(__FILE__, __LINE__,
                     "field " + std::to_string(field) + " = " + std::to_string(value) + " gives '" + failure + "'");
    }
  }
  for (const float theta : {0.0f, -1.0f, NAN, INFINITY}) {
    auto bytes = good;
    std::memcpy(&bytes[config + 15 * 4], &theta, 4);
    CHECK_FAILS(GgmmFile(test::TempFile(bytes).path()), "rotary base");
  }
}

TEST(every_field_of_the_metadata_is_checked) {
  test::ModelSpec aligner = test::small_spec();
  aligner.classes = 40;
  const auto good = test::build_model(aligner).bytes;
  const size_t end = static_cast<size_t>(get_i32(good, 8));
  const std::string json(good.begin() + 20, good.begin() + static_cast<std::ptrdiff_t>(end));
  const char *const fields[] = {"d_model",
                                "encoder_layers",
                                "encoder_attention_heads",
                                "encoder_ffn_dim",
                                "output_dim",
                                "downsample_hidden_size",
                                "num_mel_bins",
                                "n_window",
                                "n_window_infer",
                                "rms_norm_eps",
                                "timestamp_segment_time",
                                "content",
                                "config.json",
                                "tokenizer_config.json"};
  // Missing members of these have a value of their own.
  const std::vector<std::string> may_be_missing = {"rms_norm_eps", "timestamp_segment_time"};
  for (const std::string field : fields)
    for (const std::string value :
         {"", "null", "-1", "0", "0.5", "\"x\"", "[]", "{}", "1e300", "7", "{\"a\": 1", "\x01"}) {
      const size_t at = json.find("\"" + field + "\": ") + field.size() + 4;
      // The value goes to the next comma or bracket; of an object, to where the file's depth of brackets is again.
      size_t to = at, depth = 0;
      while (depth > 0 || (json[to] != ',' && json[to] != '}')) {
        depth += json[to] == '{' || json[to] == '[';
        depth -= json[to] == '}' || json[to] == ']';
        ++to;
      }
      std::string changed = json.substr(0, at) + value + json.substr(to);
      while (changed.size() % 16 != json.size() % 16) changed += '\0';
      std::vector<uint8_t> bytes(good.begin(), good.begin() + 20);
      bytes.insert(bytes.end(), changed.begin(), changed.end());
      bytes.insert(bytes.end(), good.begin() + static_cast<std::ptrdiff_t>(end), good.end());
      for (const size_t offset : {8, 12, 16})
        put_i32(&bytes, offset, get_i32(good, offset) + static_cast<int32_t>(changed.size() - json.size()));
      const test::TempFile file(bytes);
      std::string failure;
      try {
        const auto session = test::open_session(file.path(), "generic", 1);
        session->recognizer().align(test::sound(0.6).data(), 9600, {"a"}, false, session->abort_flag());
      } catch (const Error &e) {
        failure = e.what();
      }
      const bool broken = value.empty() || value == "{\"a\": 1" || value == "\x01";
      const bool names_it = failure.find(broken ? "JSON" : field) != std::string::npos ||
                            failure.find("tensor '") != std::string::npos ||
                            (field == "config.json" && failure.find("d_model") != std::string::npos) ||
                            ((field == "content" || field == "tokenizer_config.json") &&
                             failure.find("special token") != std::string::npos);
      const bool said = is_sentence(failure) && failure.find(file.path()) != std::string::npos && names_it;
      const bool is_short = failure.find("longer than the 0 s that the aligner can tell") != std::string::npos;
      if (!said && !(failure.empty() && !broken) && !(field == "timestamp_segment_time" && is_short))
        test::failed(__FILE__, __LINE__, field + " = " + value + " gives '" + failure + "'");
      const bool may_miss = std::find(may_be_missing.begin(), may_be_missing.end(), field) != may_be_missing.end();
      if (failure.empty() && (value == "\"x\"" || (value == "null" && !may_miss)))
        test::failed(__FILE__, __LINE__, field + " = " + value + " is not refused");
    }
}

TEST(offsets_are_checked) {
  const auto good = test::build_model(test::small_spec()).bytes;
  for (const size_t at : {8, 12, 16})
    for (const int32_t value : {INT32_MIN, -1, 0, 19, 21, 400, static_cast<int32_t>(good.size()),
                                static_cast<int32_t>(good.size()) + 1, INT32_MAX}) {
      auto bytes = good;
      put_i32(&bytes, at, value);
      CHECK(is_sentence(load_and_run(test::TempFile(bytes).path(), "generic")));
    }
}

TEST(a_file_cut_anywhere_is_refused) {
  const test::ModelBytes model = test::build_model(test::small_spec());
  std::vector<size_t> cuts = {0, 1, 3, 4, 8, 19, 20, model.bytes.size() - 1};
  for (const size_t boundary : model.boundaries)
    for (int d = -2; d <= 2; ++d) cuts.push_back(boundary + static_cast<size_t>(d));
  Random random(1);
  for (int i = 0; i < test::repetitions(200, 3000); ++i) cuts.push_back(random.below(model.bytes.size()));
  const test::TempFile file({});
  for (const size_t cut : cuts) {
    if (cut >= model.bytes.size()) continue;
    file.write({model.bytes.begin(), model.bytes.begin() + static_cast<std::ptrdiff_t>(cut)});
    const std::string failure = load_and_run(file.path(), "auto");
    if (!is_sentence(failure))
      test::failed(__FILE__, __LINE__, "cut at " + std::to_string(cut) + " gives '" + failure + "'");
  }
}

// A mutant loads or is refused with one sentence, and nothing that runs on it leaves its memory.
TEST(random_mutations_never_crash) {
  const test::ModelBytes model = test::build_model(test::small_spec());
  const auto sets = {"generic", "auto"};
  Random random(2);
  const test::TempFile file({});
  int refused = 0, ran = 0;
  const size_t head = model.boundaries[3];  // up to the merges
  for (int i = 0; i < test::repetitions(1500, 30000); ++i) {
    auto bytes = model.bytes;
    const int changes = 1 + static_cast<int>(random.below(4));
    for (int c = 0; c < changes; ++c) {
      size_t at;
      switch (random.below(4)) {  // structure more often than weights
        case 0:
          at = random.below(head);
          break;
        case 1: {
          const size_t boundary = model.boundaries[random.below(model.boundaries.size())];
          at = std::min(boundary + random.below(64), bytes.size() - 1);
          break;
        }
        default:
          at = random.below(bytes.size());
      }
      switch (random.below(4)) {
        case 0:
          bytes[at] ^= static_cast<uint8_t>(1u << random.below(8));
          break;
        case 1:
          bytes[at] = static_cast<uint8_t>(random.next());
          break;
        case 2: {
          static const int32_t kValues[] = {-1, 0, 1, INT32_MAX, INT32_MIN, 1 << 16, 255};
          if (at + 4 <= bytes.size()) put_i32(&bytes, at / 4 * 4, kValues[random.below(7)]);
          break;
        }
        default:
          bytes[at] = random.below(2) ? 0xFF : 0;
      }
    }
    file.write(bytes);
    const std::string failure = load_and_run(file.path(), *(sets.begin() + random.below(2)));
    (failure.empty() ? ran : refused)++;
    if (!failure.empty() && !is_sentence(failure))
      test::failed(__FILE__, __LINE__, "mutant " + std::to_string(i) + " gives '" + failure + "'");
  }
  std::printf("     %d mutants refused, %d ran\n", refused, ran);
  CHECK(refused > 50);
  CHECK(ran > 50);
}

// Weights of NaN and infinity still give tokens of the vocabulary.
TEST(non_finite_weights_give_tokens) {
  const auto good = test::build_model(test::small_spec());
  for (const char *kernels : {"generic", "auto"})
    for (const uint8_t fill : {0xFF, 0x7F, 0x7C}) {
      auto bytes = good.bytes;
      const GgmmFile map(test::TempFile(bytes).path());
      const Tensor &tensor = map.get("model.norm.weight", {32});
      const size_t at = tensor.at;
      std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                bytes.begin() + static_cast<std::ptrdiff_t>(at + tensor.bytes), fill);
      const test::TempFile file(bytes);
      const auto session = test::open_session(file.path(), kernels, 1);
      for (const int32_t id : test::recognize(*session, test::sound(0.6), 5))
        CHECK(id >= 0 && id < session->model().config().decoder.vocab);
    }
}

#if !defined(_WIN32)  // there nobody can write to a file that is open
// Other programs may do to a model's file what they like: that is an error in a sentence, not the end of the process.
TEST(a_file_that_is_cut_off_or_written_to_is_an_error) {
  const auto good = test::build_model(test::small_spec());
  const auto pcm = test::sound(0.6);
  for (const char *kernels : {"generic", "auto"})
    for (const bool cut : {true, false}) {
      const test::TempFile file(good.bytes);
      const auto session = test::open_session(file.path(), kernels, 1);
      CHECK_EQ(test::recognize(*session, pcm, 3).size(), size_t{3});
      if (cut)
        std::filesystem::resize_file(file.path(), 100);
      else
        std::filesystem::last_write_time(file.path(),
                                         std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
      CHECK_FAILS(test::recognize(*session, pcm, 3), "has changed while it was in use: load it again");
      CHECK_FAILS(test::recognize(*session, pcm, 3), file.path().c_str());
    }
}

// Whatever it finds, it ends: in an error, or in a model of the file as it was at one time.
TEST(a_file_that_changes_while_it_is_loaded_is_an_error) {
  const auto good = test::build_model(test::small_spec());
  const test::TempFile file(good.bytes);
  std::atomic<bool> done{false};
  std::thread other([&] {
    for (size_t size = 0; !done; size = (size + 977) % good.bytes.size()) {
      std::error_code ignored;
      std::filesystem::resize_file(file.path(), size, ignored);
      std::filesystem::resize_file(file.path(), good.bytes.size(), ignored);
    }
  });
  int refused = 0;
  for (int i = 0; i < 200; ++i) {
    try {
      test::open_session(file.path(), "auto", 1);
    } catch (const chatllm::Error &e) {
      CHECK(std::strstr(e.what(), "model file") != nullptr || std::strstr(e.what(), "not a regular file") != nullptr);
      ++refused;
    }
  }
  done = true;
  other.join();
  CHECK(refused > 0);
}
#endif

TEST_MAIN
