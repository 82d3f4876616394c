#include "storage/tier/log_format.h"

#include <algorithm>
#include <cstring>

#include "storage/base/check.h"

namespace terrace {
namespace {

Status Corrupt(std::string message) { return Status(StatusCode::kCorrupt, std::move(message)); }

bool AllZero(const void* bytes, size_t count) {
  const uint8_t* const begin = static_cast<const uint8_t*>(bytes);
  return std::all_of(begin, begin + count, [](uint8_t byte) { return byte == 0; });
}

// Of a block with its checksum word zero.
template <typename Block>
uint64_t ChecksumOf(const Block& block) {
  static_assert(sizeof(Block) == kLogBlockBytes);
  Block copy = block;
  copy.checksum = 0;
  return HashBytes(&copy, sizeof(copy));
}

template <typename Block>
Status CheckBlock(const char* name, const Block& block, uint64_t magic) {
  if (block.magic != magic) return Corrupt(std::string(name) + ": magic differs");
  if (block.checksum != ChecksumOf(block)) return Corrupt(std::string(name) + ": checksum differs");
  if (!AllZero(block.reserved, sizeof(block.reserved))) {
    return Corrupt(std::string(name) + ": reserved bytes are not zero");
  }
  return Status::Ok();
}

bool SameSet(const LogSetId& set_id, const uint8_t (&found)[16]) {
  return std::memcmp(set_id.data(), found, sizeof(found)) == 0;
}

void SetTenant(const std::string& tenant, uint32_t* bytes, char (&field)[kLogTenantBytes]) {
  TERRACE_CHECK(!tenant.empty() && tenant.size() <= kLogTenantBytes);
  *bytes = static_cast<uint32_t>(tenant.size());
  std::memcpy(field, tenant.data(), tenant.size());
}

// Empty for a field that SetTenant cannot have written.
std::string TenantOf(uint32_t bytes, const char (&field)[kLogTenantBytes]) {
  if (bytes == 0 || bytes > kLogTenantBytes) return std::string();
  if (!AllZero(field + bytes, kLogTenantBytes - bytes)) return std::string();
  return std::string(field, bytes);
}

Status Differs(StatusCode code, const std::string& field, const std::string& found,
               const std::string& expected) {
  return Status(code, "the device's " + field + " is " + found + ", not " + expected);
}

Status CheckEntry(const FooterEntry& entry, uint64_t room_from, uint64_t room_to) {
  const shm::ChunkKey key = IdentityOf(entry).key;
  if (!key.valid() || !key.zero_padded()) return Corrupt("footer entry: not a key");
  if (entry.payload_bytes < 1 || entry.payload_bytes > shm::kPayloadBytesMax ||
      entry.stored_bytes < 1 || entry.stored_bytes > shm::kPayloadBytesMax) {
    return Corrupt("footer entry: length out of bounds");
  }
  const uint64_t from = uint64_t{entry.offset_units} * kLogBlockBytes;
  if (from < room_from || from + shm::RecordBytes(entry.stored_bytes) > room_to) {
    return Corrupt("footer entry: record outside its room");
  }
  return Status::Ok();
}

}  // namespace

std::string SetIdName(const LogSetId& set_id) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string name;
  for (const uint8_t byte : set_id) {
    name += kDigits[byte >> 4];
    name += kDigits[byte & 15];
  }
  return name;
}

void BuildSuperblock(const LogIdentity& identity, LogSuperblock* block) {
  std::memset(block, 0, sizeof(*block));
  block->magic = kLogMagic;
  block->version = kLogVersion;
  block->device_index = identity.device_index;
  block->device_count = identity.device_count;
  block->segment_count = identity.segment_count;
  block->segment_bytes = identity.segment_bytes;
  std::memcpy(block->set_id, identity.set_id.data(), sizeof(block->set_id));
  SetTenant(identity.tenant, &block->tenant_bytes, block->tenant);
  block->log_id = identity.log_id;
  block->file_count = identity.file_count;
  block->stripe_bytes = identity.stripe_bytes;
  block->checksum = ChecksumOf(*block);
}

