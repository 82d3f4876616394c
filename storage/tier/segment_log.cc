#include "storage/tier/segment_log.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "storage/base/check.h"
#include "storage/mem/guarded_copy.h"

namespace terrace {
namespace {

// Of a segment: more makes what is measured there no measure of the medium.
constexpr uint64_t kLogUnwrittenBytesMax = 2 * kMiB;

Status Invalid(std::string message) { return Status(StatusCode::kInvalid, std::move(message)); }

Status CheckOptions(const SegmentLogOptions& options) {
  if (!std::has_single_bit(options.segment_bytes) || options.segment_bytes < kSegmentBytesMin ||
      options.segment_bytes > kSegmentBytesMax) {
    return Invalid("log segment = " + std::to_string(options.segment_bytes) +
                   ": use a power of two from 2 MiB to 1 GiB");
  }
  if (options.tenant.empty() || options.tenant.size() > kLogTenantBytes) {
    return Invalid("tenant '" + options.tenant + "': the log takes names of 1 to 64 bytes");
  }
  if (options.device_index >= options.device_count) {
    return Invalid("device " + std::to_string(options.device_index) + " of " +
                   std::to_string(options.device_count));
  }
  if (options.segment_count > kLogSegmentCountMax) {
    return Invalid(std::to_string(options.segment_count) + " segments: use " +
                   std::to_string(kLogSegmentCountMax) + " at most, by a larger segment");
  }
  // Together they leave a quarter of all sequences to count through.
  if (options.sequence_floor == 0 || options.sequence_floor > kLogSequenceMax / 4) {
    return Invalid("sequence_floor = " + std::to_string(options.sequence_floor));
  }
  if (options.new_log_id > kLogIdMax) {
    return Invalid("new_log_id = " + std::to_string(options.new_log_id));
  }
  const LogWriteOptions& write = options.write;
  if (write.buffer_bytes == 0 || write.buffer_bytes % kPageBytes != 0 ||
      write.buffer_bytes > kIoPieceBytesMax || write.buffer_count < 2 ||
      write.buffer_bytes * uint64_t{write.buffer_count} > kLogUnsyncedBytesMax) {
    return Invalid(std::to_string(write.buffer_count) + " write buffers of " +
                   std::to_string(write.buffer_bytes) +
                   " bytes: use 2 or more of 4 KiB to 4 MiB, 32 MiB together at most");
  }
  if (write.direct_bytes_min < kLogBlockBytes) {
    return Invalid("direct_bytes_min = " + std::to_string(write.direct_bytes_min) +
                   ": use 4,096 or more");
  }
  return Status::Ok();
}

}  // namespace

uint64_t SegmentLog::MemoryBytes(const SegmentLogOptions& options) {
  return LogWriterBytes(options.write);
}

Result<std::unique_ptr<SegmentLog>> SegmentLog::Create(BlockDevice& device,
                                                       const SegmentLogOptions& options,
                                                       std::span<uint8_t> memory) {
  if (Status checked = CheckOptions(options); !checked.ok()) return checked;
  TERRACE_CHECK(memory.size() >= MemoryBytes(options));
  // Payloads are read through it.
  if (Status guarded = InstallGuard(); !guarded.ok()) return guarded;
  return std::unique_ptr<SegmentLog>(new SegmentLog(device, options, memory));
}

SegmentLog::SegmentLog(BlockDevice& device, const SegmentLogOptions& options,
                       std::span<uint8_t> memory)
    : device_(device), options_(options), memory_(memory), store_(device) {
  discard_.log = this;
  // Without a slot left the writes take longer, and work.
  const Result<BufferId> buffer = device.RegisterBuffer(memory.data(), memory.size());
  if (buffer.ok()) buffer_ = *buffer;
}

SegmentLog::~SegmentLog() {
  if (buffer_ != kNoBuffer) device_.UnregisterBuffer(buffer_);
}

void SegmentLog::Defer(Done done, const Status& status) {
  deferred_.push_back({.done = std::move(done), .status = status});
}

void SegmentLog::Open(Done done) {
  TERRACE_CHECK(segments_ == nullptr && !store_.busy());
  LogIdentity expected;
  expected.set_id = options_.set_id;
  expected.tenant = options_.tenant;
  expected.device_index = options_.device_index;
  expected.device_count = options_.device_count;
  expected.segment_count = options_.segment_count;
  expected.segment_bytes = options_.segment_bytes;
  expected.log_id = options_.new_log_id;
  expected.file_count = device_.file_count();
  expected.stripe_bytes = expected.file_count > 1 ? device_.stripe_bytes() : 0;
  store_.Open(expected, [this, done = std::move(done)](const Status& status) mutable {
    Opened(status, std::move(done));
  });
}

void SegmentLog::Opened(const Status& status, Done done) {
  if (!status.ok()) return Defer(std::move(done), status);
  identity_ = store_.opened().identity;
  // A device that shrank has fewer segments; what lay behind its end is gone.
  const uint64_t start = SegmentOffset(0, identity_.segment_bytes);
  const uint64_t room = device_.capacity_bytes() - std::min(device_.capacity_bytes(), start);
  const uint32_t count = static_cast<uint32_t>(std::min<uint64_t>(
      {identity_.segment_count, room / identity_.segment_bytes, kLogSegmentCountMax}));
  segments_ = std::make_unique<LogSegments>(count, identity_.segment_bytes);
  segments_->RaiseSequence(identity_.log_id + options_.sequence_floor - 1);
  writer_ =
      std::make_unique<LogWriter>(device_, identity_, *segments_, options_.write, memory_, buffer_);
  reader_ = std::make_unique<LogReader>(device_, *segments_, options_.read_breaker);
  Defer(std::move(done), status);
}

Status SegmentLog::ReplaceNamespaces(std::vector<std::string> blobs, Done done) {
  TERRACE_CHECK(segments_ != nullptr);
  return store_.Replace(std::move(blobs),
                        [this, done = std::move(done)](const Status& status) mutable {
                          Defer(std::move(done), status);
                        });
}

void SegmentLog::Recover(OnRecord on_record, Done done) {
  TERRACE_CHECK(segments_ != nullptr && recovery_ == nullptr && !ready_);
  recovering_ = true;
  recovery_ = std::make_unique<LogRecovery>(device_, identity_, *segments_);
  recovery_->Start([this, on_record = std::move(on_record)](
                       LogRecovery::Segment found) { Recovered(std::move(found), on_record); },
                   [this, done = std::move(done)](const Status& status) mutable {
                     recovering_ = false;
                     ready_ = status.ok();
                     Defer(std::move(done), status);
                   });
}

const RecoveryProgress* SegmentLog::recovery_progress() const {
  return recovery_ != nullptr ? &recovery_->progress() : nullptr;
}

void SegmentLog::Recovered(LogRecovery::Segment found, const OnRecord& on_record) {
  for (const FooterEntry& entry : found.entries) {
    writer_->RaiseAppendNumber(AppendNumberOf(entry));
  }
  // It may hold later records than any that is known: what is put from now on is later still.
  if (found.withheld || found.unread) {
    writer_->SkipAppendNumbers(segments_->count() * (segments_->segment_bytes() / kLogBlockBytes));
  }
  if (found.withheld) return segments_->Withhold(found.segment);
  // Open while its footer is written, so that nobody reclaims it under that write.
  segments_->Recovered(found.segment, found.sequence, LogSegmentState::kOpen);
  segments_->Filled(found.segment, found.fill_bytes);
  RecoveredRecord record;
  record.place.sequence = found.sequence;
  record.place.segment = found.segment;
  for (const FooterEntry& entry : found.entries) {
    segments_->AddLive(found.segment, shm::RecordBytes(entry.stored_bytes));
  }
  for (const FooterEntry& entry : found.entries) {
    record.identity = IdentityOf(entry);
    record.stored_bytes = entry.stored_bytes;
    record.place.offset_units = entry.offset_units;
    record.header_checksum = entry.header_checksum;
    record.append_number = AppendNumberOf(entry);
    on_record(record);
  }
  const bool sealing =
      found.walked &&
      writer_->SealRecovered(found.segment, std::move(found.entries), found.fill_bytes);
  if (!sealing) segments_->Seal(found.segment);
}

Status SegmentLog::Append(const LogAppend& append, LogAppendDone done, int64_t now_ns) {
  if (!ready_) return Status(StatusCode::kBusy, "the log is being recovered");
  return writer_->Append(append, std::move(done), now_ns);
}

void SegmentLog::Seal(uint32_t reuse_class) {
  TERRACE_CHECK(reuse_class < kReuseClassCount);
  if (writer_ != nullptr) writer_->Seal(reuse_class);
}

Status SegmentLog::Read(const LogRead& read, LogReadDone done, int64_t now_ns) {
  if (reader_ == nullptr) return Status(StatusCode::kBusy, "the log is being opened");
  return reader_->Read(read, std::move(done), now_ns);
}

int64_t SegmentLog::writes_pause_until_ns() const {
  return writer_ == nullptr || !writer_->breaker().open() ? 0 : writer_->breaker().open_until_ns();
}

void SegmentLog::Hasten(const LogPlace& place, IoClass io_class, int64_t deadline_ns) {
  if (reader_ != nullptr) reader_->Hasten(place, io_class, deadline_ns);
}

bool SegmentLog::Lives(const LogPlace& place) const {
  return segments_ != nullptr && place.segment < segments_->count() &&
         segments_->at(place.segment).sequence == place.sequence &&
         segments_->at(place.segment).state != LogSegmentState::kFree;
}

void SegmentLog::NoteCorrupt(const LogPlace& place) {
  ++corrupt_records_;
  if (Lives(place)) segments_->Fail(place.segment);
}

void SegmentLog::MarkDead(const LogPlace& place, uint64_t stored_bytes) {
  if (Lives(place)) segments_->MarkDead(place.segment, shm::RecordBytes(stored_bytes));
}

Status SegmentLog::BeginReclaim(uint32_t segment) {
  if (segments_ == nullptr) return Invalid("the log is not open");
  return segments_->BeginReclaim(segment);
}

Status SegmentLog::Free(uint32_t segment) {
  if (segments_ == nullptr) return Invalid("the log is not open");
  const bool discarding = (discard_.outstanding() && discard_.segment == segment) ||
                          std::count(to_discard_.begin(), to_discard_.end(), segment) > 0;
  if (discarding) return Status(StatusCode::kBusy, "the segment is being discarded");
  const bool wanted = options_.discard && device_.writable() && segment < segments_->count() &&
                      segments_->at(segment).state == LogSegmentState::kReclaiming &&
                      segments_->at(segment).reads == 0;
  if (!wanted) return segments_->Free(segment);
  to_discard_.push_back(segment);
  return Status::Ok();
}

// One at a time, and never of a segment that is in use again.
void SegmentLog::StartDiscard() {
  if (discard_.outstanding() || to_discard_.empty()) return;
  discard_.segment = to_discard_.front();
  discard_.PrepareDiscard(SegmentOffset(discard_.segment, identity_.segment_bytes),
                          identity_.segment_bytes);
  discard_.OnDone(
      [](IoRequest& request) { static_cast<DiscardRequest&>(request).log->DiscardDone(); },
      IoClass::kWriteBehind);
  const Status submitted = device_.Submit(discard_);
  if (submitted.code() == StatusCode::kBusy) return;
  to_discard_.erase(to_discard_.begin());
  if (submitted.ok()) return;
  ++failed_discards_;
  TERRACE_CHECK(segments_->Free(discard_.segment).ok());
}

void SegmentLog::DiscardDone() {
  ++(discard_.status().ok() ? discards_ : failed_discards_);
  TERRACE_CHECK(segments_->Free(discard_.segment).ok());
}

void SegmentLog::Poll(int64_t now_ns) {
  for (Deferred& deferred : std::exchange(deferred_, {})) deferred.done(deferred.status);
  if (recovery_ != nullptr && ready_) {
    recovered_ = recovery_->progress();
    recovery_.reset();
  }
  StartDiscard();
  if (reader_ != nullptr) reader_->Poll(now_ns);
  if (writer_ != nullptr) writer_->Poll(now_ns);
  device_.Flush();
}

SegmentLog::Written SegmentLog::LongestWritten() const {
  Written longest, run;
  const uint32_t count = segments_ == nullptr ? 0 : segments_->count();
  for (uint32_t i = 0; i < count; ++i) {
    const LogSegment& segment = segments_->at(i);
    if (segment.state != LogSegmentState::kSealed) {
      run = Written{};
      continue;
    }
    const uint64_t at = SegmentOffset(i, segments_->segment_bytes());
    if (run.bytes == 0) run.offset = at;
    run.bytes = at - run.offset + segment.fill_bytes;
    if (run.bytes > longest.bytes) longest = run;
    // What was left between the records and the footer may never have been written.
    const bool full = segment.fill_bytes + kLogUnwrittenBytesMax >= segments_->segment_bytes();
    if (!full) run = Written{};
  }
  return longest;
}

int64_t SegmentLog::next_wake_ns() const {
  if (!deferred_.empty()) return 0;
  int64_t wake = INT64_MAX;
  if (reader_ != nullptr) wake = std::min(wake, reader_->next_wake_ns());
  if (writer_ != nullptr) wake = std::min(wake, writer_->next_wake_ns());
  return wake;
}

bool SegmentLog::idle() const {
  return deferred_.empty() && !store_.busy() && !recovering_ && to_discard_.empty() &&
         !discard_.outstanding() && (writer_ == nullptr || writer_->idle()) &&
         (reader_ == nullptr || reader_->idle());
}

SegmentLogStats SegmentLog::stats() const {
  SegmentLogStats stats;
  stats.identity = identity_;
  if (segments_ != nullptr) stats.segments = segments_->Counts();
  if (writer_ != nullptr) stats.writes = writer_->stats();
  if (reader_ != nullptr) stats.reads = reader_->stats();
  stats.recovery = recovery_ != nullptr ? recovery_->progress() : recovered_;
  stats.formatted = store_.opened().formatted;
  stats.healed_copies = store_.opened().healed;
  stats.damage = store_.opened().damage;
  stats.corrupt_records = corrupt_records_;
  stats.discards = discards_;
  stats.failed_discards = failed_discards_;
  return stats;
}

}  // namespace terrace
