#include "storage/io/tune_budgets.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

namespace terrace {
namespace {

constexpr uint64_t kRequestBytes = 1 * kMiB + kPageBytes;  // a chunk of 1 MiB, with its header
constexpr uint32_t kDepthMax = 16;
// Here each end begins the next at once; whoever has to look at what came first leaves gaps, which
// fewer in flight would not fill.
constexpr uint32_t kDepthMin = 4;
constexpr std::array<uint32_t, 3> kDepths = {kDepthMin, 8, kDepthMax};
constexpr uint32_t kRounds = 3;  // alternated: a neighbour's burst does not hit one depth alone
constexpr double kNearlyBest = 0.95;
// What is in flight is given up so long after its time, twice.
constexpr int64_t kHangNs = 250 * kNsPerMs;

class Tuner;

struct Trip : IoRequest {
  Tuner* tuner = nullptr;
  uint8_t* memory = nullptr;
};

class Tuner {
 public:
  Tuner(BlockDevice& device, const TuneOptions& options, const Clock& clock)
      : device_(device), options_(options), clock_(clock) {
    for (uint32_t i = 0; i < kDepthMax; ++i) {
      trips_[i].tuner = this;
      trips_[i].memory = options.memory + i * kRequestBytes;
    }
  }

  const Status& status() const { return status_; }
  // The device still has the requests.
  bool hung() const { return hung_; }
  uint32_t depth_max() const {
    return static_cast<uint32_t>(
        std::min<uint64_t>(kDepthMax, options_.memory_bytes / kRequestBytes));
  }

  // Bytes a second with `depth` requests in flight, for `time_ns`.
  double Measure(IoKind kind, uint32_t depth, int64_t time_ns) {
    kind_ = kind;
    moved_bytes_ = 0;
    const int64_t began_ns = clock_.NowNs();
    end_ns_ = began_ns + time_ns;
    for (uint32_t i = 0; i < depth; ++i) Submit(trips_[i]);
    device_.Flush();
    while (outstanding_ > 0) {
      pollfd event{.fd = device_.event_fd(), .events = POLLIN, .revents = 0};
      static_cast<void>(poll(&event, 1, 1));
      device_.Poll();
      if (clock_.NowNs() < end_ns_ + kHangNs) continue;
      if (device_.DrainUntil(clock_.NowNs() + kHangNs)) break;
      hung_ = true;
      status_ = Status(StatusCode::kDeadline, "the device does not end its reads");
      return 0;
    }
    const int64_t took_ns = std::max<int64_t>(1, clock_.NowNs() - began_ns);
    return static_cast<double>(moved_bytes_) * static_cast<double>(kNsPerSecond) /
           static_cast<double>(took_ns);
  }

  // The best rate of each depth that memory allows.
  uint32_t PickDepth(IoKind kind, int64_t time_ns) {
    std::array<double, kDepths.size()> best{};
    for (uint32_t round = 0; round < kRounds; ++round) {
      for (size_t i = 0; i < kDepths.size() && status_.ok(); ++i) {
        if (kDepths[i] > depth_max()) continue;
        SetDepth(kind, kDepths[i]);
        const auto trips = static_cast<int64_t>(kRounds * kDepths.size());
        best[i] = std::max(best[i], Measure(kind, kDepths[i], time_ns / trips));
      }
    }
    const double most = *std::max_element(best.begin(), best.end());
    for (size_t i = 0; i < kDepths.size(); ++i) {
      if (best[i] >= kNearlyBest * most) return kDepths[i];
    }
    return kDepths[0];
  }

  void SetDepth(IoKind kind, uint32_t depth) {
    IoBudgets budgets = device_.budgets();
    if (kind == IoKind::kRead) budgets.read_bytes = depth * kRequestBytes;
    if (kind == IoKind::kWrite) {
      budgets.write_depth = depth;
      budgets.read_quiet_ns = 0;
    }
    device_.SetBudgets(budgets);
  }

  // Writes the range from front to back, for at most `time_ns`, and from then on stays within what
  // was written.
  void Fill(int64_t time_ns) {
    sequential_ = true;
    Measure(IoKind::kWrite, std::min(4u, depth_max()), time_ns);
    sequential_ = false;
    if (next_ < RequestsInRange()) filled_ = std::max<uint64_t>(1, next_);
  }

 private:
  uint64_t RequestsInRange() const { return options_.bytes / kRequestBytes; }

  void Submit(Trip& trip) {
    if (!status_.ok() || clock_.NowNs() >= end_ns_) return;
    if (sequential_ && next_ == RequestsInRange()) return;
    const uint64_t count = filled_ > 0 ? filled_ : RequestsInRange();
    const uint64_t offset =
        options_.offset + (sequential_ ? next_++ : Random() % count) * kRequestBytes;
    if (kind_ == IoKind::kRead)
      trip.PrepareRead(offset, trip.memory, kRequestBytes, options_.buffer);
    if (kind_ == IoKind::kWrite) {
      trip.PrepareWrite(offset, trip.memory, kRequestBytes, options_.buffer);
    }
    trip.OnDone(&Tuner::Done, IoClass::kDeadline);
    status_ = device_.Submit(trip);
    if (status_.ok()) ++outstanding_;
  }

  static void Done(IoRequest& request) {
    Trip& trip = static_cast<Trip&>(request);
    Tuner& tuner = *trip.tuner;
    --tuner.outstanding_;
    if (!request.status().ok()) {
      if (tuner.status_.ok()) tuner.status_ = request.status();
      return;
    }
    tuner.moved_bytes_ += request.bytes();
    tuner.Submit(trip);
  }

  uint64_t Random() {  // xorshift64: any spread will do
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return random_;
  }

  BlockDevice& device_;
  const TuneOptions options_;
  const Clock& clock_;
  std::array<Trip, kDepthMax> trips_;
  IoKind kind_ = IoKind::kRead;
  bool sequential_ = false;
  uint64_t next_ = 0;
  uint64_t filled_ = 0;  // requests' room that Fill wrote; 0: all of the range
  uint64_t moved_bytes_ = 0;
  uint32_t outstanding_ = 0;
  int64_t end_ns_ = 0;
  uint64_t random_ = 0x9E3779B97F4A7C15;
  Status status_;
  bool hung_ = false;
};

}  // namespace

Result<IoBudgets> TuneBudgets(BlockDevice& device, const TuneOptions& options, const Clock& clock) {
  if (options.bytes < kRequestBytes || options.memory_bytes < kDepthMin * kRequestBytes) {
    return Status(StatusCode::kInvalid,
                  "tuning a device takes a range of 1,028 KiB, and four times that memory");
  }
  const IoBudgets before = device.budgets();
  auto owned = std::make_unique<Tuner>(device, options, clock);
  Tuner& tuner = *owned;
  IoBudgets budgets = before;
  // A third each for filling, reading and writing; all of it for reading alone.
  const int64_t share_ns = options.scratch ? options.time_ns_max / 3 : options.time_ns_max;
  if (options.scratch) tuner.Fill(share_ns);
  const uint32_t read_depth = tuner.PickDepth(IoKind::kRead, share_ns);
  budgets.read_bytes = read_depth * kRequestBytes;
  if (options.scratch) budgets.write_depth = tuner.PickDepth(IoKind::kWrite, share_ns);
  device.SetBudgets(tuner.status().ok() ? budgets : before);
  if (tuner.hung()) {
    const Status why = tuner.status();
    static_cast<void>(owned.release());
    return why;
  }
  if (!tuner.status().ok()) return tuner.status();
  return budgets;
}

}  // namespace terrace
