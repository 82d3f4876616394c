#include "daemon/session/nvme_life.h"

#include <poll.h>

#include <algorithm>

#include "storage/base/clock.h"
#include "storage/base/log.h"
#include "storage/io/tune_budgets.h"
#include "storage/mem/memory_file.h"
#include "storage/mem/populator.h"

namespace terrace {
namespace {

// A device that has not answered by then is broken: what it should have held is missed, not waited
// for.
constexpr int64_t kStartNsMax = 60 * kNsPerSecond;
constexpr int64_t kDrainNsMax = 10 * kNsPerSecond;
constexpr int64_t kWaitMsMax = 100;
constexpr int64_t kQuietNsMax = 500 * kNsPerMs;
// Less than the device's own memory or the host's would answer from there.
constexpr uint64_t kTuneBytesMin = 64 * kMiB;
constexpr uint64_t kTuneMemoryBytes = 18 * kMiB;
// Shorter tells noise.
constexpr int64_t kTuneNsMin = 50 * kNsPerMs;

// Until the device has something to say, or the store wants to be called.
void Await(const BlockDevice& device, const ChunkStore& store) {
  const int64_t wake_ns = store.NvmeWake();
  int64_t wait_ms = kWaitMsMax;
  if (wake_ns != 0) {
    wait_ms = std::clamp<int64_t>((wake_ns - MonotonicNs()) / kNsPerMs, 0, kWaitMsMax);
  }
  pollfd readable{.fd = device.event_fd(), .events = POLLIN, .revents = 0};
  static_cast<void>(poll(&readable, 1, static_cast<int>(wait_ms)));  // whatever it says, we look
}

}  // namespace

Status StartNvme(const BlockDevice& device, ChunkStore& store) {
  const int64_t until_ns = MonotonicNs() + kStartNsMax;
  for (;;) {
    store.PollNvme(MonotonicNs());
    if (store.NvmeStarted() || MonotonicNs() >= until_ns) break;
    Await(device, store);
  }
  store.GiveUpNvme(Status(StatusCode::kDeadline, "the device did not answer for a minute"));
  const Status& why_off = store.nvme_why_off();
  if (why_off.code() != StatusCode::kDenied && why_off.code() != StatusCode::kInvalid) {
    return Status::Ok();
  }
  return Status(why_off.code(), "nvme of tenant '" + store.options().tenant +
                                    "': " + why_off.message() + ": name another path");
}

void TuneNvme(BlockDevice& device, ChunkStore& store, int64_t time_ns_max) {
  const SegmentLog::Written written = store.NvmeWritten();
  if (written.bytes < kTuneBytesMin || time_ns_max < kTuneNsMin) return;
  const int64_t until_ns = MonotonicNs() + kQuietNsMax;
  while (device.stats().queued + device.stats().operations != 0) {
    if (MonotonicNs() >= until_ns) return;
    Await(device, store);
    store.PollNvme(MonotonicNs());
  }
  // On the pages that reads will meet: they decide the speed.
  const Result<MemoryFile> memory =
      MemoryFile::Create("terrace-tune", kTuneMemoryBytes, store.options().memory);
  if (!memory.ok() || !PopulateNow(memory->mapping().writable_data(), kTuneMemoryBytes).ok())
    return;
  const TuneOptions options{.offset = written.offset,
                            .bytes = written.bytes,
                            .memory = memory->mapping().writable_data(),
                            .memory_bytes = kTuneMemoryBytes,
                            .time_ns_max = time_ns_max};
  const SystemClock clock;
  const Result<IoBudgets> tuned = TuneBudgets(device, options, clock);
  const std::string of = "nvme of tenant '" + store.options().tenant + "': ";
  if (!tuned.ok()) return LogWarning(of + "measuring it: " + tuned.status().ToString());
  LogInfo(of + "fastest with " + std::to_string(tuned->read_bytes / kKiB) +
          " KiB of reads in flight");
}

void DrainNvme(const BlockDevice& device, ChunkStore& store) {
  const int64_t until_ns = MonotonicNs() + kDrainNsMax;
  while (!store.DrainNvme(MonotonicNs())) {
    if (MonotonicNs() >= until_ns) {
      return LogWarning("tenant '" + store.options().tenant +
                        "': not all that waited to be written is on NVMe");
    }
    Await(device, store);
  }
}

}  // namespace terrace
