#pragma once

// The shard: the one thread that owns every tenant's ChunkStore and serves the sessions' rings.
// Other threads reach it by values: Post runs a function on it and returns at once.
//
// While there is work it polls the rings (up to 50 us past the last entry), then it tells the
// clients that it sleeps and waits for doorbells, deaths and its timer.  It never waits for a
// client, never writes a descriptor whose flags a client shares, and trusts no word that a client
// can write.  When a tenant's puts find no room because of pins, its log names the session that
// pins most segments, at most once a minute.
//
// Threads: Start, Stop and Post from any thread; the rest on the shard's thread, by Post.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/limits.h"
#include "storage/base/result.h"
#include "storage/engine/chunk_store.h"
#include "storage/io/block_device.h"

namespace terrace {

struct ShardOptions {
  std::vector<ChunkStoreOptions> tenants;
  // By tenant; who is not in it has no NVMe tier.
  std::map<std::string, std::unique_ptr<BlockDevice>> nvme;
  uint32_t session_count_max = kSessionCountMax;
  // Asked ten times a second or more while Create waits for devices; false ends it.  May be null.
  std::function<bool()> go_on;
  // Of all devices together.  One that has not answered by then is broken: what it should have held
  // is missed, not waited for.
  int64_t nvme_start_ns = 60 * kNsPerSecond;
  int64_t nvme_drain_ns = 10 * kNsPerSecond;  // for what waits to be written
  int64_t nvme_quiet_ns = 2 * kNsPerSecond;   // more, for what a device has begun
};

// What a local client needs to attach.
struct SessionDescriptors {
  UniqueFd index;  // read-only
  uint64_t index_bytes = 0;
  UniqueFd memory;  // the session's own, writable
  uint64_t memory_bytes = 0;
  UniqueFd doorbell;  // the client's end: one byte, MSG_DONTWAIT, wakes the shard
};

struct SessionRequest {
  std::string tenant;
  std::string client_name;
  int pid = 0;
  UniqueFd pidfd;  // invalid: only the doorbell tells of the process' end
  // What the session takes from elsewhere: it goes with the session, on the shard's thread.
  std::shared_ptr<void> hold = nullptr;
};

struct SessionSummary {
  SessionId session = 0;
  std::string tenant, client_name;
  int pid = 0;
  bool closed = false;  // its connection is gone, its process alive
  uint64_t requests = 0, touches_dropped = 0;
  uint32_t pins = 0, claims = 0, pinned_segments = 0;
  uint64_t stranded_bytes = 0;
};

class Shard {
 public:
  // Blocks while what the tenants' devices hold is found, a minute at most.  Any failure of a
  // device turns that tier off, and the tenant is served from DRAM.  kCancelled when `go_on` said
  // no.
  static Result<std::unique_ptr<Shard>> Create(ShardOptions options);
  // Leaves devices and stores to the end of the process where a device hangs (`hung`).
  ~Shard();

  void Start();

  // Completes what waits with kUnavailable, marks every session closed, writes out to NVMe what
  // waits for it (10 s at most, all tenants together), ends the thread.
  void Stop();

  // After Stop: a device does not end what it began.  The process should be left without waiting.
  bool hung() const;

  // Runs `work` on the shard's thread, in order.  After Stop it is dropped, not run.  Between one
  // and the next the rings are served: long work posts itself in slices.
  void Post(std::function<void()> work);

  // -- On the shard's thread only ----------------------------------------------------------------

  // kBusy at the tenant's share of the sessions, all of them parted equally; kNotFound for an
  // unknown tenant.
  Result<SessionId> OpenSession(SessionRequest request);
  // REQUIRES: the session is open.
  Result<SessionDescriptors> Attach(SessionId session);
  // The connection ended.
  void CloseSession(SessionId session);

  // A session of the daemon's own, without rings.  `pins` lives as long as the shard.
  SessionId OpenTrustedSession(std::string_view tenant, std::atomic<uint64_t>* pins,
                               uint32_t pin_count);

  ChunkStore* store(std::string_view tenant);  // null: no such tenant
  std::vector<std::string> tenants() const;
  std::vector<SessionSummary> sessions() const;

  // Names a wait, for CancelWait; 0: nothing waits.
  using WaitId = uint64_t;

  // Calls `look` now, and again whenever a filling key of the tenant settled, until it answers
  // true; with `expired` set once `deadline_ns` has passed, and never after that.
  WaitId WaitSettled(std::string_view tenant, int64_t deadline_ns,
                     std::function<bool(bool expired)> look);
  // Calls `changed` once the tenant's descriptor epoch is not `epoch`, or `deadline_ns` (0: none)
  // has passed.
  WaitId WaitDescriptors(std::string_view tenant, uint64_t epoch, int64_t deadline_ns,
                         std::function<void()> changed);
  // Its function is dropped, not called; nothing happens when the wait is over.
  void CancelWait(WaitId wait);

 private:
  class Impl;
  explicit Shard(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace terrace
