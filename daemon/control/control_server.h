#pragma once

// The control plane: Cap'n Proto RPC on a Unix socket, on a kj event loop of one thread.  It opens
// sessions for who connects, hands descriptors over, and serves the flows with the bytes in the
// message as a client of the shard: its own pins, its own copying.  It keeps no chunk state.
//
// Threads: Start and Stop from the main thread; all else on the control thread.

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "daemon/history/chunk_archive.h"
#include "daemon/session/shard.h"
#include "storage/base/fd.h"
#include "storage/base/result.h"

namespace terrace {

struct TenantAdmission {
  std::string name;
  std::vector<uid_t> uids;  // who belongs to it
};

struct ControlOptions {
  std::string socket;  // path
  uint32_t socket_mode = 0600;
  std::vector<TenantAdmission> tenants;
  uint64_t boot_epoch = 0;
  std::string version;
  // Why chunks left before this life of the daemon; null: nobody knows.  Outlives the server.
  const ChunkArchive* archive = nullptr;
};

class ControlServer {
 public:
  // Binds the socket, which must not exist.  `shard` outlives the server, and has stopped before
  // the server goes: what it still has to run for a call refers to the server.
  static Result<std::unique_ptr<ControlServer>> Create(ControlOptions options, Shard& shard);
  ~ControlServer();

  void Start();
  // Accepts no more, lets calls that copy end (4 s at most), ends the connections.  The socket's
  // file is removed first.
  void Stop();

 private:
  class Impl;
  explicit ControlServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace terrace
