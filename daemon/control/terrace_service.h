#pragma once

// The bootstrap capability of one connection, and the Admin capability.
//
// Threads: the control thread.

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "daemon/control/session_service.h"
#include "daemon/control/status_json.h"

namespace terrace {

struct Peer {
  uid_t uid = 0;
  int pid = 0;
  UniqueFd pidfd;
  std::string tenant;  // empty: admitted to none
};

struct ServiceContext {
  Shard& shard;
  std::map<std::string, std::unique_ptr<MessageChunks>> chunks;  // by tenant
  StatusContext status;
};

class TerraceService final : public CountedServer<rpc::Terrace> {
 public:
  TerraceService(ServiceContext& context, Peer peer, std::shared_ptr<ConnectionLoad> load)
      : CountedServer(std::move(load)), context_(context), peer_(std::move(peer)) {}

 protected:
  kj::Promise<void> open(OpenContext context) override;
  kj::Promise<void> status(StatusContext context) override;
  kj::Promise<void> admin(AdminContext context) override;

 private:
  ServiceContext& context_;
  Peer peer_;
  std::optional<rpc::Admin::Client> admin_;  // one a connection, however often it is asked for
};

}  // namespace terrace
