#pragma once

// What `terrace bench nvme` has a daemon do: gets of chunks that lie on NVMe and nowhere else, and
// puts that are written behind.
//
// Threads: main; each starts and joins its own.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "bench/payloads.h"
#include "client/core/client.h"

namespace terrace {

// Of the first tenant's NVMe tier.
struct NvmeNumbers {
  double demoted = 0, demoted_bytes = 0, demote_queue = 0, demoting = 0, loads = 0, load_bytes = 0;
  double written_bytes = 0, reclaims = 0;
  double dram_moved = 0;  // survivors that reclaim of DRAM copied
};
NvmeNumbers ReadNvmeNumbers(Client& client);

// Numbered chunks of one length, asked for in an order of their own, again and again.
class ChunkSet {
 public:
  ChunkSet(uint64_t first, uint64_t count, uint32_t payload_bytes);

  uint64_t first() const { return first_; }
  uint64_t count() const { return order_.size(); }
  uint32_t payload_bytes() const { return payload_bytes_; }
  // The number that comes next.  Safe from any thread.
  uint64_t Next() { return order_[next_.fetch_add(1) % order_.size()]; }

 private:
  uint64_t first_;
  uint32_t payload_bytes_;
  std::vector<uint64_t> order_;
  std::atomic<uint64_t> next_{0};
};

// How many gets wait at once: `calls` threads, each with `keys` in a call.
struct GetDepth {
  uint32_t calls = 1, keys = 1;
};

struct Gotten {
  uint64_t chunks = 0;  // that came
  uint64_t missed = 0;  // and those that did not
  uint64_t wrong_bytes = 0;
  double chunks_per_s = 0;
};

// Gets `count` chunks that a match says are on NVMe alone.  `read`: each byte is compared.
Gotten GetFromNvme(Namespace& ns, const Payloads& payloads, ChunkSet& set, GetDepth depth,
                   uint64_t count, bool read);

class Putter {
 public:
  // Chunks of `payload_bytes`, numbered from `first` on; puts of Fill and WriteUntil wait while
  // more than `queue_max`, a sixth of the pool, wait to be written.
  Putter(Client& client, Namespace& ns, const Payloads& payloads, uint64_t first,
         uint32_t payload_bytes, uint32_t queue_max);

  // Puts bursts of half a pool, and measures how what then waits is written, until `count` were;
  // answers how many a second.  Nothing waits afterwards.
  double Write(uint64_t count);
  // The same until `stop`.
  void WriteUntil(const std::atomic<bool>& stop);
  // Puts `set`, each chunk once.
  void Fill(const ChunkSet& set);
  // Removes what Write and WriteUntil put: its segments hold nothing then that reclaim would weigh
  // against chunks that are read.
  void Forget();
  // Until nothing waits to be written; false after a minute.
  bool AwaitWritten();

  uint64_t refused() const { return refused_; }

 private:
  void PutBatch(uint64_t first, uint32_t count, uint32_t bytes);
  NvmeNumbers AwaitQueue();

  Client& client_;
  Namespace& ns_;
  const Payloads& payloads_;
  uint64_t forgotten_, next_;  // the first number that was not removed, or not put
  const uint32_t payload_bytes_, queue_max_, burst_;
  double measured_ = 0;
  uint64_t refused_ = 0;
};

}  // namespace terrace
