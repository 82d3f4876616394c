#pragma once

// An encoded payload as it is stored, the same in every tier (docs/format.md, pinned by a golden
// test).  It takes the payload's place behind a record's header:
//
//     FrameTableHead | FrameEntry x frame_count | stored frame | stored frame | ...
//
// Frames cover the payload in order and without gaps, each coded alone: offsets, plain and stored,
// are sums of what the entries before say.  Head and entries fit the 4 KiB behind the header, so
// that one read of 8 KiB tells where every frame lies.  All integers are little-endian.
//
// The record's codec is kCodecFrames; its stored_bytes count table and frames, its leaves hash the
// plain bytes.  Its seal is the table's checksum: without it a table of another life of the same
// blocks, valid by itself, could stand under a header whose leaves a partial read does not check.
//
// A stored frame, by its method:
//
//     kRaw             the plain bytes
//     kBytes           one zstd frame of the plain bytes
//     kPlanes          low plane | odd byte | zstd frame of the high plane
//     kColumnBases     row_elements | low plane | odd byte | zstd frame of (high plane, bases)
//     kRowBases        the same
//
// An element of 16 bits is rotated left by one, which moves its sign to the lowest bit: the high
// plane holds each element's high byte then (of bf16 the exponent), the low plane the other.  The
// odd byte is there when the plain bytes are odd in number.  With bases the frame is a matrix of
// rows of `row_elements` (u32), and the high plane holds differences modulo 256: from the base of
// the element's column, of which there are row_elements, or of its row.
//
// Threads: plain bytes.

#include <bit>
#include <cstddef>
#include <cstdint>

#include "proto/shm/record_layout.h"

namespace terrace::shm {

inline constexpr uint32_t kFrameTableMagic = 0x31545254;  // "TRT1"
inline constexpr uint16_t kFrameTableVersion = 1;
inline constexpr uint32_t kFrameBytesMax = 1024 * 1024;  // plain bytes
inline constexpr uint32_t kFrameCountMax = 255;
inline constexpr uint32_t kRowElementsBytes = 4;
// Elements a base, at least: a base for fewer costs more than it gains, and bounds the scratch.
inline constexpr uint32_t kElementsPerBaseMin = 16;

enum class FrameMethod : uint8_t {
  kRaw = 0,
  kBytes = 1,
  kPlanes = 2,
  kColumnBases = 3,
  kRowBases = 4,
};
inline constexpr uint8_t kFrameMethodMax = 4;

struct FrameTableHead {
  uint32_t magic;        // kFrameTableMagic
  uint16_t version;      // kFrameTableVersion
  uint16_t frame_count;  // 1..kFrameCountMax
  uint64_t checksum;     // XXH3-64 of head and entries with this word zero
};
static_assert(sizeof(FrameTableHead) == 16);
static_assert(offsetof(FrameTableHead, frame_count) == 6);
static_assert(offsetof(FrameTableHead, checksum) == 8);

struct FrameEntry {
  uint64_t hash;          // XXH3-64 of the stored frame
  uint32_t stored_bytes;  // 1..plain bytes; equal to them exactly when the method is kRaw
  uint32_t packed;        // bits 0-23: plain bytes, 1..kFrameBytesMax; 24-31: FrameMethod

  uint32_t plain_bytes() const { return packed & 0xFFFFFF; }
  uint8_t method() const { return static_cast<uint8_t>(packed >> 24); }
};
static_assert(sizeof(FrameEntry) == 16);
static_assert(offsetof(FrameEntry, stored_bytes) == 8);
static_assert(offsetof(FrameEntry, packed) == 12);
static_assert(kFrameBytesMax < (1u << 24));

constexpr uint32_t PackFrame(uint32_t plain_bytes, FrameMethod method) {
  return plain_bytes | static_cast<uint32_t>(method) << 24;
}

constexpr uint32_t FrameTableBytes(uint32_t frame_count) {
  return static_cast<uint32_t>(sizeof(FrameTableHead) + frame_count * sizeof(FrameEntry));
}
static_assert(FrameTableBytes(kFrameCountMax) == kRecordAlignment);
static_assert(std::endian::native == std::endian::little, "the layouts are little-endian");

}  // namespace terrace::shm
