#include "storage/tier/log_segments.h"

#include <algorithm>
#include <string>
#include <utility>

#include "storage/base/check.h"

namespace terrace {

LogSegments::LogSegments(uint32_t count, uint64_t segment_bytes)
    : segment_bytes_(segment_bytes), segments_(count), free_count_(count) {}

LogSegmentCounts LogSegments::Counts() const {
  LogSegmentCounts counts;
  counts.total = count();
  for (const LogSegment& segment : segments_) {
    switch (segment.state) {
      case LogSegmentState::kFree: ++counts.free; break;
      case LogSegmentState::kOpen: ++counts.open; break;
      case LogSegmentState::kSealed: ++counts.sealed; break;
      case LogSegmentState::kReclaiming: ++counts.reclaiming; break;
      case LogSegmentState::kQuarantined: ++counts.quarantined; break;
    }
    counts.fill_bytes += segment.fill_bytes;
    counts.live_bytes += segment.live_bytes;
  }
  return counts;
}

Result<uint32_t> LogSegments::Open(uint32_t reuse_class) {
  for (uint32_t step = 0; step < count(); ++step) {
    const uint32_t place = (cursor_ + step) % count();
    LogSegment& segment = segments_[place];
    if (segment.state != LogSegmentState::kFree) continue;
    segment.state = LogSegmentState::kOpen;
    segment.reuse_class = reuse_class;
    segment.sequence = next_sequence_++;
    --free_count_;
    cursor_ = (place + 1) % count();
    return place;
  }
  return Status(StatusCode::kNoSpace, "no free segment in the log");
}

void LogSegments::Seal(uint32_t segment) {
  TERRACE_CHECK(segments_[segment].state == LogSegmentState::kOpen);
  segments_[segment].state = LogSegmentState::kSealed;
  if (segments_[segment].failures >= kSegmentFailuresMax) Quarantine(segment);
}

void LogSegments::Abandon(uint32_t segment) {
  TERRACE_CHECK(segments_[segment].state == LogSegmentState::kOpen);
  TERRACE_CHECK(segments_[segment].record_count == 0);
  Empty(segment);
}

void LogSegments::Recovered(uint32_t segment, uint64_t sequence, LogSegmentState state) {
  TERRACE_CHECK(segments_[segment].state == LogSegmentState::kFree);
  TERRACE_CHECK(state == LogSegmentState::kSealed || state == LogSegmentState::kOpen);
  segments_[segment].state = state;
  segments_[segment].sequence = sequence;
  --free_count_;
  RaiseSequence(sequence);
}

void LogSegments::Withhold(uint32_t segment) {
  TERRACE_CHECK(segments_[segment].state == LogSegmentState::kFree);
  segments_[segment].state = LogSegmentState::kQuarantined;
  --free_count_;
}

void LogSegments::RaiseSequence(uint64_t seen) {
  next_sequence_ = std::max(next_sequence_, seen + 1);
}

void LogSegments::AddLive(uint32_t segment, uint64_t record_bytes) {
  segments_[segment].live_bytes += record_bytes;
  ++segments_[segment].record_count;
}

void LogSegments::MarkDead(uint32_t segment, uint64_t record_bytes) {
  TERRACE_CHECK(segments_[segment].live_bytes >= record_bytes);
  segments_[segment].live_bytes -= record_bytes;
}

void LogSegments::EndRead(uint32_t segment) {
  TERRACE_CHECK(segments_[segment].reads > 0);
  --segments_[segment].reads;
}

Status LogSegments::BeginReclaim(uint32_t segment) {
  if (segment >= count() || segments_[segment].state != LogSegmentState::kSealed) {
    return Status(StatusCode::kInvalid, "segment " + std::to_string(segment) + " is not sealed");
  }
  segments_[segment].state = LogSegmentState::kReclaiming;
  return Status::Ok();
}

Status LogSegments::Free(uint32_t segment) {
  if (segment >= count() || segments_[segment].state != LogSegmentState::kReclaiming) {
    return Status(StatusCode::kInvalid,
                  "segment " + std::to_string(segment) + " is not reclaiming");
  }
  if (segments_[segment].reads > 0) {
    return Status(StatusCode::kBusy, std::to_string(segments_[segment].reads) +
                                         " reads under way in segment " + std::to_string(segment));
  }
  Empty(segment);
  return Status::Ok();
}

void LogSegments::Fail(uint32_t segment) {
  ++segments_[segment].failures;
  if (segments_[segment].failures < kSegmentFailuresMax) return;
  if (segments_[segment].state == LogSegmentState::kSealed) Quarantine(segment);
}

std::vector<uint32_t> LogSegments::TakeQuarantined() { return std::exchange(quarantined_, {}); }

void LogSegments::Empty(uint32_t place) {
  LogSegment& segment = segments_[place];
  segment.fill_bytes = segment.live_bytes = 0;
  segment.record_count = 0;
  if (segment.failures >= kSegmentFailuresMax) {
    Quarantine(place);
    return;
  }
  segment.state = LogSegmentState::kFree;
  ++free_count_;
}

void LogSegments::Quarantine(uint32_t segment) {
  segments_[segment].state = LogSegmentState::kQuarantined;
  quarantined_.push_back(segment);
}

}  // namespace terrace
