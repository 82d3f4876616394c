#include "storage/engine/nvme_tier.h"

#include <algorithm>
#include <cstring>

#include "storage/base/log.h"
#include "storage/record/record.h"

namespace terrace {
namespace {

constexpr uint32_t kRoomySegments = 16;
constexpr int64_t kNsPerDay = int64_t{86'400} * kNsPerSecond;
// How much of a day's bytes an idle time saves up: an hour's, so that an evening's burst goes
// through and a month's silence is no licence.
constexpr double kSavedShare = 1.0 / 24;

}  // namespace

const char* NvmeStateName(NvmeState state) {
  switch (state) {
    case NvmeState::kOpening: return "opening";
    case NvmeState::kRecovering: return "recovering";
    case NvmeState::kReady: return "ready";
    case NvmeState::kOff: return "off";
  }
  return "unknown";
}

LogSetId NvmeSetId(const std::string& tenant) {
  LogSetId id{};
  const std::string names[2] = {"terrace log of " + tenant, tenant + " owns this terrace log"};
  for (size_t half = 0; half < 2; ++half) {
    const uint64_t word = HashBytes(names[half].data(), names[half].size());
    std::memcpy(id.data() + half * sizeof word, &word, sizeof word);
  }
  return id;
}

Result<std::unique_ptr<NvmeTier>> NvmeTier::Create(const NvmeOptions& options,
                                                   const std::string& tenant,
                                                   std::string_view policy) {
  Result<std::unique_ptr<Policy>> made = MakePolicy(policy, options.device->capacity_bytes());
  if (!made.ok()) return made.status();
  std::unique_ptr<NvmeTier> tier(new NvmeTier(options, *std::move(made)));
  SegmentLogOptions log;
  log.set_id = NvmeSetId(tenant);
  log.tenant = tenant;
  log.segment_bytes = options.segment_bytes;
  log.sequence_floor = options.sequence_floor;
  log.new_log_id = options.new_log_id;
  log.write = options.write;
  tier->memory_ =
      AlignedBytes((SegmentLog::MemoryBytes(log) + kPageBytes - 1) / kPageBytes * kPageBytes);
  Result<std::unique_ptr<SegmentLog>> opened =
      SegmentLog::Create(*options.device, log, tier->memory_.span());
  if (!opened.ok()) return opened.status();
  tier->log_ = *std::move(opened);
  return tier;
}

NvmeTier::~NvmeTier() {
  state_ = NvmeState::kOff;  // what ends now finds no store any more
  if (log_ != nullptr) options_.device->Drain();
}

void NvmeTier::Begin(Start start) {
  start_ = std::move(start);
  log_->Open([this](const Status& status) { Opened(status); });
}

void NvmeTier::Opened(const Status& status) {
  if (state_ == NvmeState::kOff) return;  // given up meanwhile
  if (status.code() == StatusCode::kIoError && reopens_ < kNvmeReopensMax) {
    reopen_ = true;
    return LogWarning("nvme: opened again in a moment: " + status.ToString());
  }
  if (!status.ok()) return TurnOff(status);
  for (const std::string& damage : log_->stats().damage) LogWarning("nvme: " + damage);
  const uint32_t segments = log_->segments()->count();
  if (segments < kNvmeSegmentsMin) {
    return TurnOff(Status(StatusCode::kNoSpace,
                          "the log has room for " + std::to_string(segments) +
                              " segments, and needs 4: raise nvme_bytes or lower nvme_segment"));
  }
  if (Status named = start_.named(log_->namespaces()); !named.ok()) return TurnOff(named);
  residents_.resize(segments);
  state_ = NvmeState::kRecovering;
  log_->Recover(
      [this](const RecoveredRecord& record) {
        if (state_ == NvmeState::kRecovering) start_.recovered(record);
      },
      [this](const Status& recovered) {
        if (state_ != NvmeState::kRecovering) return;
        recovered_numbers_ = {};
        if (!recovered.ok()) return TurnOff(recovered);
        state_ = NvmeState::kReady;
        start_.ended();
      });
}

void NvmeTier::TurnOff(const Status& why) {
  state_ = NvmeState::kOff;
  why_off_ = why;
  queue_.clear();
  urgent_.clear();
  LogError("the NVMe tier is off: " + why.ToString());
  if (start_.ended) start_.ended();
}

bool NvmeTier::Poll(int64_t now_ns) {
  const bool ended = options_.device->Poll() != 0;
  log_->Poll(now_ns);
  if (reopen_ && state_ == NvmeState::kOpening) {
    reopen_ = false;
    reopen_ns_ = now_ns + (kNvmeReopenNs << reopens_++);
  }
  if (reopen_ns_ != 0 && now_ns >= reopen_ns_) {
    reopen_ns_ = 0;
    if (state_ == NvmeState::kOpening) {
      log_->Open([this](const Status& status) { Opened(status); });
      options_.device->Flush();
    }
  }
  return ended;
}

void NvmeTier::NoteRecovered(uint32_t chunk, uint64_t append_number) {
  if (chunk >= recovered_numbers_.size()) recovered_numbers_.resize(chunk + 1);
  recovered_numbers_[chunk] = append_number;
}

bool NvmeTier::Roomy() const {
  return log_->segments() != nullptr && log_->segments()->count() >= kRoomySegments;
}

bool NvmeTier::Queue(ChunkTicket chunk) {
  if (state_ == NvmeState::kOff || queue_.size() >= kDemoteQueueMax) return false;
  queue_.push_back(chunk);
  return true;
}

bool NvmeTier::QueueUrgent(ChunkTicket chunk) {
  if (state_ == NvmeState::kOff || urgent_.size() >= kDemoteQueueMax) return false;
  urgent_.push_back(chunk);
  return true;
}

std::deque<ChunkTicket>* NvmeTier::next_queue() {
  if (!urgent_.empty()) return &urgent_;
  return queue_.empty() ? nullptr : &queue_;
}

bool NvmeTier::Admits(uint64_t bytes, int64_t now_ns) {
  if (options_.admission != NvmeAdmission::kBytesADay) return true;
  const double a_day = static_cast<double>(options_.bytes_a_day);
  const double saved_max =
      std::max(a_day * kSavedShare, static_cast<double>(shm::RecordBytes(kChunkBytesMax)));
  if (tokens_ns_ == 0) {
    tokens_ += saved_max - static_cast<double>(options_.overdrawn_bytes);
  } else {
    tokens_ += a_day * static_cast<double>(now_ns - tokens_ns_) / static_cast<double>(kNsPerDay);
  }
  tokens_ns_ = now_ns;
  tokens_ = std::min(tokens_, saved_max);
  if (tokens_ < static_cast<double>(bytes)) return false;
  tokens_ -= static_cast<double>(bytes);
  return true;
}

NvmeStats NvmeTier::stats() const {
  NvmeStats stats = counts;
  stats.configured = true;
  stats.state = state_;
  stats.why_off = why_off_.ok() ? "" : why_off_.ToString();
  stats.device = options_.device->Describe();
  if (!options_.note.empty()) stats.device += "; " + options_.note;
  stats.log = log_->stats();
  stats.bytes = stats.log.segments.total * options_.segment_bytes;
  if (const Status medium = options_.device->CheckMedium(); !medium.ok()) {
    stats.medium_error = medium.message();
  }
  stats.allocated_bytes = options_.device->AllocatedBytes();
  stats.demote_queue = queued();
  stats.io = options_.device->stats();
  stats.budgets = options_.device->budgets();
  return stats;
}

}  // namespace terrace
