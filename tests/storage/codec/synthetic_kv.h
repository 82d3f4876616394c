#pragma once

// Payloads for the codec's tests: shaped like KV (normal elements whose scale and mean differ by
// channel), random, constant.
//
// Threads: pure functions of a seed.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "storage/codec/encoder.h"

namespace terrace::testing_kv {

using Bytes = std::vector<uint8_t>;

inline uint16_t ToBf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x8000) >> 16);
}

// Within f16's normal numbers, which the values below are forced into.
inline uint16_t ToF16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t exponent = (bits >> 23 & 0xFF) - 112;
  return static_cast<uint16_t>((bits >> 16 & 0x8000) | exponent << 10 | (bits >> 13 & 0x3FF));
}

// Token-major rows of `channels`, or the same elements channel-major.
inline Bytes Kv(uint64_t seed, ElementType element, uint32_t tokens, uint32_t channels,
                LayerOrder order = LayerOrder::kTokenMajor) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> scales(channels);
  for (float& scale : scales) scale = std::exp(2 * normal(random));
  Bytes bytes(size_t{2} * tokens * channels);
  for (uint32_t token = 0; token < tokens; ++token) {
    for (uint32_t channel = 0; channel < channels; ++channel) {
      float value = scales[channel] * (1 + normal(random));
      value = std::copysign(std::clamp(std::abs(value), 1e-4f, 6e4f), value);
      const uint16_t word = element == ElementType::kF16 ? ToF16(value) : ToBf16(value);
      const size_t at = order == LayerOrder::kTokenMajor ? size_t{token} * channels + channel
                                                         : size_t{channel} * tokens + token;
      std::memcpy(bytes.data() + 2 * at, &word, sizeof(word));
    }
  }
  return bytes;
}

inline Bytes Noise(uint64_t seed, size_t count) {
  std::mt19937_64 random(seed);
  Bytes bytes(count);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

// Bytes of few values: what an opaque payload gains from.
inline Bytes Skewed(uint64_t seed, size_t count) {
  std::mt19937_64 random(seed);
  std::geometric_distribution<int> draw(0.3);
  Bytes bytes(count);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(draw(random));
  return bytes;
}

}  // namespace terrace::testing_kv