Result<LogIdentity> ReadSuperblock(const LogSuperblock& block) {
  if (block.magic != kLogMagic) return Corrupt("superblock: magic differs");
  if (block.checksum != ChecksumOf(block)) return Corrupt("superblock: checksum differs");
  // Only now: a newer version's checksum lies where this one's does, all else may differ.
  if (block.version != kLogVersion) {
    return Status(StatusCode::kInvalid, "the device's log has version " +
                                            std::to_string(block.version) + ", this build reads " +
                                            std::to_string(kLogVersion) +
                                            ": name another path, or start anew by removing the "
                                            "file (of a device, wipe the first 8 MiB)");
  }
  if (Status checked = CheckBlock("superblock", block, kLogMagic); !checked.ok()) return checked;
  LogIdentity identity;
  std::memcpy(identity.set_id.data(), block.set_id, sizeof(block.set_id));
  identity.tenant = TenantOf(block.tenant_bytes, block.tenant);
  identity.device_index = block.device_index;
  identity.device_count = block.device_count;
  identity.segment_count = block.segment_count;
  identity.segment_bytes = block.segment_bytes;
  identity.log_id = block.log_id;
  identity.file_count = block.file_count;
  identity.stripe_bytes = block.stripe_bytes;
  if (identity.tenant.empty()) return Corrupt("superblock: not a tenant");
  const bool striped = identity.file_count > 1;
  if (identity.file_count == 0 || striped != (identity.stripe_bytes != 0) || block.zero2 != 0) {
    return Corrupt("superblock: not a set of files");
  }
  if (identity.log_id == 0 || identity.log_id > kLogIdMax)
    return Corrupt("superblock: not a log_id");
  return identity;
}

Status MatchOwner(const LogIdentity& found, const LogIdentity& expected) {
  if (found.tenant != expected.tenant) {
    return Differs(StatusCode::kDenied, "tenant", found.tenant, expected.tenant);
  }
  if (found.set_id != expected.set_id) {
    return Differs(StatusCode::kDenied, "set", SetIdName(found.set_id), SetIdName(expected.set_id));
  }
  return Status::Ok();
}

Status MatchIdentity(const LogIdentity& found, const LogIdentity& expected) {
  if (Status owner = MatchOwner(found, expected); !owner.ok()) return owner;
  const auto number = [](const char* field, uint64_t is, uint64_t want) {
    if (is == want) return Status::Ok();
    return Differs(StatusCode::kInvalid, field, std::to_string(is), std::to_string(want));
  };
  for (const Status& same :
       {number("place in the set", found.device_index, expected.device_index),
        number("number of devices", found.device_count, expected.device_count),
        number("number of files", found.file_count, expected.file_count),
        number("stripe size", found.stripe_bytes, expected.stripe_bytes),
        number("segment size", found.segment_bytes, expected.segment_bytes),
        number("number of segments", found.segment_count, expected.segment_count)}) {
    if (!same.ok()) return same;
  }
  return Status::Ok();
}

uint64_t NamespaceTableImageBytes(std::span<const std::string> blobs) {
  uint64_t bytes = sizeof(NamespaceTableHead);
  for (const std::string& blob : blobs) bytes += sizeof(uint32_t) + blob.size();
  return (bytes + kLogBlockBytes - 1) / kLogBlockBytes * kLogBlockBytes;
}

void BuildNamespaceTable(const LogSetId& set_id, uint64_t generation,
                         std::span<const std::string> blobs, std::span<uint8_t> into) {
  TERRACE_CHECK(generation >= 1);
  TERRACE_CHECK(into.size() == NamespaceTableImageBytes(blobs));
  TERRACE_CHECK(into.size() <= kNamespaceTableBytes);
  std::fill(into.begin(), into.end(), uint8_t{0});
  uint8_t* const from = into.data() + sizeof(NamespaceTableHead);
  uint8_t* at = from;
  for (const std::string& blob : blobs) {
    const uint32_t bytes = static_cast<uint32_t>(blob.size());
    std::memcpy(at, &bytes, sizeof(bytes));
    at = std::copy(blob.begin(), blob.end(), at + sizeof(bytes));
  }
  NamespaceTableHead head{};
  head.magic = kNamespaceTableMagic;
  head.generation = generation;
  std::memcpy(head.set_id, set_id.data(), sizeof(head.set_id));
  head.blob_count = static_cast<uint32_t>(blobs.size());
  head.blobs_bytes = static_cast<uint32_t>(at - from);
  head.blobs_checksum = HashBytes(from, into.size() - sizeof(head));
  head.checksum = ChecksumOf(head);
  std::memcpy(into.data(), &head, sizeof(head));
}

