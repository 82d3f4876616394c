#pragma once

// The bytes of a simulated disk, as its reader sees them and as a power loss would leave them.  It
// outlives the SimDevices opened on it, as a disk outlives its daemon.
//
// Threads: one owner.

#include <array>
#include <cstdint>
#include <random>
#include <unordered_map>
#include <vector>

#include "storage/base/limits.h"

namespace terrace {

// Chances in a thousand.
struct SimFaults {
  // Of each operation.
  uint32_t short_transfer = 0;
  uint32_t read_error = 0;   // EIO
  uint32_t write_error = 0;  // EIO, and half of it may have happened
  uint32_t sync_error = 0;   // EIO, and nothing became durable
  uint32_t full = 0;         // a write's ENOSPC
  uint32_t again = 0;        // EAGAIN or EINTR
  uint32_t stale = 0;        // the completion comes twice
  uint32_t slow = 0;
  uint32_t rot = 0;                // a read finds a bit flipped, and so do all later ones
  uint32_t misdirected_write = 0;  // it lands on other pages
  uint32_t dropped_write = 0;      // it says Ok and never happened
  // Of each write without a later sync, at a power loss.
  uint32_t lost = 500;
  uint32_t torn = 250;  // some of its sectors made it

  int64_t latency_ns_min = 50 * 1000;
  int64_t latency_ns_max = 500 * 1000;
  int64_t slow_ns = 50 * 1000 * 1000;

  // Each fault absent or present with a weight of its own: one seed meets few faults, but often.
  static SimFaults Swarm(uint64_t seed);
};

// What really happened, for a test to compare with what was noticed.
struct SimInjected {
  uint64_t short_transfers = 0, read_errors = 0, write_errors = 0, sync_errors = 0, full = 0;
  uint64_t again = 0, stale = 0, slow = 0, rotten_bits = 0, misdirected = 0, dropped = 0;
  uint64_t lost = 0, torn = 0;
};

class SimMedium {
 public:
  static constexpr uint64_t kSectorBytes = 512;

  // `bytes` of zeroes.
  SimMedium(uint64_t bytes, uint64_t seed) : bytes_(bytes), end_(bytes), random_(seed) {}

  uint64_t bytes() const { return bytes_; }
  // Where reads end early and writes no longer go: a file that shrank.
  uint64_t end() const { return end_; }
  void Shrink(uint64_t end) { end_ = end; }

  void Read(uint64_t offset, uint8_t* into, uint64_t bytes) const;
  // Any length; seen by reads at once, durable once synced.
  void Write(uint64_t offset, const uint8_t* from, uint64_t bytes);
  // Names the writes so far, for SyncUntil.
  uint64_t write_count() const { return write_count_; }
  // The first `count` writes are durable.
  void SyncUntil(uint64_t count);
  // For good, under every sync.
  void FlipBit(uint64_t offset, uint32_t bit);

  // The power fails: of the writes that no sync covers some are lost, some torn.
  void LosePower(const SimFaults& faults, SimInjected& injected);

  uint64_t Random() { return random_(); }
  bool Chance(uint32_t in_a_thousand) { return Random() % 1000 < in_a_thousand; }

 private:
  using Page = std::array<uint8_t, kPageBytes>;
  using Pages = std::unordered_map<uint64_t, Page>;
  struct Unsynced {
    uint64_t number = 0;  // write_count_ when it came
    uint64_t offset = 0;
    std::vector<uint8_t> data;
  };

  static void Apply(Pages& pages, uint64_t offset, const uint8_t* from, uint64_t bytes);

  const uint64_t bytes_;
  uint64_t end_;
  std::mt19937_64 random_;
  Pages seen_;
  Pages durable_;
  std::vector<Unsynced> unsynced_;  // in order
  uint64_t write_count_ = 0;
};

}  // namespace terrace
