#include "storage/tier/log_reader.h"

#include <algorithm>
#include <string>
#include <utility>

#include "storage/base/check.h"
#include "storage/tier/log_layout.h"

namespace terrace {

LogReader::LogReader(BlockDevice& device, LogSegments& segments, const BreakerOptions& breaker)
    : device_(device), segments_(segments), breaker_(breaker) {
  free_.reserve(kLogReadsMax);
  under_way_.reserve(kLogReadsMax);
}

Status LogReader::CheckRead(const LogRead& read, int64_t now_ns) const {
  const uint64_t from = uint64_t{read.place.offset_units} * kLogBlockBytes + read.offset;
  if (read.place.segment >= segments_.count() || read.bytes == 0 ||
      read.offset > segments_.segment_bytes() || read.bytes > segments_.segment_bytes() ||
      from + read.bytes > segments_.segment_bytes()) {
    return Status(StatusCode::kInvalid, "a read outside the log's segments");
  }
  const LogSegment& segment = segments_.at(read.place.segment);
  if (segment.state == LogSegmentState::kQuarantined) {
    return Status(StatusCode::kIoError,
                  "segment " + std::to_string(read.place.segment) + " is quarantined");
  }
  if (segment.sequence != read.place.sequence ||
      (segment.state != LogSegmentState::kOpen && segment.state != LogSegmentState::kSealed)) {
    return Status(StatusCode::kStale,
                  "segment " + std::to_string(read.place.segment) + " was reclaimed");
  }
  if (!breaker_.Allows(now_ns)) {
    return Status(StatusCode::kIoError,
                  "reads of the log pause after: " + breaker_.cause().ToString());
  }
  if (under_way_.size() + finished_.size() >= kLogReadsMax) {
    return Status(StatusCode::kBusy,
                  std::to_string(kLogReadsMax) + " reads of the log are under way");
  }
  return Status::Ok();
}

Status LogReader::Read(const LogRead& read, LogReadDone done, int64_t now_ns) {
  if (Status checked = CheckRead(read, now_ns); !checked.ok()) return checked;
  if (free_.empty()) free_.push_back(std::make_unique<Slot>());
  Slot& slot = *free_.back();
  slot.PrepareRead(SegmentOffset(read.place.segment, segments_.segment_bytes()) +
                       uint64_t{read.place.offset_units} * kLogBlockBytes + read.offset,
                   read.into, read.bytes, read.buffer);
  slot.OnDone(
      [](IoRequest& request) {
        Slot& ended = static_cast<Slot&>(request);
        ended.reader->ReadDone(ended);
      },
      read.io_class);
  if (Status submitted = device_.Submit(slot); !submitted.ok()) return submitted;
  slot.reader = this;
  slot.place = read.place;
  slot.index = static_cast<uint32_t>(under_way_.size());
  slot.deadline_ns = read.deadline_ns;
  slot.done = std::move(done);
  first_deadline_ns_ = std::min(first_deadline_ns_, read.deadline_ns);
  segments_.BeginRead(slot.place.segment);
  under_way_.push_back(std::move(free_.back()));
  free_.pop_back();
  return Status::Ok();
}

void LogReader::ReadDone(Slot& slot) {
  Status status = slot.status();
  segments_.EndRead(slot.place.segment);
  if (status.ok()) {
    ++stats_.reads;
    stats_.bytes += slot.bytes();
    breaker_.Worked();
  } else if (status.code() == StatusCode::kCancelled && slot.deadline_ns <= now_ns_) {
    ++stats_.expired;
    status = Status(StatusCode::kDeadline, "the read did not begin in time");
  } else if (status.code() != StatusCode::kCancelled) {
    ++stats_.failed;
    // Only while the medium as a whole works is it the place that fails.
    if (!breaker_.open()) segments_.Fail(slot.place.segment);
    breaker_.Failed(status, now_ns_);
  }
  finished_.push_back({.done = std::exchange(slot.done, nullptr),
                       .status = std::move(status),
                       .bytes = slot.bytes()});

  const uint32_t index = slot.index;
  free_.push_back(std::move(under_way_[index]));
  if (index + 1 != under_way_.size()) {
    under_way_[index] = std::move(under_way_.back());
    under_way_[index]->index = index;
  }
  under_way_.pop_back();
}

void LogReader::Hasten(const LogPlace& place, IoClass io_class, int64_t deadline_ns) {
  for (const std::unique_ptr<Slot>& slot : under_way_) {
    if (!(slot->place == place)) continue;
    device_.Hasten(*slot, io_class);
    slot->deadline_ns = std::max(slot->deadline_ns, deadline_ns);
  }
}

void LogReader::Poll(int64_t now_ns) {
  now_ns_ = now_ns;
  if (now_ns >= first_deadline_ns_) {
    first_deadline_ns_ = INT64_MAX;
    for (const std::unique_ptr<Slot>& slot : under_way_) {
      if (slot->deadline_ns <= now_ns) {
        device_.Cancel(*slot);  // ends in the device's Poll
      } else {
        first_deadline_ns_ = std::min(first_deadline_ns_, slot->deadline_ns);
      }
    }
  }
  for (uint64_t bytes = 0; !finished_.empty() && bytes < kLogReadsDoneBytes;) {
    const Finished read = std::move(finished_.front());
    finished_.pop_front();
    if (read.status.ok()) bytes += read.bytes;
    read.done(read.status);
  }
}

int64_t LogReader::next_wake_ns() const { return finished_.empty() ? first_deadline_ns_ : now_ns_; }

LogReadStats LogReader::stats() const {
  LogReadStats stats = stats_;
  stats.reading = static_cast<uint32_t>(under_way_.size());
  stats.breaker_open = breaker_.open();
  stats.breaker_opened = breaker_.opened();
  return stats;
}

}  // namespace terrace
