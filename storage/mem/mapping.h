#pragma once

// A shared mapping of a memory file, unmapped with its owner.  Mappings of 2 MiB and more begin at
// a multiple of 2 MiB, so that huge pages can serve them.
//
// Threads: a value; one owner.  The bytes inside are shared with other processes.

#include <cstdint>
#include <utility>

#include "storage/base/result.h"

namespace terrace {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        writable_(std::exchange(other.writable_, false)) {}
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { Reset(); }

  // Maps the first `bytes` of `fd`, which stays the caller's and may be closed afterwards.
  // kInvalid where the file is shorter, kDenied where the descriptor or a seal forbids it, kNoSpace
  // where the system has no pages for it (a hugetlb file reserves its pages here).  Populates
  // nothing.
  // REQUIRES: bytes > 0; for a hugetlb file a multiple of 2 MiB.
  static Result<Mapping> MapReadOnly(int fd, uint64_t bytes);
  static Result<Mapping> MapReadWrite(int fd, uint64_t bytes);

  bool valid() const { return data_ != nullptr; }
  bool writable() const { return writable_; }
  uint64_t bytes() const { return bytes_; }
  const uint8_t* data() const { return data_; }

  // REQUIRES: writable().
  uint8_t* writable_data() const;

  void Reset();

 private:
  static Result<Mapping> Map(int fd, uint64_t bytes, bool writable);
  Mapping(uint8_t* data, uint64_t bytes, bool writable)
      : data_(data), bytes_(bytes), writable_(writable) {}

  uint8_t* data_ = nullptr;
  uint64_t bytes_ = 0;
  bool writable_ = false;
};

}  // namespace terrace
