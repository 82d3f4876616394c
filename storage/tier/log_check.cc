#include "storage/tier/log_check.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "storage/base/check.h"
#include "storage/tier/log_check_segment.h"
#include "storage/tier/namespace_store.h"

namespace terrace {
namespace {

std::string CopyName(uint32_t copy) { return "copy " + std::to_string(copy); }

class Checker {
 public:
  Checker(BlockDevice& device, const LogCheckOptions& options, LogCheckReport* report)
      : device_(device, options.wait), options_(options), report_(*report) {
    TERRACE_CHECK(!options.repair || (options.payloads && device.writable()));
  }

  Status Run(std::vector<std::string>* namespaces) {
    if (Status read = ReadSuperblocks(); !read.ok()) return read;
    if (Status read = ReadTables(namespaces); !read.ok()) return read;
    if (options_.repair) MendCopies();
    for (LogFinding& finding : findings_) Tell(finding);
    return CheckSegments();
  }

 private:
  bool Stopped() const { return options_.go_on != nullptr && !options_.go_on(); }
  void Progress() {
    report_.read_bytes = device_.read_bytes();
    if (options_.progress != nullptr) options_.progress(report_);
  }

  void Tell(const LogFinding& finding) {
    ++report_.damage[static_cast<size_t>(finding.damage)];
    ++report_.damaged;
    if (finding.mended) ++report_.mended;
    if (options_.on_finding != nullptr) options_.on_finding(finding);
  }

  void FindCopy(LogDamage damage, uint32_t copy, const Status& why) {
    LogFinding finding;
    finding.damage = damage;
    finding.unreadable = why.code() != StatusCode::kCorrupt;
    finding.offset =
        copy * kLogCopyStride + (damage == LogDamage::kNamespaceTable ? kNamespaceTableOffset : 0);
    finding.what =
        CopyName(copy) + ": " + why.message() + ": --repair writes it anew from the other copy";
    findings_.push_back(std::move(finding));
  }

  Status ReadSuperblocks() {
    AlignedBytes block(kLogBlockBytes);
    std::optional<LogIdentity> good;
    Status worst;
    for (uint32_t copy = 0; copy < kLogCopyCount; ++copy) {
      Status read = device_.Read(copy * kLogCopyStride, block.span());
      LogIdentity identity;
      if (read.ok()) {
        LogSuperblock superblock;
        std::memcpy(&superblock, block.data(), sizeof(superblock));
        const Result<LogIdentity> found = ReadSuperblock(superblock);
        read = found.status();
        if (found.ok()) identity = *found;
        if (read.code() == StatusCode::kInvalid) return read;  // a newer version
      }
      if (!read.ok()) {
        FindCopy(LogDamage::kSuperblock, copy, read);
        worst = read;
        continue;
      }
      const uint32_t segments = identity.segment_count;
      if (good.has_value() && good->segment_count != segments) ++report_.unfinished;
      if (good.has_value()) identity.segment_count = good->segment_count;
      if (good.has_value() && *good != identity) {
        return Status(StatusCode::kCorrupt, "the two superblocks contradict each other");
      }
      identity.segment_count = std::max(segments, identity.segment_count);
      good = identity;
    }
    if (!good.has_value()) {
      for (const LogFinding& finding : findings_) Tell(finding);
      return Status(worst.code(), "both superblocks are lost (" + worst.message() + ")");
    }
    report_.identity = *good;
    return Status::Ok();
  }

  Result<NamespaceTableImage> ReadTable(uint32_t copy) {
    const LogSetId& set_id = report_.identity.set_id;
    const uint64_t from = copy * kLogCopyStride + kNamespaceTableOffset;
    AlignedBytes block(kLogBlockBytes);
    if (Status read = device_.Read(from, block.span()); !read.ok()) return read;
    NamespaceTableHead head;
    std::memcpy(&head, block.data(), sizeof(head));
    const Result<uint64_t> bytes = ReadNamespaceTableHead(set_id, head);
    if (!bytes.ok()) return bytes.status();
    AlignedBytes image(*bytes);
    if (Status read = device_.Read(from, image.span()); !read.ok()) return read;
    std::memcpy(&head, image.data(), sizeof(head));
    if (const Result<uint64_t> again = ReadNamespaceTableHead(set_id, head);
        !again.ok() || *again != *bytes) {
      return Status(StatusCode::kCorrupt, "namespace table: its head reads differently twice");
    }
    return ReadNamespaceTable(set_id, image.span());
  }

  Status ReadTables(std::vector<std::string>* namespaces) {
    std::array<Result<NamespaceTableImage>, kLogCopyCount> tables = {ReadTable(0), ReadTable(1)};
    const NamespaceTableImage* newest = nullptr;
    for (const Result<NamespaceTableImage>& table : tables) {
      if (!table.ok()) continue;
      const bool newer = newest == nullptr || table->generation > newest->generation;
      if (newest != nullptr && table->generation != newest->generation) ++report_.unfinished;
      if (newer) newest = &*table;
    }
    const bool none = std::all_of(tables.begin(), tables.end(), [](const auto& table) {
      return table.status().code() == StatusCode::kNotFound;
    });
    for (uint32_t copy = 0; copy < kLogCopyCount && !none; ++copy) {
      Status why = tables[copy].status();
      // The first update may have been broken off between the two.
      if (why.ok() ||
          (why.code() == StatusCode::kNotFound && newest != nullptr && newest->generation == 1)) {
        if (!why.ok()) ++report_.unfinished;
        continue;
      }
      if (why.code() == StatusCode::kNotFound) {
        why = Status(StatusCode::kCorrupt, "namespace table: zeros");
      }
      FindCopy(LogDamage::kNamespaceTable, copy, why);
    }
    if (newest == nullptr && !none) {
      for (const LogFinding& finding : findings_) Tell(finding);
      return Status(StatusCode::kCorrupt,
                    "both copies of the namespace table are damaged: what the log holds cannot be "
                    "told apart");
    }
    if (newest != nullptr && namespaces != nullptr) *namespaces = newest->blobs;
    return Status::Ok();
  }

