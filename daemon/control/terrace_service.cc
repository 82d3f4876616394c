#include "daemon/control/terrace_service.h"

#include <unistd.h>

#include <utility>

#include "daemon/control/convert.h"
#include "daemon/control/on_shard.h"
#include "daemon/control/utf8.h"
#include "storage/base/clock.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

constexpr uint32_t kListMax = 4096;
constexpr size_t kClientNameBytesMax = 256;

// Two copies of a table are written and synced, after what is on its way.  Clients wait for 5 s:
// they hear of a table that takes longer, and not only that they waited in vain.
constexpr int64_t kBumpNsMax = 3 * kNsPerSecond;

// An epoch that has begun.
struct EpochBump {
  NamespaceInfo info;
  Status stored;  // whether a restart knows of it
};

// One clearing of a namespace.
struct Clearing {
  std::string tenant, label;
  uint64_t cursor = 0;
  uint64_t dropped = 0;
};

// On the shard: a slice of the index a turn, others' work between.
void ClearSlice(Shard& shard, const std::shared_ptr<Clearing>& clearing,
                const Reply<Result<uint64_t>>& reply) {
  const bool first = clearing->cursor == 0;
  const Result<uint64_t> dropped =
      shard.store(clearing->tenant)->ClearNamespace(clearing->label, &clearing->cursor);
  if (!dropped.ok() && first) return reply.Fulfill(dropped.status());
  // Once it is empty it may be forgotten before the last slice: then it is cleared.
  if (!dropped.ok()) return reply.Fulfill(clearing->dropped);
  clearing->dropped += *dropped;
  if (clearing->cursor == 0) return reply.Fulfill(clearing->dropped);
  shard.Post([&shard, clearing, reply] { ClearSlice(shard, clearing, reply); });
}

// Answers once no restart can bring the ended epoch back, or says that one still may.
void Bump(Shard& shard, const std::string& tenant, const std::string& label,
          const Reply<Result<EpochBump>>& reply) {
  ChunkStore& store = *shard.store(tenant);
  const Result<NamespaceInfo> bumped = store.BumpEpoch(label);
  if (!bumped.ok()) return reply.Fulfill(bumped.status());
  const uint64_t version = store.namespaces_version();
  shard.WaitSettled(tenant, MonotonicNs() + kBumpNsMax,
                    [&store, version, info = *bumped, reply](bool expired) {
                      Status stored = store.NamespacesStored(version);
                      if (stored.code() == StatusCode::kBusy && !expired) return false;
                      reply.Fulfill(EpochBump{.info = info, .stored = std::move(stored)});
                      return true;
                    });
}

class AdminService final : public CountedServer<rpc::Admin> {
 public:
  AdminService(Shard& shard, std::string tenant, std::shared_ptr<ConnectionLoad> load)
      : CountedServer(std::move(load)), shard_(shard), tenant_(std::move(tenant)) {}

 protected:
  kj::Promise<void> listNamespaces(ListNamespacesContext context) override {
    using Listed = std::vector<NamespaceInfo>;
    return OnShard<Listed>(
               shard_,
               [&shard = shard_, tenant = tenant_]() { return shard.store(tenant)->Namespaces(); })
        .then([context](kj::Own<Listed> listed) mutable {
          auto out = context.getResults().initNamespaces(static_cast<uint32_t>(listed->size()));
          for (uint32_t i = 0; i < out.size(); ++i) ToRpc((*listed)[i], out[i]);
        });
  }

  kj::Promise<void> clearNamespace(ClearNamespaceContext context) override {
    using Cleared = Result<uint64_t>;
    auto clearing = std::make_shared<Clearing>();
    clearing->tenant = tenant_;
    clearing->label = context.getParams().getLabel().cStr();
    return OnShardLater<Cleared>(shard_,
                                 [&shard = shard_, clearing](const Reply<Cleared>& reply) {
                                   ClearSlice(shard, clearing, reply);
                                 })
        .then([context](kj::Own<Cleared> cleared) mutable {
          ToRpc(cleared->status(), context.getResults().initStatus());
          if (cleared->ok()) context.getResults().setChunks(**cleared);
        });
  }

  kj::Promise<void> bumpEpoch(BumpEpochContext context) override {
    using Bumped = Result<EpochBump>;
    return OnShardLater<Bumped>(
               shard_, [&shard = shard_, tenant = tenant_,
                        label = std::string(context.getParams().getLabel().cStr())](
                           const Reply<Bumped>& reply) { Bump(shard, tenant, label, reply); })
        .then([context](kj::Own<Bumped> bumped) mutable {
          ToRpc(bumped->status(), context.getResults().initStatus());
          if (!bumped->ok()) return;
          ToRpc((*bumped)->info, context.getResults().initInfo());
          ToRpc((*bumped)->stored, context.getResults().initStored());
        });
  }

  kj::Promise<void> list(ListContext context) override {
    struct Listed {
      std::vector<ChunkInfo> chunks;
      uint64_t cursor = 0;
    };
    const uint64_t cursor = context.getParams().getCursor();
    const uint32_t limit = std::min(context.getParams().getLimit(), kListMax);
    return OnShard<Listed>(shard_,
                           [&shard = shard_, tenant = tenant_, cursor, limit]() {
                             Listed listed{.chunks = {}, .cursor = cursor};
                             listed.chunks =
                                 shard.store(tenant)->List(&listed.cursor, limit, MonotonicNs());
                             return listed;
                           })
        .then([context](kj::Own<Listed> listed) mutable {
          auto out = context.getResults().initChunks(static_cast<uint32_t>(listed->chunks.size()));
          for (uint32_t i = 0; i < out.size(); ++i) ToRpc(listed->chunks[i], out[i]);
          context.getResults().setCursor(listed->cursor);
        });
  }

