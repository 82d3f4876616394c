#pragma once

// Puts and gets with the bytes in the message: the control thread as a client of the shard, with
// pins of its own in daemon memory and claims in segments that no client can write.  Copies run a
// chunk a turn of the event loop, so that no call holds the others up for long.
//
// What a call holds (pins, claims) is given back on the shard's thread however the call ends, also
// when its promise is dropped.
//
// Threads: the control thread; members say where the shard's thread comes in.  The shard must have
// stopped before this goes.

#include <kj/async.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "daemon/control/connection_load.h"
#include "daemon/session/shard.h"
#include "proto/terrace.capnp.h"

namespace terrace {

class MessageChunks {
 public:
  // REQUIRES: called before the shard starts.
  MessageChunks(Shard& shard, std::string tenant);

  using PutContext = capnp::CallContext<rpc::Session::PutParams, rpc::Session::PutResults>;
  using GetContext = capnp::CallContext<rpc::Session::GetParams, rpc::Session::GetResults>;
  using PrefetchContext =
      capnp::CallContext<rpc::Session::PrefetchParams, rpc::Session::PrefetchResults>;
  using MatchContext = capnp::CallContext<rpc::Session::MatchParams, rpc::Session::MatchResults>;

  // Both throw, naming the limit, when the call or the connection carries too much; answers that
  // the client has not read count.  Get serves only bytes that their leaf table describes: a chunk
  // that is damaged is dropped, so that the next put heals it.  What the index says is too much is
  // refused before any of it is loaded.  Its promise may be cancelled, and Prefetch's.
  kj::Promise<void> Put(PutContext context, std::shared_ptr<ConnectionLoad> load);
  kj::Promise<void> Get(GetContext context, std::shared_ptr<ConnectionLoad> load);
  // Brings what is on NVMe into DRAM; one code a key, in order.
  kj::Promise<kj::Own<std::vector<StatusCode>>> Prefetch(PrefetchContext context,
                                                         std::shared_ptr<ConnectionLoad> load);
  // Looks at the index itself, as any client does; of an ended namespace id all is absent.
  void Match(MatchContext context);

  const std::string& tenant() const { return tenant_; }
  // Calls that copy now.
  uint32_t copying() const { return copying_; }

 private:
  struct PutState;
  struct Fetch;
  struct GetState;

  // On the shard's thread.
  void Claim(PutState& put, int64_t deadline_ns);
  void Commit(PutState& put);
  uint64_t Weigh(Fetch& fetch) const;
  bool Awaits(Fetch& fetch);
  bool Ripe(Fetch& fetch, bool expired);
  Result<ReadyChunk> FindFetched(Fetch& fetch, size_t index, std::atomic<uint64_t>* pin);
  bool Look(GetState& get, bool expired);
  void Drop(uint32_t namespace_id, const shm::ChunkKey& key, const shm::Location& location);
  std::atomic<uint64_t>* TakePin(std::vector<uint32_t>* held);
  void Unpin(const std::vector<uint32_t>& held);

  bool IsLive(uint32_t namespace_id) const;
  shm::Look LookAt(uint32_t namespace_id, const shm::ChunkKey& key, shm::Found* found) const;
  static std::shared_ptr<Fetch> BeginFetch(ConnectionLoad& load, uint32_t namespace_id,
                                           capnp::List<rpc::Key>::Reader keys);
  // Into `into`, checked; false when it is damaged.
  static bool CopyOut(const GetState& get, size_t index, kj::byte* into);

  // Counts `bytes` and one copying call until the answer is dropped.
  auto Charge(std::shared_ptr<ConnectionLoad> load, uint64_t bytes);

  // Constant after construction.
  Shard& shard_;
  const std::string tenant_;
  ChunkStore& store_;  // used on the shard's thread
  std::unique_ptr<std::atomic<uint64_t>[]> pins_;
  SessionId session_ = 0;
  shm::IndexView index_;
  // Owned by the shard's thread.
  std::vector<uint32_t> free_pins_;
  // Owned by the control thread.
  uint32_t copying_ = 0;
};

}  // namespace terrace
