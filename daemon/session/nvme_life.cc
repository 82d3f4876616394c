#include "daemon/session/nvme_life.h"

#include <poll.h>

#include <algorithm>
#include <string>
#include <vector>

#include "storage/base/clock.h"
#include "storage/base/log.h"
#include "storage/io/tune_budgets.h"
#include "storage/mem/memory_file.h"
#include "storage/mem/populator.h"

namespace terrace {
namespace {

constexpr int64_t kWaitMsMax = 100;
constexpr int64_t kQuietNsMax = 500 * kNsPerMs;
// Less than the device's own memory or the host's would answer from there.
constexpr uint64_t kTuneBytesMin = 64 * kMiB;
constexpr uint64_t kTuneMemoryBytes = 18 * kMiB;
// Shorter tells noise.
constexpr int64_t kTuneNsMin = 50 * kNsPerMs;

// Until a device has something to say, or a store wants to be called.
void Await(std::span<const NvmeLife> tiers, int64_t until_ns) {
  const int64_t now_ns = MonotonicNs();
  int64_t wait_ns = std::min(until_ns - now_ns, kWaitMsMax * kNsPerMs);
  std::vector<pollfd> readable;
  for (const NvmeLife& tier : tiers) {
    readable.push_back({.fd = tier.device->event_fd(), .events = POLLIN, .revents = 0});
    // Negative where there is none, and passed over then.
    readable.push_back({.fd = tier.store->codec_event_fd(), .events = POLLIN, .revents = 0});
    const int64_t wake_ns = tier.store->NvmeWake();
    if (wake_ns != 0) wait_ns = std::min(wait_ns, wake_ns - now_ns);
  }
  const int64_t wait_ms = std::max<int64_t>(wait_ns, 0) / kNsPerMs;
  // Whatever it says, we look.
  static_cast<void>(poll(readable.data(), readable.size(), static_cast<int>(wait_ms)));
}

}  // namespace

Status StartNvme(std::span<const NvmeLife> tiers, int64_t until_ns,
                 const std::function<bool()>& go_on) {
  for (;;) {
    bool started = true;
    for (const NvmeLife& tier : tiers) {
      tier.store->PollNvme(MonotonicNs());
      started &= tier.store->NvmeStarted();
    }
    if (started || MonotonicNs() >= until_ns) break;
    if (go_on && !go_on()) return Status(StatusCode::kCancelled, "the start was broken off");
    Await(tiers, until_ns);
  }
  for (const NvmeLife& tier : tiers) {
    tier.store->GiveUpNvme(Status(StatusCode::kDeadline, "the device did not answer in time"));
    const Status& why_off = tier.store->nvme_why_off();
    if (why_off.ok()) continue;
    LogError("nvme of tenant '" + tier.store->options().tenant + "': " + why_off.message() +
             ": served from memory alone");
  }
  return Status::Ok();
}

void DrainNvme(std::span<const NvmeLife> tiers, int64_t until_ns) {
  std::vector<NvmeLife> left(tiers.begin(), tiers.end());
  for (;;) {
    std::erase_if(left, [](const NvmeLife& tier) { return tier.store->DrainNvme(MonotonicNs()); });
    if (left.empty() || MonotonicNs() >= until_ns) break;
    Await(left, until_ns);
  }
  for (const NvmeLife& tier : left) {
    LogWarning("tenant '" + tier.store->options().tenant +
               "': not all that waited to be written is on NVMe");
  }
}

void TuneNvme(const NvmeLife& tier, int64_t time_ns_max) {
  BlockDevice& device = *tier.device;
  ChunkStore& store = *tier.store;
  const SegmentLog::Written written = store.NvmeWritten();
  if (written.bytes < kTuneBytesMin || time_ns_max < kTuneNsMin) return;
  const int64_t until_ns = MonotonicNs() + kQuietNsMax;
  while (device.stats().queued + device.stats().operations != 0) {
    if (MonotonicNs() >= until_ns) return;
    Await(std::span(&tier, 1), until_ns);
    store.PollNvme(MonotonicNs());
  }
  // On the pages that reads will meet: they decide the speed.
  Result<MemoryFile> memory =
      MemoryFile::Create("terrace-tune", kTuneMemoryBytes, store.options().memory);
  if (!memory.ok()) return;
  if (!PopulateNow(memory->mapping().writable_data(), kTuneMemoryBytes).ok()) return;
  const TuneOptions options{.offset = written.offset,
                            .bytes = written.bytes,
                            .memory = memory->mapping().writable_data(),
                            .memory_bytes = kTuneMemoryBytes,
                            .time_ns_max = time_ns_max};
  const SystemClock clock;
  const Result<IoBudgets> tuned = TuneBudgets(device, options, clock);
  const std::string of = "nvme of tenant '" + store.options().tenant + "': ";
  if (tuned.ok()) {
    return LogInfo(of + "fastest with " + std::to_string(tuned->read_bytes / kKiB) +
                   " KiB of reads in flight");
  }
  LogWarning(of + "measuring it: " + tuned.status().ToString());
  if (tuned.status().code() == StatusCode::kDeadline) {  // the device has it
    static_cast<void>(std::make_unique<MemoryFile>(*std::move(memory)).release());
  }
}

bool QuietNvme(std::span<const NvmeLife> tiers, int64_t until_ns) {
  bool quiet = true;
  for (const NvmeLife& tier : tiers) {
    if (tier.device->DrainUntil(until_ns)) continue;
    quiet = false;
    LogError("tenant '" + tier.store->options().tenant +
             "': its NVMe device does not end what it began: " + tier.device->Describe());
  }
  return quiet;
}

}  // namespace terrace
