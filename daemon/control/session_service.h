#pragma once

// The Session capability: what one client may do.  It ends with its last reference.
//
// Threads: the control thread.

#include <memory>

#include "daemon/control/message_chunks.h"
#include "daemon/session/shard.h"
#include "proto/terrace.capnp.h"

namespace terrace {

class SessionService final : public CountedServer<rpc::Session> {
 public:
  SessionService(Shard& shard, MessageChunks& chunks, SessionId session,
                 std::shared_ptr<ConnectionLoad> load)
      : CountedServer(std::move(load)), shard_(shard), chunks_(chunks), session_(session) {}
  ~SessionService() noexcept(false);

 protected:
  kj::Promise<void> attach(AttachContext context) override;
  kj::Promise<void> segments(SegmentsContext context) override;
  kj::Promise<void> registerNamespace(RegisterNamespaceContext context) override;
  kj::Promise<void> put(PutContext context) override;
  kj::Promise<void> match(MatchContext context) override;
  kj::Promise<void> get(GetContext context) override;
  kj::Promise<void> prefetch(PrefetchContext context) override;
  kj::Promise<void> persist(PersistContext context) override;
  kj::Promise<void> remove(RemoveContext context) override;
  kj::Promise<void> lease(LeaseContext context) override;

 private:
  kj::Promise<kj::Own<std::vector<StatusCode>>> EachKey(
      capnp::List<rpc::Key>::Reader keys,
      std::function<StatusCode(ChunkStore&, const shm::ChunkKey&)> act);

  Shard& shard_;
  MessageChunks& chunks_;
  const SessionId session_;
  // Calls of segments() that wait.
  std::shared_ptr<uint32_t> polls_ = std::make_shared<uint32_t>(0);
};

}  // namespace terrace
