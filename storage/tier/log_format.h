#pragma once

// Writes and judges the blocks of the segment log (log_layout.h).  Knows nothing of devices or of
// what is done with the answer.  Each Check reads its input as hostile: any bytes give a Status.
//
// Threads: pure functions and values, safe from any thread.

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "proto/shm/record_layout.h"
#include "storage/base/result.h"
#include "storage/record/record.h"
#include "storage/tier/log_layout.h"

namespace terrace {

// Sequences stay below: a block that names a higher one was not written by a log.
inline constexpr uint64_t kLogSequenceMax = 1ull << 63;
inline constexpr uint64_t kLogIdMax = 1ull << 62;

// Places on one device: 16 TiB of 256 MiB each.
inline constexpr uint32_t kLogSegmentCountMax = 1u << 16;

using LogSetId = std::array<uint8_t, 16>;

// Whose log a device holds, and how it is cut.
struct LogIdentity {
  LogSetId set_id{};
  std::string tenant;  // 1..kLogTenantBytes bytes
  uint32_t device_index = 0;
  uint32_t device_count = 1;
  uint32_t segment_count = 0;
  uint64_t segment_bytes = 0;
  uint64_t log_id = 0;        // 1..kLogIdMax
  uint32_t file_count = 1;    // of the device
  uint64_t stripe_bytes = 0;  // 0 with one file

  friend bool operator==(const LogIdentity&, const LogIdentity&) = default;
};

// "a1b2...": for messages.
std::string SetIdName(const LogSetId& set_id);

// -- Superblock --------------------------------------------------------------------------------
void BuildSuperblock(const LogIdentity& identity, LogSuperblock* block);

// What the block says.  kInvalid for a version that this build does not know, kCorrupt for
// anything that BuildSuperblock cannot have written.
Result<LogIdentity> ReadSuperblock(const LogSuperblock& block);

// kDenied for another set or tenant, naming both.
Status MatchOwner(const LogIdentity& found, const LogIdentity& expected);

// MatchOwner, and kInvalid for another cut, naming both values.  The log_id is
// the device's own.
Status MatchIdentity(const LogIdentity& found, const LogIdentity& expected);

// -- Namespace table ---------------------------------------------------------------------------
struct NamespaceTableImage {
  uint64_t generation = 0;
  std::vector<std::string> blobs;
};

// Bytes of head and blobs, a multiple of 4 KiB.
uint64_t NamespaceTableImageBytes(std::span<const std::string> blobs);

// Fills all of `into`.  REQUIRES: its size is NamespaceTableImageBytes(blobs), no more than
// kNamespaceTableBytes; generation >= 1.
void BuildNamespaceTable(const LogSetId& set_id, uint64_t generation,
                         std::span<const std::string> blobs, std::span<uint8_t> into);

// The bytes that the whole image takes, by its head.  kNotFound for a block of zeros: no table was
// ever written there.
Result<uint64_t> ReadNamespaceTableHead(const LogSetId& set_id, const NamespaceTableHead& head);

// REQUIRES: image.size() is what ReadNamespaceTableHead answered.
Result<NamespaceTableImage> ReadNamespaceTable(const LogSetId& set_id,
                                               std::span<const uint8_t> image);

// -- Segments ----------------------------------------------------------------------------------
void BuildSegmentHead(const LogIdentity& identity, uint32_t segment, uint64_t sequence,
                      SegmentHead* head);

// The sequence.  kNotFound for a block of zeros, kDenied for another set's, tenant's or log's.
Result<uint64_t> ReadSegmentHead(const LogIdentity& identity, uint32_t segment,
                                 const SegmentHead& head);

// `entries` holds FooterBytes(record_count), its padding zero.
void BuildTrailer(const LogIdentity& identity, uint32_t segment, uint64_t sequence,
                  uint32_t record_count, uint32_t fill_units, uint64_t footer_checksum,
                  SegmentTrailer* trailer);

// Entries and trailer as they lie at the segment's end.  Fills all of `into`.
// REQUIRES: its size is TailBytes(entries.size()).
void BuildTail(const LogIdentity& identity, uint32_t segment, uint64_t sequence,
               std::span<const FooterEntry> entries, uint64_t fill_bytes, std::span<uint8_t> into);

// Whether it is the trailer of this segment in some life; the entries are judged apart.
Status CheckTrailer(const LogIdentity& identity, uint32_t segment, const SegmentTrailer& trailer);

// Whether the entries (FooterBytes(trailer.record_count) of them) are those that the trailer
// means: in order, not overlapping, each a possible record.
Status CheckFooter(const SegmentTrailer& trailer, std::span<const uint8_t> entries);

// REQUIRES: a header that CheckHeader takes.
FooterEntry EntryOf(const shm::RecordHeader& header, uint32_t offset_units);

RecordIdentity IdentityOf(const FooterEntry& entry);
uint64_t AppendNumberOf(const FooterEntry& entry);

}  // namespace terrace
