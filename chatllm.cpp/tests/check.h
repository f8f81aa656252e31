// A test program is a list of TEST(name) { ... } whose CHECKs count failures. Without arguments all run, else those
// whose names contain the first argument.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <sstream>
#include <string>
#include <vector>

namespace test {

struct Case {
  const char *name;
  void (*body)();
};

inline std::vector<Case> &cases() {
  static std::vector<Case> list;
  return list;
}

struct Counts {
  int failures = 0, skips = 0;
};

inline Counts &counts() {
  static Counts c;
  return c;
}

struct Register {
  Register(const char *name, void (*body)()) { cases().push_back({name, body}); }
};

inline void failed(const char *file, int line, const std::string &what) {
  if (++counts().failures <= 50) std::printf("%s:%d: %s\n", file, line, what.c_str());
}

inline void skip(const std::string &reason) {
  ++counts().skips;
  std::printf("skipped: %s\n", reason.c_str());
}

// More repetitions on request (CHATLLM_TEST_SLOW).
inline bool slow() {
  return std::getenv("CHATLLM_TEST_SLOW") != nullptr;
}
inline int repetitions(int fast, int many) {
  return slow() ? many : fast;
}

template <class T>
std::string shown(const T &value) {
  std::ostringstream out;
  out.precision(9);
  out << value;
  return out.str();
}
template <class T>
std::string shown(const std::vector<T> &values) {
  std::string text = "[";
  for (const T &value : values) text += (text.size() > 1 ? ", " : "") + shown(value);
  return text + "]";
}

template <class A, class B>
void equal(const A &a, const B &b, const char *file, int line, const char *what) {
  if (!(a == b)) failed(file, line, std::string(what) + ": " + shown(a) + " != " + shown(b));
}

inline void near(double a, double b, double tolerance, const char *file, int line, const char *what) {
  if (!(std::abs(a - b) <= tolerance))  // also when one is NaN
    failed(file, line, std::string(what) + ": " + shown(a) + " is not " + shown(b) + " within " + shown(tolerance));
}

inline int run_all(int argc, char **argv) {
  int ran = 0;
  for (const Case &c : cases()) {
    if (argc > 1 && std::strstr(c.name, argv[1]) == nullptr) continue;
    ++ran;
    const int before = counts().failures;
    try {
      c.body();
    } catch (const std::exception &e) {
      failed(c.name, 0, std::string("unexpected exception: ") + e.what());
    }
    std::printf("%-4s %s\n", counts().failures == before ? "ok" : "FAIL", c.name);
    std::fflush(stdout);
  }
  if (counts().failures > 0 || ran == 0) return 1;
  return counts().skips == ran ? 77 : 0;
}

}  // namespace test

#define TEST(name)                                          \
  static void name();                                       \
  static const test::Register register_##name{#name, name}; \
  static void name()
#define CHECK(condition)                                            \
  do {                                                              \
    if (!(condition)) test::failed(__FILE__, __LINE__, #condition); \
  } while (0)
#define CHECK_EQ(a, b) test::equal((a), (b), __FILE__, __LINE__, #a " == " #b)
#define CHECK_NEAR(a, b, tolerance) test::near((a), (b), (tolerance), __FILE__, __LINE__, #a " ~ " #b)
// The expression fails with an Error whose sentence contains the text.
#define CHECK_FAILS(expression, text)                                                          \
  do {                                                                                         \
    try {                                                                                      \
      (void)(expression);                                                                      \
      test::failed(__FILE__, __LINE__, #expression " should fail");                            \
    } catch (const chatllm::Error &e) {                                                        \
      if (std::strstr(e.what(), text) == nullptr)                                              \
        test::failed(__FILE__, __LINE__, std::string(#expression " fails with: ") + e.what()); \
    }                                                                                          \
  } while (0)
#define TEST_MAIN                     \
  int main(int argc, char **argv) {   \
    return test::run_all(argc, argv); \
  }
