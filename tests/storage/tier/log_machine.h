#pragma once

// One life of a machine with a segment log on a simulated disk: opens it, waits for it, and knows
// which bytes every key has.  The disk outlives it.
//
// Threads: one owner.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "storage/tier/segment_log.h"
#include "tests/storage/io/sim_device.h"

namespace terrace {

// A chunk whose bytes follow from its number alone.
struct TestChunk {
  RecordIdentity identity;
  std::vector<uint8_t> payload;
  shm::RecordHeader header;  // without a place
};
TestChunk ChunkOf(uint32_t number, uint32_t payload_bytes, uint32_t namespace_id = 1);
// Of a key that ChunkOf made.
uint32_t NumberOf(const shm::ChunkKey& key);

inline constexpr uint64_t kTestSegmentBytes = 2 * kMiB;

// 2 MiB segments and write buffers of 64 KiB.
SegmentLogOptions TestOptions();
// Bytes of a disk with that many segments of 2 MiB.
uint64_t TestDiskBytes(uint32_t segments);

class LogMachine {
 public:
  LogMachine(SimMedium& medium, SimClock& clock, const SegmentLogOptions& options = TestOptions(),
             const SimFaults& faults = SimFaults());
  // Ends as a daemon does that was asked to: nothing is lost.
  ~LogMachine();

  Status Open();
  // Open, then Recover: what the log holds is in `recovered`.
  Status Start();
  Status ReplaceNamespaces(std::vector<std::string> blobs);
  // Appends and waits.
  Status Put(const TestChunk& chunk, uint32_t reuse_class = 0);
  // Appends; `done` says what became of it.
  Status Append(const TestChunk& chunk, uint32_t reuse_class, LogAppendDone done,
                bool urgent = false);
  // Reads and verifies the whole record: kOk only for the chunk's own bytes.
  Status Get(const TestChunk& chunk, const LogPlace& place);
  Status Get(const TestChunk& chunk) { return Get(chunk, places.at(NumberOf(chunk.identity.key))); }

  // Lets one thing happen: an operation ends, or time passes until the log wakes.  False when
  // nothing is left to happen.
  bool Step();
  // Steps until `done`, or until nothing is left to happen.
  void RunUntil(const std::function<bool()>& done);
  void RunUntilIdle();
  void LosePower();

  SegmentLog& log() { return *log_; }
  SimDevice& device() { return *device_; }
  SimClock& clock() { return clock_; }
  int64_t now() const { return clock_.NowNs(); }
  uint64_t steps() const { return steps_; }
  // From then on nothing happens any more: what waits answers kUnavailable.
  void StopAt(uint64_t steps) { stop_at_ = steps; }
  bool stopped() const { return steps_ >= stop_at_; }

  std::map<uint32_t, LogPlace> places;  // by number, of done appends
  std::vector<RecoveredRecord> recovered;

 private:
  SimClock& clock_;
  std::unique_ptr<SimDevice> device_;
  AlignedBytes memory_;
  AlignedBytes into_;
  std::unique_ptr<SegmentLog> log_;
  bool dead_ = false;
  uint64_t steps_ = 0, stop_at_ = UINT64_MAX;
};

}  // namespace terrace