  kj::Promise<void> describe(DescribeContext context) override {
    using Described = Result<ChunkInfo>;
    return OnShard<Described>(shard_,
                              [&shard = shard_, tenant = tenant_,
                               label = std::string(context.getParams().getLabel().cStr()),
                               key = FromRpc(context.getParams().getKey())]() {
                                ChunkStore& store = *shard.store(tenant);
                                const Result<NamespaceInfo> info = store.FindNamespace(label);
                                return info.ok() ? store.Describe(info->ref.id, key, MonotonicNs())
                                                 : Result<ChunkInfo>(info.status());
                              })
        .then([context](kj::Own<Described> described) mutable {
          ToRpc(described->status(), context.getResults().initStatus());
          if (described->ok()) ToRpc(**described, context.getResults().initInfo());
        });
  }

 private:
  Shard& shard_;
  const std::string tenant_;
};

// A session that has been opened, and is ended again when nobody takes it: who asked may have gone
// by the time of the answer.
class OpenedSession {
 public:
  OpenedSession(Shard& shard, Result<SessionId> id) : shard_(shard), id_(std::move(id)) {}
  OpenedSession(OpenedSession&& other) noexcept
      : shard_(other.shard_),
        id_(std::move(other.id_)),
        taken_(std::exchange(other.taken_, true)) {}
  ~OpenedSession() {
    if (taken_ || !id_.ok()) return;
    shard_.Post([&shard = shard_, id = *id_] { shard.CloseSession(id); });
  }

  const Result<SessionId>& id() const { return id_; }
  SessionId Take() {
    taken_ = true;
    return *id_;
  }

 private:
  Shard& shard_;
  Result<SessionId> id_;
  bool taken_ = false;
};

// Of status(): who is admitted to no tenant sees none; who runs the machine or the daemon sees all.
StatusView ViewOf(const Peer& peer) {
  const bool operates = peer.uid == 0 || peer.uid == geteuid();
  return {.all = operates && !peer.tenant.empty(), .tenant = peer.tenant};
}

Status NotAdmitted(const Peer& peer) {
  return Status(StatusCode::kDenied, "uid " + std::to_string(peer.uid) +
                                         " belongs to no tenant: name it under `uids` of one in "
                                         "the configuration");
}

}  // namespace

kj::Promise<void> TerraceService::open(OpenContext context) {
  if (peer_.tenant.empty()) {
    ToRpc(NotAdmitted(peer_), context.getResults().initStatus());
    return kj::READY_NOW;
  }
  Bound::Hold hold = load_->sessions.Take();
  if (hold == nullptr) {
    ToRpc(Status(StatusCode::kBusy, "a connection has at most 8 sessions: end one"),
          context.getResults().initStatus());
    return kj::READY_NOW;
  }
  auto request = std::make_shared<SessionRequest>();
  request->hold = std::move(hold);
  request->tenant = peer_.tenant;
  const capnp::Text::Reader name = context.getParams().getClientName();
  request->client_name = ToUtf8({name.begin(), name.size()}, kClientNameBytesMax);
  request->pid = peer_.pid;
  request->pidfd = peer_.pidfd.Duplicate();
  const bool shared_memory = context.getParams().getLayoutVersion() == shm::kSessionLayoutVersion;
  return OnShard<OpenedSession>(context_.shard,
                                [&shard = context_.shard, request]() {
                                  return OpenedSession(shard,
                                                       shard.OpenSession(std::move(*request)));
                                })
      .then([this, context, shared_memory](kj::Own<OpenedSession> opened) mutable {
        auto results = context.getResults();
        ToRpc(opened->id().status(), results.initStatus());
        if (!opened->id().ok()) return;
        const SessionId session = opened->Take();
        MessageChunks& chunks = *context_.chunks.at(peer_.tenant);
        results.setSession(kj::heap<SessionService>(context_.shard, chunks, session, load_));
        const ChunkStore& store = *context_.shard.store(peer_.tenant);
        auto info = results.initInfo();  // constants of the store
        info.setSessionId(session);
        info.setBootEpoch(context_.status.boot_epoch);
        info.setTenant(peer_.tenant.c_str());
        info.setChunkBytesMax(store.chunk_bytes_max());
        info.setSegmentBytes(store.options().segment_bytes);
        info.setSegmentCount(
            static_cast<uint32_t>(store.options().dram_bytes / store.options().segment_bytes));
        info.setSharedMemory(shared_memory);
        info.setDaemonVersion(context_.status.version.c_str());
      });
}

kj::Promise<void> TerraceService::status(StatusContext context) {
  return OnShard<std::string>(context_.shard,
                              [&at = context_, view = ViewOf(peer_)]() {
                                return StatusJson(at.status, view, at.shard);
                              })
      .then([context](kj::Own<std::string> json) mutable {
        context.getResults().setJson(json->c_str());
      });
}

kj::Promise<void> TerraceService::admin(AdminContext context) {
  if (peer_.tenant.empty()) {
    ToRpc(NotAdmitted(peer_), context.getResults().initStatus());
    return kj::READY_NOW;
  }
  ToRpc(Status::Ok(), context.getResults().initStatus());
  if (!admin_) admin_.emplace(kj::heap<AdminService>(context_.shard, peer_.tenant, load_));
  context.getResults().setAdmin(*admin_);
  return kj::READY_NOW;
}

}  // namespace terrace
