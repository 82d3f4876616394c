#pragma once

// The shard: the one thread that owns every tenant's ChunkStore and serves the sessions' rings.
// Other threads reach it by values: Post runs a function on it and returns at once.
//
// While there is work it polls the rings (20-50 us past the last entry), then it tells the clients
// that it sleeps and waits for doorbells, process deaths and its timer.  It never waits for a
// client, never writes a descriptor whose flags a client shares, and trusts no word that a client
// can write.
//
// Threads: Start, Stop and Post from any thread; everything that Post runs, on the shard's thread.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "storage/base/fd.h"
#include "storage/base/result.h"
#include "storage/engine/chunk_store.h"

namespace terrace {

struct ShardOptions {
  std::vector<ChunkStoreOptions> tenants;
  uint32_t session_count_max = kSessionCountMax;
};

// What a local client needs to attach.
struct SessionDescriptors {
  SessionId session = 0;
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
  UniqueFd pidfd;  // invalid: the end of the connection counts as the process' death
};

struct SessionSummary {
  SessionId session = 0;
  std::string tenant, client_name;
  int pid = 0;
  bool closed = false;  // connection gone, process alive
  uint64_t requests = 0, pins = 0, claims = 0, stranded_bytes = 0, touches_dropped = 0;
};

class Shard {
 public:
  static Result<std::unique_ptr<Shard>> Create(ShardOptions options);
  virtual ~Shard() = default;

  virtual void Start() = 0;
  // Serves what was submitted until `deadline_ns`, completes the rest with kUnavailable, ends.
  virtual void Stop(int64_t deadline_ns) = 0;

  // Runs `work` on the shard's thread, in order.  After Stop it is dropped, not run.
  virtual void Post(std::function<void()> work) = 0;

  // -- On the shard's thread only ---------------------------------------------------------------
  virtual Result<SessionDescriptors> OpenSession(SessionRequest request) = 0;
  virtual void CloseSession(SessionId session) = 0;        // the connection ended
  virtual ChunkStore* store(std::string_view tenant) = 0;  // null: no such tenant
  virtual std::vector<SessionSummary> sessions() const = 0;
  // A session of the daemon's own (no rings): for calls with the bytes in the message.
  virtual Result<SessionId> OpenTrustedSession(std::string_view tenant, std::atomic<uint64_t>* pins,
                                               uint32_t pin_count) = 0;
  // Calls `look` again on the shard's thread whenever a filling key of the tenant settled or
  // `deadline_ns` passed, until it answers true.
  virtual void WaitSettled(std::string_view tenant, int64_t deadline_ns,
                           std::function<bool(bool expired)> look) = 0;
  // Calls `changed` once, when the tenant's descriptor epoch is not `epoch` (perhaps at once).
  virtual void WaitDescriptors(std::string_view tenant, uint64_t epoch,
                               std::function<void()> changed) = 0;
};

}  // namespace terrace
