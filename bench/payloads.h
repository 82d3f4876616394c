#pragma once

// Payloads of numbered chunks without the cost of making them: slices of one random buffer, at an
// offset of each number's own.  Two numbers whose slices are the same lie 2^21 apart, so that a
// chunk served for another one shows.
//
// Threads: immutable after construction.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace terrace {

class Payloads {
 public:
  // For payloads of up to `bytes_max`.
  explicit Payloads(uint32_t bytes_max);

  // REQUIRES: bytes <= bytes_max.  Valid as long as this object.
  std::span<const std::byte> Of(uint64_t number, uint32_t bytes) const;

  // How many of `got`'s bytes are not those of the number's chunk: more than 0 when it has another
  // length.
  uint64_t CountWrong(uint64_t number, uint32_t bytes, std::span<const std::byte> got) const;

 private:
  std::vector<uint64_t> words_;
};

}  // namespace terrace
