#pragma once

// The segment log as it lies on a device (docs/format.md, pinned by a golden test).
//
//     superblock | namespace table | superblock | namespace table | segment | segment | ...
//     0            64 KiB            4 MiB        4 MiB + 64 KiB    8 MiB or one segment
//
// Superblock and namespace table lie there twice with the same content, so that one damaged copy
// costs nothing.  A segment:
//
//     head 4 KiB | record | record | ... | room | footer entries | trailer 4 KiB
//
// The head is written and flushed when the segment is opened, before anything behind it, and names
// its sequence, which grows with every opening: whatever names another sequence is from a former
// life.  Records are those of record_layout.h, each under a header that names its place.  Footer
// and trailer are written when the segment is sealed, after its records are durable; the footer
// ends where the trailer begins.
//
// What superblocks, heads and trailers say lies in their first 512 bytes, the unit that a medium
// writes wholly or not at all.
//
// All integers are little-endian.  Every block of 4 KiB holds an XXH3-64 of itself with that word
// zero; reserved bytes are zero.
//
// Threads: plain bytes.

#include <bit>
#include <cstddef>
#include <cstdint>

namespace terrace {

inline constexpr uint64_t kLogMagic = 0x31474f4c52524554;             // "TERRLOG1"
inline constexpr uint64_t kNamespaceTableMagic = 0x31534e4e52524554;  // "TERRNNS1"
inline constexpr uint64_t kSegmentMagic = 0x3147455352524554;         // "TERRSEG1"
inline constexpr uint64_t kFooterMagic = 0x31544f4652524554;          // "TERRFOT1"
inline constexpr uint32_t kLogVersion = 2;
inline constexpr uint32_t kLogBlockBytes = 4096;
inline constexpr uint64_t kLogCopyStride = 4ull << 20;  // from one copy to the other
inline constexpr uint32_t kLogCopyCount = 2;
inline constexpr uint64_t kNamespaceTableOffset = 64ull << 10;  // in each copy
inline constexpr uint64_t kNamespaceTableBytes = kLogCopyStride - kNamespaceTableOffset;
inline constexpr uint64_t kLogStartBytes = kLogCopyCount * kLogCopyStride;
inline constexpr uint32_t kLogTenantBytes = 64;

struct LogSuperblock {
  uint64_t magic;    // kLogMagic
  uint32_t version;  // kLogVersion
  uint32_t device_index, device_count;
  uint32_t segment_count;  // on this device
  uint64_t segment_bytes;
  uint8_t set_id[16];  // the same on all devices of a log
  uint32_t tenant_bytes;
  uint32_t zero;
  uint64_t checksum;
  char tenant[kLogTenantBytes];  // tenant_bytes of it, then zeros
  // Drawn when the device is formatted: what a former log of the same set left behind is told by
  // it.
  uint64_t log_id;  // 1..2^62
  // The files of this device that its bytes are striped over, in their order: read over more, fewer
  // or in other stripes, they are other bytes.
  uint32_t file_count;
  uint32_t zero2;
  uint64_t stripe_bytes;  // 0 with one file
  uint8_t reserved[3944];
};
static_assert(sizeof(LogSuperblock) == kLogBlockBytes);
static_assert(offsetof(LogSuperblock, file_count) == 136);
static_assert(offsetof(LogSuperblock, stripe_bytes) == 144);
static_assert(offsetof(LogSuperblock, log_id) == 128);
static_assert(offsetof(LogSuperblock, set_id) == 32);
static_assert(offsetof(LogSuperblock, checksum) == 56);
static_assert(offsetof(LogSuperblock, tenant) == 64);

// In front of the blobs: each is a length of 4 bytes and as many bytes, back to back.
struct NamespaceTableHead {
  uint64_t magic;       // kNamespaceTableMagic
  uint64_t generation;  // grows with every update, from 1
  uint8_t set_id[16];
  uint32_t blob_count;
  uint32_t blobs_bytes;  // lengths included
  uint64_t blobs_checksum;
  uint64_t checksum;
  uint8_t reserved[4040];
};
static_assert(sizeof(NamespaceTableHead) == kLogBlockBytes);
static_assert(offsetof(NamespaceTableHead, checksum) == 48);

struct SegmentHead {
  uint64_t magic;     // kSegmentMagic
  uint64_t sequence;  // above log_id, so that no two logs share one
  uint32_t segment;   // its place: a head read from elsewhere is a misdirected write
  uint32_t device_index;
  uint8_t set_id[16];
  uint32_t tenant_bytes;
  uint32_t zero;
  uint64_t checksum;
  char tenant[kLogTenantBytes];
  uint64_t log_id;
  uint8_t reserved[3968];
};
static_assert(sizeof(SegmentHead) == kLogBlockBytes);
static_assert(offsetof(SegmentHead, log_id) == 120);
static_assert(offsetof(SegmentHead, set_id) == 24);
static_assert(offsetof(SegmentHead, checksum) == 48);
static_assert(offsetof(SegmentHead, tenant) == 56);

// One record of a sealed segment.
struct FooterEntry {
  uint64_t key[4];
  uint32_t offset_units;  // of the record's header from the segment's start, in 4 KiB
  uint32_t payload_bytes;
  uint32_t stored_bytes;
  uint32_t namespace_id;
  uint16_t part;
  uint8_t key_length;
  uint8_t append_number[5];  // of the record's header, its lower bytes
  uint64_t header_checksum;
};
static_assert(sizeof(FooterEntry) == 64);
static_assert(offsetof(FooterEntry, offset_units) == 32);
static_assert(offsetof(FooterEntry, append_number) == 51);
static_assert(offsetof(FooterEntry, header_checksum) == 56);

struct SegmentTrailer {
  uint64_t magic;  // kFooterMagic
  uint64_t sequence;
  uint32_t segment;
  uint32_t device_index;
  uint8_t set_id[16];
  uint32_t record_count;     // entries, padded with zeros to a multiple of 4 KiB
  uint32_t fill_units;       // where the records end, from the segment's start, in 4 KiB
  uint64_t footer_checksum;  // of the entries and their padding
  uint64_t checksum;
  uint64_t log_id;
  uint8_t reserved[4024];
};
static_assert(sizeof(SegmentTrailer) == kLogBlockBytes);
static_assert(offsetof(SegmentTrailer, footer_checksum) == 48);
static_assert(offsetof(SegmentTrailer, checksum) == 56);
static_assert(std::endian::native == std::endian::little, "the layouts are little-endian");

// Segments begin at multiples of their size, so that each lies in one stripe of the device.
constexpr uint64_t SegmentOffset(uint32_t segment, uint64_t segment_bytes) {
  const uint64_t first = (kLogStartBytes + segment_bytes - 1) / segment_bytes;
  return (first + segment) * segment_bytes;
}

constexpr uint64_t FooterBytes(uint64_t record_count) {
  return (record_count * sizeof(FooterEntry) + kLogBlockBytes - 1) / kLogBlockBytes *
         kLogBlockBytes;
}

// What the end of a segment with this many records takes.
constexpr uint64_t TailBytes(uint64_t record_count) {
  return FooterBytes(record_count) + sizeof(SegmentTrailer);
}

}  // namespace terrace
