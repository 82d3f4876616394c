#pragma once

// Private memory that a device can read and write directly: page-aligned, zero at first.
//
// Threads: a value; one owner.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include "storage/base/check.h"
#include "storage/base/limits.h"

namespace terrace {

class AlignedBytes {
 public:
  AlignedBytes() = default;
  // REQUIRES: a multiple of kPageBytes, not 0.
  explicit AlignedBytes(uint64_t bytes) : bytes_(bytes) {
    TERRACE_CHECK(bytes > 0 && bytes % kPageBytes == 0);
    data_.reset(static_cast<uint8_t*>(std::aligned_alloc(kPageBytes, bytes)));
    TERRACE_CHECK(data_ != nullptr);
    std::memset(data_.get(), 0, bytes);
  }

  uint8_t* data() const { return data_.get(); }
  uint64_t size() const { return bytes_; }
  std::span<uint8_t> span() const { return {data_.get(), bytes_}; }

 private:
  struct Release {
    void operator()(uint8_t* data) const { std::free(data); }
  };
  std::unique_ptr<uint8_t, Release> data_;
  uint64_t bytes_ = 0;
};

}  // namespace terrace
