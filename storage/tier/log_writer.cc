// Places, copies and ends; log_writer_io.cc writes and syncs.
#include "storage/tier/log_writer.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "storage/base/check.h"
#include "storage/mem/guarded_copy.h"
#include "storage/record/copy_hash.h"

namespace terrace {
namespace {

// Compared between two looks at what has ended: 0.1 ms.
constexpr uint64_t kVerifyBytesPerPoll = 512 * kKiB;

}  // namespace

LogWriter::LogWriter(BlockDevice& device, const LogIdentity& identity, LogSegments& segments,
                     const LogWriteOptions& options, std::span<uint8_t> memory, BufferId buffer)
    : device_(device),
      identity_(identity),
      segments_(segments),
      options_(options),
      buffer_id_(buffer),
      pending_(std::make_unique<std::array<Pending, kLogAppendsMax>>()),
      breaker_(options.breaker) {
  TERRACE_CHECK(memory.size() >= LogWriterBytes(options));
  uint8_t* at = memory.data();
  for (Open& open : opens_) {
    open.writer = this;
    open.head = at;
    at += kLogBlockBytes;
  }
  for (uint32_t i = 0; i < options.buffer_count; ++i) {
    buffers_.push_back(std::make_unique<Buffer>());
    buffers_.back()->writer = this;
    buffers_.back()->memory = at;
    at += options.buffer_bytes;
    free_buffers_.push_back(buffers_.back().get());
  }
  for (Buffer& direct : directs_) {
    direct.writer = this;
    free_directs_.push_back(&direct);
  }
  for (uint32_t i = 0; i < kLogAppendsMax; ++i) free_pending_.push_back(i);
  finished_.reserve(kLogAppendsMax);
  calling_.reserve(kLogAppendsMax);
  current_.fill(kNone);
  sync_.writer = this;
}

uint64_t LogWriter::RecordBytesMax(uint64_t segment_bytes) {
  return segment_bytes - sizeof(SegmentHead) - TailBytes(1);
}

Status LogWriter::CheckAppend(const LogAppend& append, uint64_t record_bytes,
                              int64_t now_ns) const {
  TERRACE_CHECK(append.stored.size() == append.header->stored_bytes);
  TERRACE_CHECK(append.reuse_class < kReuseClassCount);
  TERRACE_CHECK(!append.verify || options_.buffer_bytes >= shm::kLeafBytes);
  if (!device_.writable()) return Status(StatusCode::kDenied, "the log's device is read-only");
  if (record_bytes > RecordBytesMax(segments_.segment_bytes())) {
    return Status(StatusCode::kInvalid, "a record of " + std::to_string(record_bytes) +
                                            " bytes fits no segment of the log");
  }
  if (!breaker_.Allows(now_ns)) {
    return Status(StatusCode::kIoError,
                  "writes to the log pause after: " + breaker_.cause().ToString());
  }
  if (free_pending_.empty()) {
    return Status(StatusCode::kBusy,
                  std::to_string(kLogAppendsMax) + " appends wait for the log already");
  }
  return Status::Ok();
}

Status LogWriter::Append(const LogAppend& append, LogAppendDone done, int64_t now_ns) {
  const uint64_t record_bytes = shm::RecordBytes(append.stored.size());
  if (Status checked = CheckAppend(append, record_bytes, now_ns); !checked.ok()) return checked;
  Result<uint32_t> at = OpenFor(append.reuse_class, record_bytes);
  if (!at.ok()) return at.status();

  Open& open = opens_[*at];
  const uint32_t index = free_pending_.back();
  free_pending_.pop_back();
  Pending& pending = (*pending_)[index];
  pending.place = {.sequence = open.sequence,
                   .segment = open.segment,
                   .offset_units = static_cast<uint32_t>(open.assigned / kLogBlockBytes)};
  pending.header = *append.header;
  append_number_ += std::exchange(skipped_numbers_, 0);
  PlaceHeader(pending.place, std::min(++append_number_, kAppendNumberMax), &pending.header);
  pending.stored = append.stored;
  pending.done = std::move(done);
  pending.record_bytes = record_bytes;
  pending.copied = 0;
  open.assigned += record_bytes;
  ++open.record_count;
  pending.end = open.assigned;
  pending.since_ns = now_ns;
  pending.urgent = append.urgent;
  pending.verify = append.verify;
  pending.direct = append.stored.size() >= options_.direct_bytes_min &&
                   reinterpret_cast<uintptr_t>(append.stored.data()) % kLogBlockBytes == 0;
  pending.to_verify = 0;
  pending.status = Status::Ok();
  open.pending.push_back(index);
  segments_.Filled(open.segment, open.assigned);
  work_ = true;
  return Status::Ok();
}

bool LogWriter::Fits(const Open& open, uint64_t record_bytes) const {
  return open.assigned + record_bytes + TailBytes(open.record_count + 1) <=
         segments_.segment_bytes();
}

uint32_t LogWriter::FreeOpen() const {
  for (uint32_t i = 0; i < kLogOpenMax; ++i) {
    if (opens_[i].life == Life::kNone) return i;
  }
  return kNone;
}

Result<uint32_t> LogWriter::OpenFor(uint32_t reuse_class, uint64_t record_bytes) {
  uint32_t& current = current_[reuse_class];
  if (current != kNone && Fits(opens_[current], record_bytes)) return current;
  const uint32_t fresh = FreeOpen();
  if (fresh == kNone)
    return Status(StatusCode::kBusy, "full segments of the log wait to be sealed");
  Result<uint32_t> segment = segments_.Open(reuse_class);
  if (!segment.ok()) return segment.status();
  Seal(reuse_class);
  BeginLife(opens_[fresh], *segment);
  current = fresh;
  return fresh;
}

void LogWriter::BeginLife(Open& open, uint32_t segment) {
  open.life = Life::kRecords;
  open.segment = segment;
  open.sequence = segments_.at(segment).sequence;
  open.sealing = open.head_started = false;
  open.assigned = open.copied = sizeof(SegmentHead);
  open.written = open.durable = open.sync_upto = 0;
  open.record_count = 0;
  open.to_copy = 0;
  open.entries.clear();
  open.tail_copied = open.tail_written = 0;
  segments_.Filled(segment, open.assigned);
}

void LogWriter::Detach(const Open& open) {
  for (uint32_t& current : current_) {
    if (current != kNone && &opens_[current] == &open) current = kNone;
  }
}

void LogWriter::Seal(uint32_t reuse_class) {
  const uint32_t current = current_[reuse_class];
  if (current == kNone) return;
  opens_[current].sealing = true;
  work_ = true;
  current_[reuse_class] = kNone;
}

bool LogWriter::SealRecovered(uint32_t segment, std::vector<FooterEntry> entries,
                              uint64_t fill_bytes) {
  const uint32_t slot = FreeOpen();
  if (slot == kNone || !device_.writable()) return false;
  Open& open = opens_[slot];
  BeginLife(open, segment);
  open.sealing = open.head_started = true;
  open.assigned = open.copied = open.written = open.durable = fill_bytes;
  open.record_count = entries.size();
  open.entries = std::move(entries);
  segments_.Filled(segment, fill_bytes);
  work_ = true;
  return true;
}

void LogWriter::Poll(int64_t now_ns) {
  now_ns_ = now_ns;
  finished_.swap(calling_);
  for (Finished& finished : calling_) finished.done(finished.place, finished.status);
  calling_.clear();
  work_ = false;
  first_ = (first_ + 1) % kLogOpenMax;
  for (uint32_t i = 0; i < kLogOpenMax; ++i) {
    Open& open = opens_[(first_ + i) % kLogOpenMax];
    if (open.life == Life::kAbandoned) EndIfQuiet(open);
    if (open.life == Life::kRecords) StartHead(open);
    if (open.life == Life::kRecords) Copy(open);
    if (open.life == Life::kRecords) BeginFooter(open);
    if (open.life == Life::kFooter) CopyFooter(open);
    if (open.filling != nullptr && PartialDue(open)) MakeReady(open);
    SubmitReady(open);
  }
  MaybeSync();
  device_.Flush();
  VerifySome();
}

void LogWriter::Copy(Open& open) {
  while (open.to_copy < open.pending.size()) {
    if (!CopyRecord(open, open.pending[open.to_copy])) return;
    ++open.to_copy;
  }
}

bool LogWriter::MayCopy(const Open& open, uint64_t bytes) const {
  return open.copied - std::min(open.copied, open.durable) + bytes <= kLogUnsyncedBytesMax;
}

// False when it must wait for a buffer or for a sync.
bool LogWriter::CopyRecord(Open& open, uint32_t index) {
  Pending& pending = (*pending_)[index];
  while (pending.copied < pending.record_bytes) {
    if (pending.direct && pending.copied == sizeof(pending.header)) {
      if (!BeginDirect(open, index)) return false;
      continue;
    }
    if (open.filling == nullptr) {
      if (!MayCopy(open, options_.buffer_bytes)) return false;
      open.filling = BufferFor(open, open.copied);
      if (open.filling == nullptr) return false;
    }
    Buffer& buffer = *open.filling;
    const uint64_t bytes = PieceBytes(pending, options_.buffer_bytes - buffer.fill);
    if (bytes == 0) {
      MakeReady(open);
      continue;
    }
    uint8_t* const into = buffer.memory + buffer.fill;
    CopyPiece(pending, into, bytes);
    if (pending.verify && !pending.direct && pending.copied >= sizeof(pending.header)) {
      VerifyLeaf(pending, into, pending.copied - sizeof(pending.header));
    }
    buffer.fill += bytes;
    pending.copied += bytes;
    open.copied += bytes;
    if (buffer.fill == options_.buffer_bytes) MakeReady(open);
  }
  return true;
}

// The payload's whole pages follow what was copied; the rest of the record is copied behind them.
bool LogWriter::BeginDirect(Open& open, uint32_t index) {
  Pending& pending = (*pending_)[index];
  const uint64_t bytes = pending.stored.size() / kLogBlockBytes * kLogBlockBytes;
  if (free_directs_.empty() || !MayCopy(open, bytes)) return false;
  if (open.filling != nullptr) MakeReady(open);
  Buffer* const buffer = free_directs_.back();
  free_directs_.pop_back();
  Take(*buffer, open, open.copied);
  buffer->pending = index;
  buffer->data = pending.stored.data();
  buffer->fill = bytes;
  buffer->state = BufferState::kReady;
  open.queue.push_back(buffer);
  pending.copied += bytes;
  open.copied += bytes;
  return true;
}

// How much is copied next.  What is verified goes leaf by leaf, so that each is hashed where it
// lies, while it is in the processor's cache; 0: the next one does not fit.
uint64_t LogWriter::PieceBytes(const Pending& pending, uint64_t room) {
  const uint64_t left = pending.record_bytes - pending.copied;
  if ((pending.verify || pending.direct) && pending.copied < sizeof(pending.header)) {
    return std::min(room, sizeof(pending.header) - pending.copied);
  }
  if (!pending.verify || pending.direct) return std::min(room, left);
  const uint64_t leaf = std::min<uint64_t>(left, shm::kLeafBytes);
  return leaf <= room ? leaf : 0;
}

// REQUIRES: all of the leaf at `at` of the payload was copied to `leaf`.
void LogWriter::VerifyLeaf(Pending& pending, const uint8_t* leaf, uint64_t at) {
  if (!pending.status.ok() || at >= pending.stored.size()) return;
  uint64_t hash = 0;
  HashLeaves(leaf, std::min<uint64_t>(shm::kLeafBytes, pending.stored.size() - at), &hash);
  if (hash == pending.header.leaves[at / shm::kLeafBytes]) return;
  pending.status = Status(StatusCode::kCorrupt, "a payload differs from its leaf table");
}

// The next `bytes` of a payload that is written from where it lies, a leaf at a time: each is taken
// out once, and what goes to the device is judged by whoever reads it there.
void LogWriter::VerifyDirect(Pending& pending, uint64_t bytes) {
  alignas(64) uint8_t leaf[shm::kLeafBytes];
  const uint64_t end = pending.to_verify + bytes;
  while (pending.status.ok() && pending.to_verify < std::min(end, pending.stored.size())) {
    const uint64_t at = pending.to_verify;
    const uint64_t part = std::min<uint64_t>(shm::kLeafBytes, pending.stored.size() - at);
    pending.status = GuardedCopy(leaf, pending.stored.data() + at, part);
    if (pending.status.ok()) VerifyLeaf(pending, leaf, at);
    pending.to_verify += part;
  }
  if (!pending.status.ok()) pending.to_verify = pending.stored.size();
}

// While the device is busy with them.
void LogWriter::VerifySome() {
  uint64_t left = kVerifyBytesPerPoll;
  for (uint32_t i = 0; i < kLogOpenMax && left > 0; ++i) {
    Open& open = opens_[(first_ + i) % kLogOpenMax];
    if (open.life != Life::kRecords) continue;
    bool judged = false;
    for (const uint32_t index : open.pending) {
      Pending& pending = (*pending_)[index];
      if (pending.copied < pending.record_bytes) break;
      if (pending.judged()) continue;
      const uint64_t from = pending.to_verify;
      VerifyDirect(pending, left);
      left -= std::min(left, pending.to_verify - from);
      judged = true;
      if (left == 0) break;
    }
    if (judged) Acknowledge(open);
    work_ |= judged;
  }
}

// The next `bytes` of the record: of its header, its payload and its padding.  A payload that
// cannot be read leaves zeros; its leaf hashes say so to whoever reads it.
void LogWriter::CopyPiece(Pending& pending, uint8_t* into, uint64_t bytes) {
  uint64_t at = pending.copied;
  const uint64_t to = at + bytes;
  const auto room = [&](uint64_t end) { return at < end ? std::min(to, end) - at : 0; };
  if (const uint64_t part = room(sizeof(pending.header)); part > 0) {
    std::memcpy(into, reinterpret_cast<const uint8_t*>(&pending.header) + at, part);
    into += part;
    at += part;
  }
  if (const uint64_t part = room(sizeof(pending.header) + pending.stored.size()); part > 0) {
    const uint8_t* const from = pending.stored.data() + (at - sizeof(pending.header));
    Status copied = pending.status.ok() ? GuardedCopy(into, from, part) : pending.status;
    if (!copied.ok()) {
      std::memset(into, 0, part);
      pending.status = copied;
    }
    into += part;
    at += part;
  }
  std::memset(into, 0, to - at);
}

LogWriter::Buffer* LogWriter::BufferFor(Open& open, uint64_t from) {
  if (free_buffers_.empty()) return nullptr;
  Buffer* const buffer = free_buffers_.back();
  free_buffers_.pop_back();
  Take(*buffer, open, from);
  buffer->data = buffer->memory;
  return buffer;
}

void LogWriter::Take(Buffer& buffer, const Open& open, uint64_t from) {
  buffer.open = static_cast<uint32_t>(&open - opens_.data());
  buffer.state = BufferState::kFilling;
  buffer.from = from;
  buffer.fill = 0;
}

void LogWriter::MakeReady(Open& open) {
  open.filling->state = BufferState::kReady;
  open.queue.push_back(std::exchange(open.filling, nullptr));
}

// Whether a buffer with room left goes out as it is.
bool LogWriter::PartialDue(const Open& open) const {
  if (open.life != Life::kRecords || open.sealing) return true;
  if (free_buffers_.empty() && writing_ == 0) return true;  // others wait for one
  for (const uint32_t index : open.pending) {
    const Pending& pending = (*pending_)[index];
    if (pending.urgent || now_ns_ - pending.since_ns >= options_.linger_ns) return true;
  }
  return false;
}

void LogWriter::BeginFooter(Open& open) {
  if (!open.sealing || !open.pending.empty() || !open.queue.empty()) return;
  if (open.filling != nullptr || open.durable != open.assigned) return;
  if (open.entries.empty()) {  // nothing that a footer could list
    EndLife(open);
    return;
  }
  const uint32_t count = static_cast<uint32_t>(open.entries.size());
  open.entries.resize(FooterBytes(count) / sizeof(FooterEntry), FooterEntry{});
  BuildTrailer(identity_, open.segment, open.sequence, count,
               static_cast<uint32_t>(open.assigned / kLogBlockBytes),
               HashBytes(open.entries.data(), FooterBytes(count)), &open.trailer);
  open.life = Life::kFooter;
}

void LogWriter::CopyFooter(Open& open) {
  const uint64_t entries = FooterBytes(open.trailer.record_count);
  const uint64_t tail = entries + sizeof(open.trailer);
  const uint64_t from = segments_.segment_bytes() - tail;
  while (open.tail_copied < tail) {
    if (open.filling == nullptr) open.filling = BufferFor(open, from + open.tail_copied);
    if (open.filling == nullptr) return;
    Buffer& buffer = *open.filling;
    const bool behind = open.tail_copied >= entries;
    const uint8_t* const source =
        behind ? reinterpret_cast<const uint8_t*>(&open.trailer)
               : reinterpret_cast<const uint8_t*>(open.entries.data()) + open.tail_copied;
    const uint64_t bytes = std::min<uint64_t>(options_.buffer_bytes - buffer.fill,
                                              (behind ? tail : entries) - open.tail_copied);
    std::memcpy(buffer.memory + buffer.fill, source, bytes);
    buffer.fill += bytes;
    open.tail_copied += bytes;
    if (buffer.fill == options_.buffer_bytes) MakeReady(open);
  }
}

// Everything else goes on when a request ends.
int64_t LogWriter::next_wake_ns() const {
  if (work_ || !finished_.empty()) return now_ns_;
  int64_t wake = INT64_MAX;
  for (const Open& open : opens_) {
    if (open.life != Life::kRecords || open.pending.empty()) continue;
    const int64_t due = (*pending_)[open.pending.front()].since_ns + options_.linger_ns;
    if (due > now_ns_) wake = std::min(wake, due);
  }
  return wake;
}

bool LogWriter::idle() const {
  if (!finished_.empty()) return false;
  return std::all_of(opens_.begin(), opens_.end(), [](const Open& open) {
    if (open.life == Life::kNone) return true;
    return open.life == Life::kRecords && open.pending.empty() && !open.sealing;
  });
}

LogWriteStats LogWriter::stats() const {
  LogWriteStats stats = stats_;
  stats.waiting = kLogAppendsMax - static_cast<uint32_t>(free_pending_.size());
  for (const Open& open : opens_) {
    if (open.life != Life::kRecords) continue;
    stats.unsynced_bytes += open.copied - std::min(open.copied, open.durable);
  }
  stats.breaker_open = breaker_.open();
  stats.breaker_opened = breaker_.opened();
  return stats;
}

}  // namespace terrace
