#pragma once

// A running daemon: archive, shard, control plane and their order of life.
//
// Threads: main.

#include <functional>
#include <memory>
#include <string>

#include "daemon/app/config.h"
#include "daemon/app/instance_lock.h"
#include "daemon/control/control_server.h"
#include "daemon/history/chunk_archive.h"
#include "daemon/session/shard.h"
#include "storage/base/clock.h"
#include "storage/engine/codec_pool.h"

namespace terrace {

class Daemon {
 public:
  // Fills in what the configuration leaves open, takes the socket, gets the memory, serves.
  // kCancelled once `go_on` says no; it is asked again and again while devices are waited for.
  static Result<std::unique_ptr<Daemon>> Start(Config config, const std::function<bool()>& go_on);
  ~Daemon();

  // Ends the connections, then the shard, then the archive.  False when a device hangs: leave the
  // process.
  bool Stop();

  // Puts what the NVMe logs have written on record; to be called now and then.
  void NoteWritten();

  const std::string& socket() const { return socket_; }
  // One line for the log.
  std::string Describe() const;

 private:
  explicit Daemon(InstanceLock lock) : lock_(std::move(lock)) {}

  InstanceLock lock_;
  const SystemClock clock_;
  std::string socket_;
  std::string memory_;  // of the pool, in words
  std::unique_ptr<ChunkArchive> archive_;
  std::unique_ptr<CodecPool> codec_;  // with an NVMe tier
  std::unique_ptr<Shard> shard_;
  std::unique_ptr<ControlServer> control_;
  bool stopped_ = false;
};

}  // namespace terrace
