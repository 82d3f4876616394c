#include "storage/tier/namespace_store.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <random>
#include <utility>

#include "storage/base/check.h"

namespace terrace {
namespace {

constexpr uint64_t kEmptyCheckBytes = 1 * kMiB;

uint64_t CopyOffset(uint32_t copy) { return copy * kLogCopyStride; }

bool AllZero(std::span<const uint8_t> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

uint64_t DrawLogId() {
  std::random_device device;
  return std::uniform_int_distribution<uint64_t>(1, kLogIdMax)(device);
}

// Segments of this size that the device has room for.
uint32_t SegmentsThatFit(uint64_t capacity_bytes, uint64_t segment_bytes) {
  const uint64_t start = SegmentOffset(0, segment_bytes);
  if (capacity_bytes < start) return 0;
  return static_cast<uint32_t>(
      std::min<uint64_t>((capacity_bytes - start) / segment_bytes, kLogSegmentCountMax));
}

}  // namespace

void NamespaceStore::Open(const LogIdentity& expected, Done done) {
  TERRACE_CHECK(!busy() && done != nullptr);
  done_ = std::move(done);
  expected_ = expected;
  may_grow_ = expected.segment_count == 0;
  opened_ = Opened();
  blobs_.clear();
  writes_.clear();
  generation_ = 0;
  copy_generations_.fill(0);
  step_ = Step::kReadSuperblocks;
  for (uint32_t copy = 0; copy < kLogCopyCount; ++copy) {
    copies_[copy] = Copy();
    memory_[copy] = AlignedBytes(kLogBlockBytes);
    Read(copy, CopyOffset(copy), kLogBlockBytes);
  }
  if (outstanding_ == 0) StepDone();
}

void NamespaceStore::Read(uint32_t copy, uint64_t offset, uint64_t bytes) {
  requests_[copy].PrepareRead(offset, memory_[copy].data(), bytes);
  Submit(copy);
}

// REQUIRES: prepared.  What the device refuses counts as done.
void NamespaceStore::Submit(uint32_t copy) {
  Request& request = requests_[copy];
  request.store = this;
  request.retries = 0;
  request.OnDone(
      [](IoRequest& done) {
        Request& ended = static_cast<Request&>(done);
        ended.store->OneDone(ended);
      },
      IoClass::kDeadline);
  refused_[copy] = device_.Submit(request);
  if (refused_[copy].ok()) ++outstanding_;
}

void NamespaceStore::OneDone(Request& request) {
  TERRACE_CHECK(outstanding_ > 0);
  const bool again = request.kind() == IoKind::kRead &&
                     request.status().code() == StatusCode::kIoError &&
                     request.retries < kNamespaceReadRetries;
  if (again) {
    ++request.retries;
    if (device_.Submit(request).ok()) return;
  }
  if (--outstanding_ == 0) StepDone();
}

Status NamespaceStore::ResultOf(uint32_t copy) const {
  return refused_[copy].ok() ? requests_[copy].status() : refused_[copy];
}

void NamespaceStore::StepDone() {
  switch (step_) {
    case Step::kReadSuperblocks: return JudgeSuperblocks();
    case Step::kCheckEmpty: return CheckEmptiness();
    case Step::kReadTableHeads: return ReadTables();
    case Step::kReadTables: return JudgeTables();
    case Step::kWrite: {
      const uint32_t copy = writes_[written_].copy;
      if (!ResultOf(copy).ok()) return WriteEnded(ResultOf(copy));
      step_ = Step::kSync;
      requests_[copy].PrepareSync();
      Submit(copy);
      if (outstanding_ == 0) StepDone();
      return;
    }
    case Step::kSync: return WriteEnded(ResultOf(writes_[written_].copy));
  }
}

void NamespaceStore::End(const Status& status) {
  for (AlignedBytes& memory : memory_) memory = AlignedBytes();
  next_blobs_.clear();
  const Done done = std::exchange(done_, nullptr);
  done(status);
}

// A damaged block still has its magic or its set; without either it is someone else's, and healing
// it would destroy what they wrote.
bool NamespaceStore::IsForeign(uint32_t copy, uint64_t magic, size_t set_id_at) const {
  const uint8_t* const block = memory_[copy].data();
  return std::memcmp(block, &magic, sizeof(magic)) != 0 &&
         std::memcmp(block + set_id_at, expected_.set_id.data(), expected_.set_id.size()) != 0;
}

void NamespaceStore::JudgeSuperblocks() {
  const Copy* good = nullptr;
  for (uint32_t index = 0; index < kLogCopyCount; ++index) {
    Copy& copy = copies_[index];
    copy.superblock = ResultOf(index);
    if (!copy.superblock.ok()) continue;
    if (AllZero(memory_[index].span())) {
      copy.superblock = Status(StatusCode::kNotFound, "superblock: empty");
      continue;
    }
    LogSuperblock block;
    std::memcpy(&block, memory_[index].data(), sizeof(block));
    Result<LogIdentity> read = ReadSuperblock(block);
    copy.superblock = read.status();
    copy.foreign = !read.ok() && IsForeign(index, kLogMagic, offsetof(LogSuperblock, set_id));
    if (!read.ok()) continue;
    copy.identity = *read;
    LogIdentity other = good != nullptr ? good->identity : copy.identity;
    // A growth that was broken off leaves different counts.
    other.segment_count = copy.identity.segment_count;
    if (other != copy.identity) {
      return End(
          Status(StatusCode::kCorrupt, "the device's two superblocks contradict each other"));
    }
    const bool larger =
        good == nullptr || copy.identity.segment_count > good->identity.segment_count;
    if (larger) good = &copy;
  }
  if (Status refused = RefuseSuperblocks(); !refused.ok()) return End(refused);
  if (good == nullptr) {
    step_ = Step::kCheckEmpty;
    checked_bytes_ = 0;
    memory_[0] = AlignedBytes(kEmptyCheckBytes);
    Read(0, 0, kEmptyCheckBytes);
    if (outstanding_ == 0) StepDone();
    return;
  }
  if (expected_.segment_count == 0) expected_.segment_count = good->identity.segment_count;
  if (Status same = MatchIdentity(good->identity, expected_); !same.ok()) return End(same);
  opened_.identity = good->identity;
  ReadTableHeads();
}

// Ok when one copy is good or both are empty.
Status NamespaceStore::RefuseSuperblocks() const {
  bool good = false, empty = true;
  Status worst;
  for (const Copy& copy : copies_) {
    if (copy.superblock.code() == StatusCode::kInvalid) return copy.superblock;  // newer
    good = good || copy.superblock.ok();
    if (copy.superblock.code() == StatusCode::kNotFound) continue;
    empty = false;
    if (worst.ok()) worst = copy.superblock;
  }
  if (good || empty) return Status::Ok();
  if (worst.code() != StatusCode::kCorrupt) return worst;
  return Status(StatusCode::kCorrupt,
                "not a log, or both superblocks damaged (" + worst.message() +
                    "): name another file or device, or wipe its first 8 MiB to start anew");
}

void NamespaceStore::CheckEmptiness() {
  if (Status read = ResultOf(0); !read.ok()) return End(read);
  if (!AllZero(memory_[0].span())) {
    return End(Status(StatusCode::kCorrupt,
                      "the device holds other data: name another file or device, or wipe its "
                      "first 8 MiB"));
  }
  checked_bytes_ += kEmptyCheckBytes;
  if (checked_bytes_ < kLogStartBytes) {
    Read(0, checked_bytes_, kEmptyCheckBytes);
    if (outstanding_ == 0) StepDone();
    return;
  }
  if (!device_.writable()) {
    return End(Status(StatusCode::kInvalid, "an empty device that was opened read-only"));
  }
  const uint32_t fit = SegmentsThatFit(device_.capacity_bytes(), expected_.segment_bytes);
  if (expected_.segment_count == 0) expected_.segment_count = fit;
  if (fit == 0 || expected_.segment_count > fit) {
    return End(Status(StatusCode::kInvalid,
                      "a device of " + std::to_string(device_.capacity_bytes()) +
                          " bytes has room for " + std::to_string(fit) + " segments of " +
                          std::to_string(expected_.segment_bytes) + " bytes"));
  }
  if (expected_.log_id == 0) expected_.log_id = DrawLogId();
  opened_.identity = expected_;
  opened_.formatted = true;
  purpose_ = Purpose::kFormat;
  // The copy that no other program looks at comes first: a log is one once block 0 says so, and
  // half a format is healed like any damage.
  writes_ = {{.copy = 1, .superblock = true}, {.copy = 0, .superblock = true}};
  written_ = 0;
  NextWrite();
}

void NamespaceStore::ReadTableHeads() {
  step_ = Step::kReadTableHeads;
  for (uint32_t copy = 0; copy < kLogCopyCount; ++copy) {
    memory_[copy] = AlignedBytes(kLogBlockBytes);
    Read(copy, CopyOffset(copy) + kNamespaceTableOffset, kLogBlockBytes);
  }
  if (outstanding_ == 0) StepDone();
}

void NamespaceStore::ReadTables() {
  step_ = Step::kReadTables;
  for (uint32_t index = 0; index < kLogCopyCount; ++index) {
    Copy& copy = copies_[index];
    copy.table = ResultOf(index);
    if (!copy.table.ok()) continue;
    NamespaceTableHead head;
    std::memcpy(&head, memory_[index].data(), sizeof(head));
    Result<uint64_t> bytes = ReadNamespaceTableHead(opened_.identity.set_id, head);
    copy.table = bytes.status();
    if (!bytes.ok() && bytes.status().code() != StatusCode::kNotFound) {
      copy.foreign = copy.foreign ||
                     IsForeign(index, kNamespaceTableMagic, offsetof(NamespaceTableHead, set_id));
    }
    if (!bytes.ok()) continue;
    copy.image_bytes = *bytes;
    memory_[index] = AlignedBytes(*bytes);
    Read(index, CopyOffset(index) + kNamespaceTableOffset, *bytes);
  }
  if (outstanding_ == 0) StepDone();
}

void NamespaceStore::JudgeTables() {
  const Copy* newest = nullptr;
  bool never_written = false;
  for (uint32_t index = 0; index < kLogCopyCount; ++index) {
    Copy& copy = copies_[index];
    if (copy.table.ok()) copy.table = ResultOf(index);
    // A table that was ever done lies in both copies.
    never_written = never_written || copy.table.code() == StatusCode::kNotFound;
    if (copy.foreign) {
      return End(Status(StatusCode::kCorrupt,
                        "something else was written over the log at byte " +
                            std::to_string(CopyOffset(index)) +
                            ": name another file or device, or wipe its first 8 MiB"));
    }
    if (!copy.table.ok()) continue;
    // The head is read a second time with the blobs, and may read differently.
    NamespaceTableHead head;
    std::memcpy(&head, memory_[index].data(), sizeof(head));
    const Result<uint64_t> bytes = ReadNamespaceTableHead(opened_.identity.set_id, head);
    if (!bytes.ok() || *bytes != copy.image_bytes) {
      copy.table =
          Status(StatusCode::kCorrupt, "namespace table: its head reads differently twice");
      continue;
    }
    Result<NamespaceTableImage> image =
        ReadNamespaceTable(opened_.identity.set_id, memory_[index].span());
    copy.table = image.status();
    if (!image.ok()) continue;
    copy.image = *std::move(image);
    copy_generations_[index] = copy.image.generation;
    if (newest == nullptr || copy.image.generation > newest->image.generation) newest = &copy;
  }
  if (newest == nullptr && !never_written) {
    return End(Status(StatusCode::kCorrupt, "both copies of the namespace table are damaged (" +
                                                copies_[0].table.message() +
                                                "): what the log holds cannot be told apart; "
                                                "wipe the device's first 8 MiB to start anew"));
  }
  if (newest != nullptr) {
    generation_ = newest->image.generation;
    blobs_ = newest->image.blobs;
  }
  Heal();
}

// Whether the log has more room than it says; its identity then counts all of it.
bool NamespaceStore::Grow() {
  segments_before_ = opened_.identity.segment_count;
  const uint32_t fit = SegmentsThatFit(device_.capacity_bytes(), opened_.identity.segment_bytes);
  if (!may_grow_ || !device_.writable() || fit <= segments_before_) return false;
  opened_.identity.segment_count = fit;
  return true;
}

void NamespaceStore::Heal() {
  purpose_ = Purpose::kHeal;
  const bool grows = Grow();
  for (uint32_t index = 0; index < kLogCopyCount; ++index) {
    const std::string name = "copy " + std::to_string(index) + ": ";
    if (!copies_[index].superblock.ok()) {
      opened_.damage.push_back(name + copies_[index].superblock.message());
      writes_.push_back({.copy = index, .superblock = true});
    }
    if (generation_ > 0 && copy_generations_[index] != generation_) {
      opened_.damage.push_back(name + (copies_[index].table.ok() ? "namespace table: older"
                                                                 : copies_[index].table.message()));
      writes_.push_back({.copy = index, .superblock = false});
    }
  }
  // Behind the damaged ones: one whole copy is there at any moment.
  for (uint32_t index = kLogCopyCount; index-- > 0;) {
    const Copy& copy = copies_[index];
    const bool older = copy.identity.segment_count != opened_.identity.segment_count;
    if (copy.superblock.ok() && (grows || older)) {
      writes_.push_back({.copy = index, .superblock = true, .grows = true});
    }
  }
  written_ = 0;
  next_blobs_ = blobs_;
  if (!device_.writable()) writes_.clear();
  NextWrite();
}

Status NamespaceStore::Replace(std::vector<std::string> blobs, Done done) {
  if (busy()) return Status(StatusCode::kBusy, "another update of the namespace table");
  if (!device_.writable()) return Status(StatusCode::kDenied, "the log's device is read-only");
  if (const uint64_t bytes = NamespaceTableImageBytes(blobs); bytes > kNamespaceTableBytes) {
    return Status(StatusCode::kInvalid, "namespaces take " + std::to_string(bytes) +
                                            " bytes, the log has room for " +
                                            std::to_string(kNamespaceTableBytes));
  }
  done_ = std::move(done);
  purpose_ = Purpose::kReplace;
  next_blobs_ = std::move(blobs);
  ++generation_;
  const uint32_t older = copy_generations_[0] <= copy_generations_[1] ? 0 : 1;
  writes_ = {{.copy = older, .superblock = false}, {.copy = 1 - older, .superblock = false}};
  written_ = 0;
  NextWrite();
  return Status::Ok();
}

void NamespaceStore::NextWrite() {
  if (written_ == writes_.size()) {
    if (purpose_ == Purpose::kReplace) blobs_ = next_blobs_;
    return End(Status::Ok());
  }
  const Write& write = writes_[written_];
  uint64_t offset = CopyOffset(write.copy);
  if (write.superblock) {
    LogSuperblock block;
    BuildSuperblock(opened_.identity, &block);
    memory_[write.copy] = AlignedBytes(sizeof(block));
    std::memcpy(memory_[write.copy].data(), &block, sizeof(block));
  } else {
    offset += kNamespaceTableOffset;
    memory_[write.copy] = AlignedBytes(NamespaceTableImageBytes(next_blobs_));
    BuildNamespaceTable(opened_.identity.set_id, generation_, next_blobs_,
                        memory_[write.copy].span());
    copy_generations_[write.copy] = 0;
  }
  step_ = Step::kWrite;
  requests_[write.copy].PrepareWrite(offset, memory_[write.copy].data(),
                                     memory_[write.copy].size());
  Submit(write.copy);
  if (outstanding_ == 0) StepDone();
}

void NamespaceStore::WriteEnded(const Status& status) {
  const Write& write = writes_[written_];
  if (!status.ok()) {
    if (purpose_ != Purpose::kHeal) return End(status);
    const std::string what = write.grows ? " did not grow: " : " was not healed: ";
    opened_.damage.push_back("copy " + std::to_string(write.copy) + what + status.ToString());
    // Until both copies say so, what lies behind may not be found again.
    opened_.identity.segment_count = segments_before_;
    return End(Status::Ok());
  }
  if (!write.superblock) copy_generations_[write.copy] = generation_;
  if (purpose_ == Purpose::kHeal && !write.grows) ++opened_.healed;
  ++written_;
  NextWrite();
}

}  // namespace terrace
