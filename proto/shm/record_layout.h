#pragma once

// A chunk as it is stored, the same in every tier: a header of 4 KiB, then the payload; the whole
// is a multiple of 4 KiB.  Drawn in docs/format.md; pinned by a golden test.  All integers are
// little-endian.
//
// Threads: plain bytes.  Who fills a header owns it until the chunk is published; afterwards it
// never changes.

#include <bit>
#include <cstddef>
#include <cstdint>

namespace terrace::shm {

inline constexpr uint64_t kRecordMagic = 0x3144524345525254;  // "TRRECRD1"
inline constexpr uint16_t kRecordVersion = 1;
inline constexpr uint32_t kRecordHeaderBytes = 4096;
inline constexpr uint32_t kRecordAlignment = 4096;
inline constexpr uint32_t kLeafBytes = 64 * 1024;  // payload bytes under one leaf hash
inline constexpr uint32_t kPayloadBytesMax = 16 * 1024 * 1024;
inline constexpr uint32_t kLeafCountMax = kPayloadBytesMax / kLeafBytes;

enum class HashAlgorithm : uint8_t { kXxh3_64 = 1 };

// RecordHeader::codec.  Only the NVMe log holds records that are not plain.
inline constexpr uint16_t kCodecPlain = 0;   // the payload is stored as it is
inline constexpr uint16_t kCodecFrames = 1;  // storage/codec/frame_layout.h

struct RecordHeader {
  uint64_t magic;          // kRecordMagic
  uint16_t version;        // kRecordVersion
  uint8_t hash_algorithm;  // HashAlgorithm of the leaves
  uint8_t key_length;      // ChunkKey::length
  uint16_t part;           // ChunkKey::part
  uint16_t codec;          // kCodecPlain or kCodecFrames
  uint64_t key[4];         // ChunkKey::words
  uint32_t namespace_id;
  uint32_t payload_bytes;  // plain bytes, 1..kPayloadBytesMax
  uint32_t stored_bytes;   // bytes behind the header; equals payload_bytes when codec is plain
  uint32_t leaf_count;     // ceil(payload_bytes / kLeafBytes)
  // Where the record lies in the NVMe log, so that a stale or misdirected one is told from the one
  // that was asked for.  All zero in DRAM.
  uint64_t log_sequence;           // of the segment's life: grows with every opening, from 1
  uint32_t log_segment;            // the segment's place on the device
  uint32_t log_offset_units;       // of this header from the segment's start, in 4 KiB
  uint64_t seal;                   // of kCodecFrames: the frame table's checksum; else zero
  uint64_t header_checksum;        // XXH3-64 of the header with this word zero: bytes [0, 4096)
  uint64_t leaves[kLeafCountMax];  // XXH3-64 of each leaf of the plain payload; unused are zero
  uint64_t append_number;          // grows with every record that an NVMe log takes; zero in DRAM
  uint8_t padding[1944];           // zero
};
static_assert(sizeof(RecordHeader) == kRecordHeaderBytes);
static_assert(std::endian::native == std::endian::little, "the layouts are little-endian");
static_assert(offsetof(RecordHeader, key) == 16);
static_assert(offsetof(RecordHeader, namespace_id) == 48);
static_assert(offsetof(RecordHeader, log_sequence) == 64);
static_assert(offsetof(RecordHeader, seal) == 80);
static_assert(offsetof(RecordHeader, header_checksum) == 88);
static_assert(offsetof(RecordHeader, leaves) == 96);
static_assert(offsetof(RecordHeader, append_number) == 2144);
static_assert(offsetof(RecordHeader, padding) == 2152);

// Bytes that a payload takes in a segment, header and padding included.
constexpr uint64_t RecordBytes(uint64_t payload_bytes) {
  return kRecordHeaderBytes +
         (payload_bytes + kRecordAlignment - 1) / kRecordAlignment * kRecordAlignment;
}

constexpr uint32_t LeafCount(uint64_t payload_bytes) {
  return static_cast<uint32_t>((payload_bytes + kLeafBytes - 1) / kLeafBytes);
}

}  // namespace terrace::shm
