#pragma once

// Puts and gets with the bytes in the message: the control thread as a client of the shard, with
// pins of its own in daemon memory and claims in segments that no client can write.  Copies run a
// chunk a turn of the event loop, so that no call holds the others up for long.
//
// Threads: the control thread.

#include <kj/async.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "daemon/session/shard.h"
#include "proto/terrace.capnp.h"

namespace terrace {

class MessageChunks {
 public:
  // REQUIRES: called before the shard starts.
  MessageChunks(Shard& shard, std::string tenant);

  using PutContext = capnp::CallContext<rpc::Session::PutParams, rpc::Session::PutResults>;
  using GetContext = capnp::CallContext<rpc::Session::GetParams, rpc::Session::GetResults>;
  using MatchContext = capnp::CallContext<rpc::Session::MatchParams, rpc::Session::MatchResults>;

  kj::Promise<void> Put(PutContext context);
  kj::Promise<void> Get(GetContext context);
  // Looks at the index itself, as any client does.
  void Match(MatchContext context);

  const std::string& tenant() const { return tenant_; }

 private:
  struct PutState;
  struct GetState;

  // Constant after construction.
  Shard& shard_;
  const std::string tenant_;
  std::unique_ptr<std::atomic<uint64_t>[]> pins_;
  SessionId session_ = 0;
  shm::IndexView index_;
  // Owned by the control thread.
  std::vector<uint32_t> free_pins_;
};

}  // namespace terrace
