// Seeded numbers that are the same on every platform (std distributions are not).
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace test {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 0x1234567u) {}

  uint64_t next() {  // splitmix64
    uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t n) { return next() % n; }
  float uniform() { return static_cast<float>(next() >> 40) / static_cast<float>(1 << 24); }  // [0, 1)
  float normal() {                                                                            // Box-Muller
    const double u = (static_cast<double>(next() >> 11) + 1) / 9007199254740993.0, v = uniform();
    return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v));
  }
  std::vector<float> normals(size_t n, float scale = 1) {
    std::vector<float> values(n);
    for (float &x : values) x = scale * normal();
    return values;
  }

 private:
  uint64_t state_;
};

}  // namespace test
