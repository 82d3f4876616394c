#include "storage/tier/log_check_segment.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "storage/base/check.h"
#include "storage/tier/log_verify.h"
#include "storage/tier/log_writer.h"

namespace terrace {
namespace {

constexpr uint64_t kWindowBytes = 4 * kMiB;
constexpr uint64_t kHeadersWindowBytes = 64 * kKiB;
// The longest record, and the longest footer.
constexpr uint64_t kMemoryBytes = shm::kPayloadBytesMax + kMiB;

uint64_t OffsetOf(const FooterEntry& entry) {
  return uint64_t{entry.offset_units} * kLogBlockBytes;
}

LogPlace PlaceOf(const FooterEntry& entry, uint32_t segment, uint64_t sequence) {
  return {.sequence = sequence, .segment = segment, .offset_units = entry.offset_units};
}

// A block that fails its check was one of this log's when it still has its magic or its set;
// anything else is what lay there before.
template <typename Block>
bool WasOurs(const Block& block, uint64_t magic, const LogSetId& set_id) {
  return block.magic == magic || std::memcmp(block.set_id, set_id.data(), set_id.size()) == 0;
}

}  // namespace

SegmentChecker::SegmentChecker(BlockingDevice& device, const LogIdentity& identity, bool payloads,
                               std::function<bool()> go_on)
    : device_(device),
      identity_(identity),
      payloads_(payloads),
      go_on_(std::move(go_on)),
      memory_(kMemoryBytes) {}

uint64_t SegmentChecker::segment_from() const {
  return SegmentOffset(segment_, identity_.segment_bytes);
}

Result<const uint8_t*> SegmentChecker::At(uint64_t offset, uint64_t bytes) {
  TERRACE_CHECK(bytes <= memory_.size() && offset + bytes <= identity_.segment_bytes);
  if (offset >= window_from_ && offset + bytes <= window_to_) {
    return memory_.data() + (offset - window_from_);
  }
  if (Stopped()) return Status(StatusCode::kCancelled, "the check was broken off");
  const uint64_t wished = std::max(bytes, payloads_ ? kWindowBytes : kHeadersWindowBytes);
  const uint64_t wide = std::min(wished, identity_.segment_bytes - offset);
  window_from_ = window_to_ = 0;
  for (const uint64_t length : {wide, bytes}) {
    Status read = device_.Read(segment_from() + offset, memory_.span().first(length));
    if (read.ok()) {
      window_from_ = offset;
      window_to_ = offset + length;
      return memory_.data();
    }
    // What cannot be read may lie behind what is asked for.
    if (length == bytes || read.code() != StatusCode::kIoError) return read;
  }
  return Status(StatusCode::kIoError, "");
}

void SegmentChecker::Find(LogDamage damage, uint64_t offset, const Status& why,
                          const FooterEntry* entry, const std::string& mend) {
  LogFinding finding;
  finding.damage = damage;
  finding.unreadable = why.code() != StatusCode::kCorrupt;
  finding.offset = segment_from() + offset;
  finding.segment = segment_;
  if (entry != nullptr) finding.record = IdentityOf(*entry);
  finding.what = why.message() + ": " + mend;
  verdict_->findings.push_back(std::move(finding));
}

SegmentChecker::Ends SegmentChecker::ReadEnds() {
  Ends ends;
  AlignedBytes block(kLogBlockBytes);
  ends.head_why = device_.Read(segment_from(), block.span());
  if (!ends.head_why.ok()) {
    ends.head = End::kUnreadable;
  } else {
    SegmentHead head;
    std::memcpy(&head, block.data(), sizeof(head));
    const Result<uint64_t> sequence = ReadSegmentHead(identity_, segment_, head);
    ends.head_why = sequence.status();
    switch (sequence.status().code()) {
      case StatusCode::kOk: ends.head = End::kGood; break;
      case StatusCode::kNotFound: ends.head = End::kBlank; break;
      case StatusCode::kDenied: ends.head = End::kForeign; break;
      default: ends.head = End::kDamaged; break;
    }
    if (sequence.ok()) verdict_->sequence = *sequence;
  }
  ends.tail_why =
      device_.Read(segment_from() + identity_.segment_bytes - sizeof(SegmentTrailer), block.span());
  if (!ends.tail_why.ok()) {
    ends.tail = End::kUnreadable;
    return ends;
  }
  std::memcpy(&ends.trailer, block.data(), sizeof(ends.trailer));
  ends.tail_why = CheckTrailer(identity_, segment_, ends.trailer);
  const bool ours = WasOurs(ends.trailer, kFooterMagic, identity_.set_id);
  if (ends.tail_why.ok()) {
    ends.tail = End::kGood;
  } else if (ends.tail_why.code() == StatusCode::kDenied) {
    ends.tail = End::kForeign;
  } else {
    ends.tail = ours ? End::kDamaged : End::kBlank;
  }
  return ends;
}

Status SegmentChecker::Examine(uint32_t segment, SegmentVerdict* verdict) {
  segment_ = segment;
  verdict_ = verdict;
  *verdict = SegmentVerdict();
  window_from_ = window_to_ = 0;
  const Ends ends = ReadEnds();
  if (ends.head == End::kForeign) return Status::Ok();  // a former log's: free
  const bool bad_tail = ends.tail == End::kDamaged || ends.tail == End::kUnreadable;
  const uint64_t tail_at = identity_.segment_bytes - sizeof(SegmentTrailer);
  if (bad_tail) {
    Find(LogDamage::kFooter, tail_at, ends.tail_why, nullptr,
         "its headers are followed instead; --repair writes it anew");
  }
  if (ends.head == End::kGood) {
    const bool sealed = ends.tail == End::kGood && ends.trailer.sequence == verdict->sequence;
    if (sealed) return JudgeSealed(ends.trailer);
    verdict->state = SegmentVerdict::State::kOpen;
    if (Status walked = Walk(0, bad_tail); !walked.ok()) return walked;
    if (verdict->good.empty() && !verdict->unsure) {
      // Opened, and nothing got there: free, but for a trailer that was damaged.
      verdict->state = SegmentVerdict::State::kFree;
      verdict->release = bad_tail || !verdict->findings.empty();
    }
    verdict->write_tail = !verdict->good.empty();
    return Status::Ok();
  }
  if (ends.head == End::kBlank && ends.tail != End::kGood) {
    verdict->release = bad_tail;
    return Status::Ok();
  }
  const Status why = ends.head == End::kBlank
                         ? Status(StatusCode::kCorrupt, "segment head: zeros under a trailer")
                         : ends.head_why;
  verdict->state = SegmentVerdict::State::kLost;
  // What cannot be read now may be another time, and hold what was acknowledged.
  const bool unread = ends.head == End::kUnreadable || ends.tail == End::kUnreadable;
  verdict->release = !unread;
  if (ends.tail != End::kGood) {
    verdict->unsure = unread;
    Find(LogDamage::kHead, 0, why, nullptr,
         unread ? "it cannot be judged, and is left alone"
                : "without a footer its records cannot be told from a former life's; --repair "
                  "frees it");
    return Status::Ok();
  }
  Find(LogDamage::kHead, 0, why, nullptr, "--repair writes it anew from its footer and headers");
  verdict->sequence = ends.trailer.sequence;
  if (Status walked = Walk(0, true); !walked.ok()) return walked;
  if (verdict->good.empty()) return Status::Ok();
  verdict->state = SegmentVerdict::State::kSealed;
  verdict->release = false;
  verdict->write_head = verdict->write_tail = true;
  return Status::Ok();
}

Status SegmentChecker::JudgeSealed(const SegmentTrailer& trailer) {
  verdict_->state = SegmentVerdict::State::kSealed;
  verdict_->fill_bytes = uint64_t{trailer.fill_units} * kLogBlockBytes;
  const uint64_t bytes = FooterBytes(trailer.record_count);
  const uint64_t from = identity_.segment_bytes - sizeof(SegmentTrailer) - bytes;
  AlignedBytes entries(std::max<uint64_t>(bytes, kLogBlockBytes));
  const std::span<uint8_t> into = entries.span().first(bytes);
  Status footer = bytes == 0 ? Status::Ok() : device_.Read(segment_from() + from, into);
  if (footer.ok()) footer = CheckFooter(trailer, into);
  if (footer.ok()) return JudgeRecords(trailer, into);
  Find(LogDamage::kFooter, from, footer, nullptr,
       "its headers are followed instead; --repair writes it anew");
  verdict_->write_tail = true;
  const uint64_t known_end = verdict_->fill_bytes;
  if (Status walked = Walk(known_end, true); !walked.ok()) return walked;
  verdict_->release = verdict_->good.empty() && !verdict_->unsure;
  return Status::Ok();
}

Status SegmentChecker::JudgeRecords(const SegmentTrailer& trailer,
                                    std::span<const uint8_t> entries) {
  uint32_t unread = 0;
  for (uint32_t i = 0; i < trailer.record_count; ++i) {
    FooterEntry entry;
    std::memcpy(&entry, entries.data() + size_t{i} * sizeof(entry), sizeof(entry));
    const Result<const uint8_t*> bytes = At(OffsetOf(entry), sizeof(shm::RecordHeader));
    if (bytes.status().code() == StatusCode::kCancelled) return bytes.status();
    Status valid = bytes.status();
    if (!bytes.ok()) ++unread;
    if (bytes.ok()) {
      shm::RecordHeader header;
      std::memcpy(&header, *bytes, sizeof(header));
      valid =
          ValidateHeader(header, IdentityOf(entry), PlaceOf(entry, segment_, verdict_->sequence));
      if (valid.ok() && header.header_checksum != entry.header_checksum) {
        valid = Status(StatusCode::kCorrupt, "record header: not the one that the footer means");
      }
    }
    if (!valid.ok()) {
      Find(LogDamage::kHeader, OffsetOf(entry), valid, &entry, "--repair retires the record");
      verdict_->broken.push_back(entry);
      verdict_->write_tail = true;
      continue;
    }
    bool whole = true, unreadable = false;
    if (Status judged = JudgePayload(entry, &whole, &unreadable); !judged.ok()) return judged;
    if (whole) {
      verdict_->good.push_back(entry);
      continue;
    }
    if (unreadable) ++unread;
    Find(LogDamage::kPayload, OffsetOf(entry) + sizeof(shm::RecordHeader),
         Status(unreadable ? StatusCode::kIoError : StatusCode::kCorrupt,
                unreadable ? "payload: cannot be read" : "payload: differs from its leaf table"),
         &entry, "--repair retires the record");
    verdict_->write_tail = true;
  }
  // Where nothing can be read it is not the records that are damaged.
  if (verdict_->good.empty() && unread > 0) verdict_->unsure = true;
  verdict_->release = verdict_->good.empty() && trailer.record_count > 0 && !verdict_->unsure;
  return Status::Ok();
}

Status SegmentChecker::JudgePayload(const FooterEntry& entry, bool* whole, bool* unreadable) {
  *whole = true;
  if (!payloads_) return Status::Ok();
  const uint64_t bytes = shm::RecordBytes(entry.stored_bytes);
  const Result<const uint8_t*> record = At(OffsetOf(entry), bytes);
  if (record.status().code() == StatusCode::kCancelled) return record.status();
  *unreadable = !record.ok();
  *whole = record.ok() && VerifyRecord({*record, bytes}, IdentityOf(entry),
                                       PlaceOf(entry, segment_, verdict_->sequence))
                              .ok();
  return Status::Ok();
}

// Whether the chain ends before a block that is no header of this life; else it is a damaged one.
bool SegmentChecker::EndsHere(const shm::RecordHeader& header, uint64_t at,
                              uint64_t known_end) const {
  if (known_end != 0) return at >= known_end;
  if (header.log_sequence == verdict_->sequence) return false;
  const LogPlace own{.sequence = std::max<uint64_t>(header.log_sequence, 1),
                     .segment = segment_,
                     .offset_units = static_cast<uint32_t>(at / kLogBlockBytes)};
  if (CheckHeader(header, own).ok()) return true;  // of a former life
  return header.magic != shm::kRecordMagic || header.log_segment != segment_ ||
         header.log_offset_units != own.offset_units;
}

// What no trailer vouches for may be unfinished at its end.
Status SegmentChecker::Walk(uint64_t known_end, bool vouched) {
  struct Bad {
    FooterEntry entry;
    bool unreadable = false;
  };
  std::vector<Bad> bad;
  uint64_t at = sizeof(SegmentHead);
  uint64_t count = 0;
  const auto fits = [&](uint64_t end) {
    return end + TailBytes(count + 1) <= identity_.segment_bytes;
  };
  while (fits(at + sizeof(shm::RecordHeader)) && (known_end == 0 || at < known_end)) {
    const Result<const uint8_t*> bytes = At(at, sizeof(shm::RecordHeader));
    if (bytes.status().code() == StatusCode::kCancelled) return bytes.status();
    if (!bytes.ok()) {
      Find(LogDamage::kHeader, at, bytes.status(), nullptr,
           "what lies behind it cannot be found, and is left alone");
      verdict_->unsure = true;
      break;
    }
    shm::RecordHeader header;
    std::memcpy(&header, *bytes, sizeof(header));
    const auto units = static_cast<uint32_t>(at / kLogBlockBytes);
    const LogPlace place{
        .sequence = verdict_->sequence, .segment = segment_, .offset_units = units};
    const Status valid = CheckHeader(header, place);
    if (!valid.ok() && EndsHere(header, at, known_end)) break;
    if (!valid.ok()) {
      Find(LogDamage::kHeader, at, valid, nullptr, "what lies behind it cannot be found");
      break;
    }
    const uint64_t next = at + shm::RecordBytes(header.stored_bytes);
    if (!fits(next)) break;
    if (header.namespace_id == 0) {  // a tombstone
      at = next;
      continue;
    }
    const FooterEntry entry = EntryOf(header, units);
    bool whole = true, unreadable = false;
    if (Status judged = JudgePayload(entry, &whole, &unreadable); !judged.ok()) return judged;
    ++count;
    if (whole) {
      verdict_->good.push_back(entry);
    } else {
      bad.push_back({.entry = entry, .unreadable = unreadable});
    }
    at = next;
  }
  verdict_->fill_bytes = at;
  for (const Bad& record : bad) {
    const uint64_t from = OffsetOf(record.entry);
    if (!vouched && !record.unreadable && from + kLogUnsyncedBytesMax >= at) {
      ++verdict_->unfinished;
      continue;
    }
    Find(LogDamage::kPayload, from + sizeof(shm::RecordHeader),
         Status(record.unreadable ? StatusCode::kIoError : StatusCode::kCorrupt,
                record.unreadable ? "payload: cannot be read"
                                  : "payload: differs from its leaf table"),
         &record.entry, "--repair retires the record");
  }
  return Status::Ok();
}

}  // namespace terrace
