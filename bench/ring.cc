#include "bench/ring.h"

#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <deque>

#include "bench/measure.h"
#include "storage/base/limits.h"
#include "storage/io/open_device.h"

namespace terrace {
namespace {

constexpr int kAwaitMs = 100;

// One run: so many requests, each begun anew as it ends.
class Run {
 public:
  Run(BlockDevice& device, BufferId buffer, std::span<uint8_t> memory, const RingJob& job,
      uint64_t* written)
      : device_(device), buffer_(buffer), memory_(memory), job_(job), written_(*written) {}

  Result<double> Measure() {
    const int64_t began_ns = MonotonicNs();
    for (uint32_t i = 0; i < job_.depth; ++i) {
      trips_.emplace_back();
      trips_.back().run = this;
      Submit(trips_.back());
    }
    device_.Flush();
    while (flying_ > 0) {
      pollfd event{.fd = device_.event_fd(), .events = POLLIN, .revents = 0};
      static_cast<void>(poll(&event, 1, kAwaitMs));
      device_.Poll();
    }
    if (!status_.ok()) return status_;
    const auto seconds = static_cast<double>(MonotonicNs() - began_ns) / kNsPerSecond;
    return static_cast<double>(moved_) / seconds;
  }

 private:
  struct Trip : IoRequest {
    Run* run = nullptr;
  };

  void Submit(Trip& trip) {
    if (!status_.ok() || begun_ >= job_.io_bytes) return;
    const uint64_t blocks = job_.range_bytes / job_.block_bytes;
    uint8_t* const memory = memory_.data() + begun_ / job_.block_bytes %
                                                 (memory_.size() / job_.block_bytes) *
                                                 job_.block_bytes;
    if (job_.kind == IoKind::kRead) {
      trip.PrepareRead(random_.Below(blocks) * job_.block_bytes, memory, job_.block_bytes, buffer_);
    } else {
      trip.PrepareWrite(written_++ % blocks * job_.block_bytes, memory, job_.block_bytes, buffer_);
    }
    trip.OnDone([](IoRequest& request) { static_cast<Trip&>(request).run->Done(request); },
                IoClass::kDeadline);
    status_ = device_.Submit(trip);
    if (!status_.ok()) return;
    begun_ += job_.block_bytes;
    ++flying_;
  }

  void Done(IoRequest& request) {
    --flying_;
    if (!request.status().ok()) {
      status_ = request.status();
      return;
    }
    moved_ += request.bytes();
    Submit(static_cast<Trip&>(request));
  }

  BlockDevice& device_;
  const BufferId buffer_;
  const std::span<uint8_t> memory_;
  const RingJob job_;
  uint64_t& written_;
  std::deque<Trip> trips_;
  Random random_{7};
  uint64_t begun_ = 0, moved_ = 0;
  uint32_t flying_ = 0;
  Status status_;
};

}  // namespace

Result<Ring> Ring::Open(const std::string& file, uint64_t memory_bytes) {
  struct stat found {};
  if (stat(file.c_str(), &found) != 0) return ErrnoStatus("stat " + file, errno);
  Ring ring;
  ring.clock_ = std::make_unique<SystemClock>();
  Result<MemoryFile> memory = MemoryFile::Create("terrace-bench-ring", memory_bytes, {});
  if (!memory.ok()) return memory.status();
  ring.memory_ = *std::move(memory);
  // Nothing that a device, or who stands in for one, could take for a single page.
  Random random(13);
  auto* const words = reinterpret_cast<uint64_t*>(ring.memory_.mapping().writable_data());
  for (uint64_t i = 0; i < memory_bytes / sizeof(uint64_t); ++i) words[i] = random.Next();

  OpenOptions options;
  options.files.paths = {file};
  options.files.capacity_bytes = static_cast<uint64_t>(found.st_size);
  options.files.stripe_bytes = options.files.capacity_bytes;  // no request is cut
  options.buffer_count = 1;
  Result<OpenedDevice> opened = OpenDevice(options, *ring.clock_);
  if (!opened.ok()) return opened.status();
  ring.device_ = std::move(opened->device);
  const Result<BufferId> buffer =
      ring.device_->RegisterBuffer(ring.memory_.mapping().writable_data(), memory_bytes);
  if (!buffer.ok()) return buffer.status();
  ring.buffer_ = *buffer;
  return ring;
}

Ring::~Ring() {
  if (device_ != nullptr) device_->Drain();
}

Result<double> Ring::Run(const RingJob& job) {
  IoBudgets budgets;
  budgets.read_bytes = job.depth * job.block_bytes;
  budgets.write_depth = job.depth;
  budgets.write_piece_bytes = std::max<uint64_t>(job.block_bytes, budgets.write_piece_bytes);
  budgets.read_quiet_ns = 0;
  device_->SetBudgets(budgets);
  return terrace::Run(*device_, buffer_, {memory_.mapping().writable_data(), memory_.bytes()}, job,
                      &written_)
      .Measure();
}

}  // namespace terrace