  // As a daemon's start heals them.
  void MendCopies() {
    if (findings_.empty() && report_.unfinished == 0) return;
    NamespaceStore store(device_.device());
    std::optional<Status> opened;
    store.Open(report_.identity, [&opened](const Status& status) { opened = status; });
    device_.Await([&opened] { return opened.has_value(); });
    const bool healed = opened->ok() && store.opened().healed >= findings_.size();
    if (healed) report_.unfinished = 0;
    for (LogFinding& finding : findings_) {
      finding.mended = healed;
      if (!opened->ok()) finding.what += "; not mended: " + opened->ToString();
    }
  }

  Status CheckSegments() {
    const LogIdentity& identity = report_.identity;
    const uint64_t capacity = device_.device().capacity_bytes();
    const uint64_t start = SegmentOffset(0, identity.segment_bytes);
    const uint64_t room = capacity - std::min(capacity, start);
    report_.segments = static_cast<uint32_t>(
        std::min<uint64_t>(identity.segment_count, room / identity.segment_bytes));
    if (report_.segments < identity.segment_count) {
      LogFinding finding;
      finding.damage = LogDamage::kMissing;
      finding.segment = report_.segments;
      finding.offset = SegmentOffset(report_.segments, identity.segment_bytes);
      finding.what = "the device ends before " +
                     std::to_string(identity.segment_count - report_.segments) +
                     " of its segments: nothing brings back what they held; the daemon gives the "
                     "file its length again at its start";
      Tell(finding);
    }
    SegmentChecker checker(device_, identity, options_.payloads, [this] {
      Progress();
      return !Stopped();
    });
    for (uint32_t segment = 0; segment < report_.segments; ++segment) {
      if (Stopped()) return Status(StatusCode::kCancelled, "the check was broken off");
      SegmentVerdict verdict;
      if (Status examined = checker.Examine(segment, &verdict); !examined.ok()) return examined;
      if (options_.repair) Mend(segment, &verdict);
      Count(segment, verdict);
      Progress();
    }
    return Status::Ok();
  }

  void Mend(uint32_t segment, SegmentVerdict* verdict) {
    const bool wanted = verdict->release || verdict->write_head || verdict->write_tail;
    if (!wanted || verdict->unsure) return;
    const bool unfinished = verdict->findings.empty();
    const Status mended = MendSegment(device_, report_.identity, segment, *verdict);
    for (LogFinding& finding : verdict->findings) {
      finding.mended = mended.ok();
      if (!mended.ok()) finding.what += "; not mended: " + mended.ToString();
    }
    if (mended.ok()) verdict->unfinished = 0;
    if (mended.ok() && unfinished && verdict->write_tail) ++report_.sealed_now;
  }

  void Count(uint32_t segment, const SegmentVerdict& verdict) {
    ++report_.segments_done;
    switch (verdict.state) {
      case SegmentVerdict::State::kFree:
      case SegmentVerdict::State::kLost: ++report_.free; break;
      case SegmentVerdict::State::kSealed: ++report_.sealed; break;
      case SegmentVerdict::State::kOpen: ++report_.open; break;
    }
    report_.unfinished += verdict.unfinished;
    for (const FooterEntry& entry : verdict.good) {
      ++report_.records;
      report_.record_bytes += shm::RecordBytes(entry.stored_bytes);
      if (options_.on_record == nullptr) continue;
      options_.on_record({.entry = entry,
                          .place = {.sequence = verdict.sequence,
                                    .segment = segment,
                                    .offset_units = entry.offset_units}});
    }
    for (const LogFinding& finding : verdict.findings) Tell(finding);
  }

  BlockingDevice device_;
  const LogCheckOptions& options_;
  LogCheckReport& report_;
  std::vector<LogFinding> findings_;  // of superblocks and tables
};

}  // namespace

const char* LogDamageName(LogDamage damage) {
  switch (damage) {
    case LogDamage::kSuperblock: return "superblock";
    case LogDamage::kNamespaceTable: return "namespace table";
    case LogDamage::kHead: return "segment head";
    case LogDamage::kFooter: return "footer";
    case LogDamage::kHeader: return "record header";
    case LogDamage::kPayload: return "payload";
    case LogDamage::kMissing: return "missing segments";
  }
  return "unknown";
}

Status CheckLog(BlockDevice& device, const LogCheckOptions& options, LogCheckReport* report,
                std::vector<std::string>* namespaces) {
  *report = LogCheckReport();
  return Checker(device, options, report).Run(namespaces);
}

}  // namespace terrace
