#pragma once

// The begin and the end of the stores' NVMe tiers, which the daemon waits for; in between the
// shard's loop serves them.  All tiers go on at once, and one time bounds them together.
//
// Threads: who owns the stores.  Each blocks, with a bound.

#include <cstdint>
#include <functional>
#include <span>

#include "storage/base/status.h"
#include "storage/engine/chunk_store.h"
#include "storage/io/block_device.h"

namespace terrace {

struct NvmeLife {
  BlockDevice* device = nullptr;
  ChunkStore* store = nullptr;
};

// Until what the devices hold is known, or `until_ns`: who has not answered by then is off.
// `go_on`, where given, is asked ten times a second or more: kCancelled once it says no.
Status StartNvme(std::span<const NvmeLife> tiers, int64_t until_ns,
                 const std::function<bool()>& go_on);

// Measures how many reads in flight the device is fastest with, and lets it have those; for
// `time_ns_max`, and half a second for what the start may still write.  Reads what is there: where
// that is little, the device keeps the budgets that it has.
void TuneNvme(const NvmeLife& tier, int64_t time_ns_max);

// Writes out what waits, and seals; says in the log who was not done at `until_ns`.
void DrainNvme(std::span<const NvmeLife> tiers, int64_t until_ns);

// Takes back what is outstanding in the devices.  False when one still holds something at
// `until_ns`: neither it nor its store may be destroyed then.
bool QuietNvme(std::span<const NvmeLife> tiers, int64_t until_ns);

}  // namespace terrace
