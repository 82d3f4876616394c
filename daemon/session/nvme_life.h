#pragma once

// The begin and the end of a store's NVMe tier, which the daemon waits for; in between the shard's
// loop serves it.
//
// Threads: who owns the store.  Each blocks, with a bound.

#include "storage/base/status.h"
#include "storage/engine/chunk_store.h"
#include "storage/io/block_device.h"

namespace terrace {

// Until what the device holds is known, a minute at most.  kDenied and kInvalid, naming the tenant,
// for a device that holds something else; any other failure turns the tier off, which is Ok.
Status StartNvme(const BlockDevice& device, ChunkStore& store);

// Measures how many reads in flight the device is fastest with, and lets it have those; for
// `time_ns_max`, and half a second for what the start may still write.  Reads what is there: where
// that is little, the device keeps the budgets that it has.
void TuneNvme(BlockDevice& device, ChunkStore& store, int64_t time_ns_max);

// Writes out what waits, and seals; ten seconds at most.
void DrainNvme(const BlockDevice& device, ChunkStore& store);

}  // namespace terrace
