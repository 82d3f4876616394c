#include "bench/payloads.h"

#include <algorithm>
#include <cstring>

#include "bench/measure.h"

namespace terrace {
namespace {

constexpr uint64_t kSliceCount = 1ull << 21;  // 16 MiB of offsets

}  // namespace

Payloads::Payloads(uint32_t bytes_max) : words_(kSliceCount + bytes_max / sizeof(uint64_t) + 1) {
  Random random(1);
  for (uint64_t& word : words_) word = random.Next();
}

std::span<const std::byte> Payloads::Of(uint64_t number, uint32_t bytes) const {
  // An odd factor permutes the offsets: neighbours by number do not overlap much.
  const uint64_t at = number * 0x9e3779b1 % kSliceCount;
  return std::as_bytes(std::span(words_).subspan(at)).first(bytes);
}

uint64_t Payloads::CountWrong(uint64_t number, uint32_t bytes,
                              std::span<const std::byte> got) const {
  if (got.size() != bytes) return got.size() + 1;
  const std::span<const std::byte> expected = Of(number, bytes);
  if (std::memcmp(expected.data(), got.data(), bytes) == 0) return 0;
  uint64_t wrong = 0;
  for (size_t i = 0; i < bytes; ++i) wrong += expected[i] != got[i];
  return wrong;
}

}  // namespace terrace