Result<uint64_t> ReadNamespaceTableHead(const LogSetId& set_id, const NamespaceTableHead& head) {
  if (AllZero(&head, sizeof(head))) return Status(StatusCode::kNotFound, "no namespace table");
  Status checked = CheckBlock("namespace table", head, kNamespaceTableMagic);
  if (!checked.ok()) return checked;
  if (!SameSet(set_id, head.set_id)) {
    return Status(StatusCode::kDenied, "namespace table: of another set");
  }
  if (head.generation == 0) return Corrupt("namespace table: generation 0");
  const uint64_t bytes = (sizeof(head) + uint64_t{head.blobs_bytes} + kLogBlockBytes - 1) /
                         kLogBlockBytes * kLogBlockBytes;
  if (bytes > kNamespaceTableBytes) return Corrupt("namespace table: too long");
  return bytes;
}

Result<NamespaceTableImage> ReadNamespaceTable(const LogSetId& set_id,
                                               std::span<const uint8_t> image) {
  NamespaceTableHead head;
  TERRACE_CHECK(image.size() >= sizeof(head));
  std::memcpy(&head, image.data(), sizeof(head));
  Result<uint64_t> bytes = ReadNamespaceTableHead(set_id, head);
  if (!bytes.ok()) return bytes.status();
  TERRACE_CHECK(*bytes == image.size());
  const std::span<const uint8_t> blobs = image.subspan(sizeof(head));
  if (head.blobs_checksum != HashBytes(blobs.data(), blobs.size())) {
    return Corrupt("namespace table: checksum of the blobs differs");
  }
  NamespaceTableImage table;
  table.generation = head.generation;
  uint64_t at = 0;
  for (uint32_t i = 0; i < head.blob_count; ++i) {
    uint32_t length = 0;
    if (head.blobs_bytes - at < sizeof(length)) return Corrupt("namespace table: blobs cut short");
    std::memcpy(&length, blobs.data() + at, sizeof(length));
    at += sizeof(length);
    if (head.blobs_bytes - at < length) return Corrupt("namespace table: blobs cut short");
    table.blobs.emplace_back(reinterpret_cast<const char*>(blobs.data() + at), length);
    at += length;
  }
  return table;
}

void BuildSegmentHead(const LogIdentity& identity, uint32_t segment, uint64_t sequence,
                      SegmentHead* head) {
  std::memset(head, 0, sizeof(*head));
  head->magic = kSegmentMagic;
  head->sequence = sequence;
  head->segment = segment;
  head->device_index = identity.device_index;
  std::memcpy(head->set_id, identity.set_id.data(), sizeof(head->set_id));
  SetTenant(identity.tenant, &head->tenant_bytes, head->tenant);
  head->log_id = identity.log_id;
  head->checksum = ChecksumOf(*head);
}

Result<uint64_t> ReadSegmentHead(const LogIdentity& identity, uint32_t segment,
                                 const SegmentHead& head) {
  if (AllZero(&head, sizeof(head))) return Status(StatusCode::kNotFound, "never opened");
  if (Status checked = CheckBlock("segment head", head, kSegmentMagic); !checked.ok()) {
    return checked;
  }
  if (!SameSet(identity.set_id, head.set_id)) {
    return Status(StatusCode::kDenied, "segment head: of another set");
  }
  if (TenantOf(head.tenant_bytes, head.tenant) != identity.tenant) {
    return Status(StatusCode::kDenied, "segment head: of another tenant");
  }
  if (head.log_id != identity.log_id) {
    return Status(StatusCode::kDenied, "segment head: of a former log");
  }
  if (head.segment != segment || head.device_index != identity.device_index) {
    return Corrupt("segment head: of segment " + std::to_string(head.segment) + " of device " +
                   std::to_string(head.device_index));
  }
  if (head.sequence < identity.log_id || head.sequence > kLogSequenceMax) {
    return Corrupt("segment head: sequence out of bounds");
  }
  return head.sequence;
}

void BuildTrailer(const LogIdentity& identity, uint32_t segment, uint64_t sequence,
                  uint32_t record_count, uint32_t fill_units, uint64_t footer_checksum,
                  SegmentTrailer* trailer) {
  std::memset(trailer, 0, sizeof(*trailer));
  trailer->magic = kFooterMagic;
  trailer->sequence = sequence;
  trailer->segment = segment;
  trailer->device_index = identity.device_index;
  std::memcpy(trailer->set_id, identity.set_id.data(), sizeof(trailer->set_id));
  trailer->record_count = record_count;
  trailer->fill_units = fill_units;
  trailer->footer_checksum = footer_checksum;
  trailer->log_id = identity.log_id;
  trailer->checksum = ChecksumOf(*trailer);
}

