#pragma once

// Threads: one owner.

#include <poll.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "storage/io/open_device.h"
#include "storage/tier/log_verify.h"
#include "storage/tier/segment_log.h"
#include "tests/storage/tier/log_machine.h"

namespace terrace {

// A log on a file, driven as a loop would: by its device's eventfd and by time.
class FileLog {
 public:
  FileLog(const std::string& path, uint64_t bytes, DeviceMode mode,
          const SegmentLogOptions& options = TestOptions())
      : memory_(SegmentLog::MemoryBytes(options)), into_(16 * kMiB + kPageBytes) {
    OpenOptions open;
    open.files.paths = {path};
    open.files.capacity_bytes = bytes;
    open.files.stripe_bytes = options.segment_bytes;
    open.best = mode;
    Result<OpenedDevice> opened = OpenDevice(open, clock_);
    TERRACE_CHECK(opened.ok());
    device_ = std::move(opened->device);
    Result<std::unique_ptr<SegmentLog>> log = SegmentLog::Create(*device_, options, memory_.span());
    TERRACE_CHECK(log.ok());
    log_ = *std::move(log);
  }
  ~FileLog() {
    device_->Drain();
    log_.reset();
  }

  void RunUntil(const std::function<bool()>& done) {
    while (!done()) {
      log_->Poll(clock_.NowNs());
      if (done()) return;
      const int64_t wait_ns =
          std::clamp<int64_t>(log_->next_wake_ns() - clock_.NowNs(), 0, 10 * kNsPerMs);
      pollfd event{.fd = device_->event_fd(), .events = POLLIN, .revents = 0};
      poll(&event, 1, static_cast<int>((wait_ns + kNsPerMs - 1) / kNsPerMs));
      device_->Poll();
    }
  }

  Status Start() {
    std::optional<Status> done;
    log_->Open([&](const Status& status) { done = status; });
    RunUntil([&] { return done.has_value(); });
    if (!done->ok()) return *done;
    done.reset();
    log_->Recover([this](const RecoveredRecord& record) { recovered.push_back(record); },
                  [&](const Status& status) { done = status; });
    RunUntil([&] { return done.has_value(); });
    return *done;
  }

  Status Get(const TestChunk& chunk, const LogPlace& place) {
    const uint64_t bytes = shm::RecordBytes(chunk.payload.size());
    std::optional<Status> done;
    const LogRead read{.place = place, .bytes = bytes, .into = into_.data()};
    Status begun = log_->Read(
        read, [&](const Status& status) { done = status; }, clock_.NowNs());
    if (!begun.ok()) return begun;
    RunUntil([&] { return done.has_value(); });
    if (!done->ok()) return *done;
    Status valid = VerifyRecord({into_.data(), bytes}, chunk.identity, place);
    if (!valid.ok()) return valid;
    TERRACE_CHECK(std::memcmp(into_.data() + sizeof(shm::RecordHeader), chunk.payload.data(),
                              chunk.payload.size()) == 0);
    return valid;
  }

  SegmentLog& log() { return *log_; }
  BlockDevice& device() { return *device_; }
  int64_t now() const { return clock_.NowNs(); }

  std::vector<RecoveredRecord> recovered;

 private:
  SystemClock clock_;
  AlignedBytes memory_, into_;
  std::unique_ptr<BlockDevice> device_;
  std::unique_ptr<SegmentLog> log_;
};

}  // namespace terrace
