#include "storage/segment/segment_pool.h"

#include <bit>

#include "storage/base/check.h"
#include "storage/base/limits.h"
#include "storage/base/log.h"

namespace terrace {

SegmentPool::SegmentPool(SegmentPoolOptions options)
    : options_(std::move(options)),
      segments_(options_.segment_count),
      populated_(std::make_unique<std::atomic<uint64_t>[]>(options_.segment_count)),
      populator_(std::make_unique<Populator>()) {}

// The populator ends before the mappings that it writes to.
SegmentPool::~SegmentPool() { populator_.reset(); }

Result<std::unique_ptr<SegmentPool>> SegmentPool::Create(const SegmentPoolOptions& options) {
  if (!std::has_single_bit(options.segment_bytes) || options.segment_bytes < kSegmentBytesMin ||
      options.segment_bytes > kSegmentBytesMax) {
    return Status(StatusCode::kInvalid, "segment = " + std::to_string(options.segment_bytes) +
                                            ": use a power of two from 2 MiB to 1 GiB");
  }
  if (options.segment_count == 0 || options.segment_count > kSegmentCountMax) {
    return Status(StatusCode::kInvalid, std::to_string(options.segment_count) +
                                            " segments: use 1 to 4096, by a larger `segment`");
  }
  std::unique_ptr<SegmentPool> pool(new SegmentPool(options));
  for (uint32_t segment = 0; segment < pool->count(); ++segment) {
    Status made = pool->Make(segment);
    if (!made.ok()) return made;
    ++pool->free_count_;
  }
  return pool;
}

Status SegmentPool::Make(uint32_t segment) {
  const uint64_t generation = next_generation_;
  if (generation > shm::Location::kGenerationMax) {
    return Status(StatusCode::kNoSpace, "every generation was used: restart the daemon");
  }
  Result<MemoryFile> memory = MemoryFile::Create(
      options_.name + "-" + std::to_string(segment) + "." + std::to_string(generation),
      options_.segment_bytes, options_.memory);
  if (!memory.ok()) return memory.status();
  ++next_generation_;
  Segment& made = segments_[segment];
  made.memory = *std::move(memory);
  made.generation = generation;
  made.kind = SegmentKind::kFresh;
  made.state = SegmentState::kFree;
  made.writers.clear();
  made.poisons.clear();
  ++epoch_;

  std::atomic<uint64_t>* populated = &populated_[segment];
  const auto done = [populated, generation](const Status& status) {
    if (!status.ok()) {
      LogWarning("populating a segment: " + status.ToString());
      return;
    }
    populated->store(generation, std::memory_order_release);
  };
  const Status queued = populator_->Enqueue({.id = generation,
                                             .data = made.memory.mapping().writable_data(),
                                             .bytes = options_.segment_bytes,
                                             .done = done});
  // Slower at first touch, but memory like any other.
  if (!queued.ok()) LogWarning("populating a segment: " + queued.ToString());
  return Status::Ok();
}

Result<uint32_t> SegmentPool::Open(SegmentKind kind) {
  // Of this kind and populated, of this kind, of any kind.
  uint32_t best = count();
  int best_rank = 0;
  for (uint32_t step = 0; step < count() && best_rank < 4; ++step) {
    const uint32_t at = (cursor_ + step) % count();
    const Segment& segment = segments_[at];
    if (segment.state != SegmentState::kFree) continue;
    int rank = 1;
    if (segment.kind == kind) rank = IsPopulated(at) ? 4 : 2;
    if (segment.kind == SegmentKind::kFresh) rank = IsPopulated(at) ? 3 : 2;
    if (rank <= best_rank) continue;
    best = at;
    best_rank = rank;
  }
  if (best == count()) return Status(StatusCode::kNoSpace, "no free segment");

  Segment& opened = segments_[best];
  if (opened.kind != kind && opened.kind != SegmentKind::kFresh) {
    --free_count_;
    Replace(best);
    if (opened.state != SegmentState::kFree) {
      return Status(StatusCode::kNoSpace, "no memory for a fresh segment");
    }
  }
  if (opened.kind == SegmentKind::kFresh) {
    Status sealed = kind == SegmentKind::kDaemonFilled ? opened.memory.SealFutureWrite()
                                                       : opened.memory.SealSeals();
    if (!sealed.ok()) return sealed;
  }
  opened.kind = kind;
  opened.state = SegmentState::kOpen;
  --free_count_;
  cursor_ = (best + 1) % count();
  return best;
}

bool SegmentPool::Append(uint32_t segment, uint64_t record_bytes, uint64_t* offset) {
  Segment& open = segments_[segment];
  TERRACE_CHECK(open.state == SegmentState::kOpen);
  if (open.fill_bytes + record_bytes > options_.segment_bytes) return false;
  *offset = open.fill_bytes;
  open.fill_bytes += record_bytes;
  return true;
}

void SegmentPool::Unappend(uint32_t segment, uint64_t record_bytes) {
  Segment& open = segments_[segment];
  TERRACE_CHECK(open.fill_bytes >= record_bytes);
  open.fill_bytes -= record_bytes;
}

void SegmentPool::Seal(uint32_t segment) {
  TERRACE_CHECK(segments_[segment].state == SegmentState::kOpen);
  segments_[segment].state = SegmentState::kSealed;
}

void SegmentPool::BeginDrain(uint32_t segment, int64_t now_ns) {
  Segment& drained = segments_[segment];
  TERRACE_CHECK(drained.state == SegmentState::kSealed && drained.live_bytes == 0);
  drained.state = SegmentState::kDraining;
  drained.draining_since_ns = now_ns;
}

void SegmentPool::Forget(Segment& segment) {
  TERRACE_CHECK(segment.live_bytes == 0 && segment.open_claims == 0 && segment.io_holds == 0);
  segment.owner = 0;
  segment.last_loss = 0;
  segment.fill_bytes = segment.padding_bytes = segment.claimed_bytes = 0;
  segment.records.clear();
  segment.leaves.clear();
}

void SegmentPool::Free(uint32_t segment) {
  Segment& freed = segments_[segment];
  TERRACE_CHECK(freed.state == SegmentState::kSealed || freed.state == SegmentState::kDraining);
  TERRACE_CHECK(freed.poisons.empty());
  Forget(freed);
  freed.state = SegmentState::kFree;
  ++free_count_;
}

void SegmentPool::Replace(uint32_t segment) {
  Segment& replaced = segments_[segment];
  Forget(replaced);
  populator_->Cancel(replaced.generation);
  if (on_unmap_) on_unmap_(segment);
  replaced.memory = MemoryFile();
  replaced.state = SegmentState::kMissing;
  replaced.poisons.clear();
  replaced.writers.clear();
  ++epoch_;
  if (!Refill(segment)) {
    LogWarning("segment " + std::to_string(segment) + " of " + options_.name +
               " is missing until the machine has memory for it");
  }
}

bool SegmentPool::Refill(uint32_t segment) {
  TERRACE_CHECK(segments_[segment].state == SegmentState::kMissing);
  if (!Make(segment).ok()) return false;  // tried again often: nothing to log
  ++free_count_;
  return true;
}

bool SegmentPool::IsPopulated(uint32_t segment) const {
  return populated_[segment].load(std::memory_order_acquire) == segments_[segment].generation;
}

uint64_t SegmentPool::populated_bytes() const {
  uint64_t bytes = 0;
  for (uint32_t segment = 0; segment < count(); ++segment) {
    if (IsPopulated(segment)) bytes += options_.segment_bytes;
  }
  return bytes;
}

}  // namespace terrace