void BuildTail(const LogIdentity& identity, uint32_t segment, uint64_t sequence,
               std::span<const FooterEntry> entries, uint64_t fill_bytes, std::span<uint8_t> into) {
  TERRACE_CHECK(into.size() == TailBytes(entries.size()));
  std::fill(into.begin(), into.end(), uint8_t{0});
  std::memcpy(into.data(), entries.data(), entries.size_bytes());
  SegmentTrailer trailer;
  BuildTrailer(identity, segment, sequence, static_cast<uint32_t>(entries.size()),
               static_cast<uint32_t>(fill_bytes / kLogBlockBytes),
               HashBytes(into.data(), FooterBytes(entries.size())), &trailer);
  std::memcpy(into.data() + FooterBytes(entries.size()), &trailer, sizeof(trailer));
}

Status CheckTrailer(const LogIdentity& identity, uint32_t segment, const SegmentTrailer& trailer) {
  if (Status checked = CheckBlock("trailer", trailer, kFooterMagic); !checked.ok()) return checked;
  if (!SameSet(identity.set_id, trailer.set_id)) {
    return Status(StatusCode::kDenied, "trailer: of another set");
  }
  if (trailer.log_id != identity.log_id) {
    return Status(StatusCode::kDenied, "trailer: of a former log");
  }
  if (trailer.segment != segment || trailer.device_index != identity.device_index) {
    return Corrupt("trailer: of another segment");
  }
  if (trailer.sequence < identity.log_id || trailer.sequence > kLogSequenceMax) {
    return Corrupt("trailer: sequence out of bounds");
  }
  const uint64_t fill = uint64_t{trailer.fill_units} * kLogBlockBytes;
  if (fill < sizeof(SegmentHead) ||
      fill + TailBytes(trailer.record_count) > identity.segment_bytes) {
    return Corrupt("trailer: more records than the segment holds");
  }
  return Status::Ok();
}

Status CheckFooter(const SegmentTrailer& trailer, std::span<const uint8_t> entries) {
  TERRACE_CHECK(entries.size() == FooterBytes(trailer.record_count));
  if (trailer.footer_checksum != HashBytes(entries.data(), entries.size())) {
    return Corrupt("footer: checksum differs");
  }
  uint64_t room_from = sizeof(SegmentHead);
  const uint64_t room_to = uint64_t{trailer.fill_units} * kLogBlockBytes;
  for (uint32_t i = 0; i < trailer.record_count; ++i) {
    FooterEntry entry;
    std::memcpy(&entry, entries.data() + size_t{i} * sizeof(entry), sizeof(entry));
    if (Status checked = CheckEntry(entry, room_from, room_to); !checked.ok()) return checked;
    room_from =
        uint64_t{entry.offset_units} * kLogBlockBytes + shm::RecordBytes(entry.stored_bytes);
  }
  return Status::Ok();
}

FooterEntry EntryOf(const shm::RecordHeader& header, uint32_t offset_units) {
  FooterEntry entry{};
  std::memcpy(entry.key, header.key, sizeof(entry.key));
  entry.offset_units = offset_units;
  entry.payload_bytes = header.payload_bytes;
  entry.stored_bytes = header.stored_bytes;
  entry.namespace_id = header.namespace_id;
  entry.part = header.part;
  entry.key_length = header.key_length;
  std::memcpy(entry.append_number, &header.append_number, sizeof(entry.append_number));
  entry.header_checksum = header.header_checksum;
  return entry;
}

uint64_t AppendNumberOf(const FooterEntry& entry) {
  uint64_t number = 0;
  std::memcpy(&number, entry.append_number, sizeof(entry.append_number));
  return number;
}

RecordIdentity IdentityOf(const FooterEntry& entry) {
  RecordIdentity identity;
  std::memcpy(identity.key.words.data(), entry.key, sizeof(entry.key));
  identity.key.part = entry.part;
  identity.key.length = entry.key_length;
  identity.namespace_id = entry.namespace_id;
  identity.payload_bytes = entry.payload_bytes;
  return identity;
}

}  // namespace terrace
