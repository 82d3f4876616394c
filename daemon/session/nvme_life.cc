#include "daemon/session/nvme_life.h"

#include <poll.h>

#include <algorithm>
#include <string>
#include <vector>

#include "storage/base/clock.h"
#include "storage/base/log.h"

namespace terrace {
namespace {

constexpr int64_t kWaitMsMax = 100;

// Until a device has something to say, or a store wants to be called.
void Await(std::span<const NvmeLife> tiers, int64_t until_ns) {
  const int64_t now_ns = MonotonicNs();
  int64_t wait_ns = std::min(until_ns - now_ns, kWaitMsMax * kNsPerMs);
  std::vector<pollfd> readable;
  for (const NvmeLife& tier : tiers) {
    readable.push_back({.fd = tier.device->event_fd(), .events = POLLIN, .revents = 0});
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
