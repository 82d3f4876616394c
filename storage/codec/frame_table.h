#pragma once

// The table at the front of an encoded payload (storage/codec/frame_layout.h), parsed and judged:
// where each frame lies and which frames hold a range of the plain bytes.
//
// Threads: a value of 6 KiB; belongs to one thread.

#include <array>
#include <cstdint>
#include <span>

#include "storage/base/status.h"
#include "storage/codec/frame_layout.h"

namespace terrace {

struct Frame {
  shm::FrameMethod method;
  uint32_t plain_offset;   // from the payload's start
  uint32_t plain_bytes;    // 1..kFrameBytesMax
  uint32_t stored_offset;  // from the encoded payload's start, behind the table
  uint32_t stored_bytes;
  uint64_t hash;  // XXH3-64 of the stored bytes
};

// Frames [first, first + count).
struct FrameRange {
  uint32_t first = 0;
  uint32_t count = 0;
};

class FrameTable {
 public:
  // Takes the table at the front of `encoded`, of which bytes behind the table are not read; its
  // first 4 KiB suffice, or all of it when it is shorter.  kCorrupt names what is wrong: magic,
  // version, checksum, a length or method that no encoder writes, or sums other than
  // `payload_bytes` and `stored_bytes`, which are the record header's.  Afterwards the table is as
  // it was before, unless ok.
  Status Parse(std::span<const uint8_t> encoded, uint32_t payload_bytes, uint32_t stored_bytes);

  uint32_t frame_count() const { return frame_count_; }
  uint64_t checksum() const { return checksum_; }
  uint32_t payload_bytes() const { return payload_bytes_; }
  uint32_t stored_bytes() const { return stored_bytes_; }

  // REQUIRES: index < frame_count().
  const Frame& frame(uint32_t index) const { return frames_[index]; }

  // The frames that hold the plain bytes [offset, offset + bytes).
  // REQUIRES: bytes >= 1; the range lies within payload_bytes().
  FrameRange Covering(uint32_t offset, uint32_t bytes) const;

 private:
  uint32_t frame_count_ = 0;
  uint32_t payload_bytes_ = 0;
  uint32_t stored_bytes_ = 0;
  uint64_t checksum_ = 0;
  std::array<Frame, shm::kFrameCountMax> frames_;
};

// XXH3-64 of a table with its checksum word zero.  `table` is FrameTableBytes(count) long.
uint64_t FrameTableChecksum(std::span<const uint8_t> table);

}  // namespace terrace
