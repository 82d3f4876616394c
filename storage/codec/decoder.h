#pragma once

// Gives back what Encoder made smaller, whole or frame by frame.  Its input may be anything: what
// no encoder writes is kCorrupt, and neither reads nor writes past the spans nor takes memory.
//
// Threads: a Decoder belongs to one thread at a time.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "storage/base/status.h"
#include "storage/codec/frame_table.h"
#include "storage/codec/planes_variants.h"

struct ZSTD_DCtx_s;

namespace terrace {

class Decoder {
 public:
  // Takes the scratch and zstd's context, 650 KiB in all: nothing is allocated later.
  explicit Decoder(const planes::Variant& variant = planes::Chosen());
  Decoder(Decoder&&) = default;
  Decoder& operator=(Decoder&&) = default;

  // One frame: `stored` are its stored bytes, `plain` is where its plain bytes go.  kCorrupt when
  // the bytes differ from the frame's hash, or are none that an encoder writes; `plain` then holds
  // anything.  REQUIRES: stored.size() == frame.stored_bytes; plain.size() == frame.plain_bytes;
  // no overlap.
  Status DecodeFrame(const Frame& frame, std::span<const uint8_t> stored, std::span<uint8_t> plain);

  // All of it: table and frames.  kCorrupt as above and as FrameTable::Parse; names the frame.
  Status Decode(std::span<const uint8_t> encoded, std::span<uint8_t> payload);

 private:
  struct FreeContext {
    void operator()(ZSTD_DCtx_s* context) const;
  };

  bool DecodePlanes(shm::FrameMethod method, std::span<const uint8_t> stored,
                    std::span<uint8_t> plain);
  bool Decompress(std::span<const uint8_t> from, std::span<uint8_t> to);

  planes::Variant variant_;
  std::unique_ptr<ZSTD_DCtx_s, FreeContext> context_;
  std::vector<uint8_t> plane_;  // a high plane, then its bases
  FrameTable table_;            // of Decode
};

}  // namespace terrace
