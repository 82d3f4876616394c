#include "daemon/control/session_service.h"

#include <kj/debug.h>

#include <cstring>
#include <set>

#include "daemon/control/convert.h"
#include "daemon/control/on_shard.h"
#include "storage/base/clock.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

// A capability that is nothing but a descriptor.
class DescriptorService final : public rpc::Descriptor::Server {
 public:
  explicit DescriptorService(UniqueFd fd) : fd_(std::move(fd)) {}
  kj::Maybe<int> getFd() override { return fd_.get(); }

 private:
  UniqueFd fd_;
};

rpc::Descriptor::Client Send(UniqueFd fd) { return kj::heap<DescriptorService>(std::move(fd)); }

struct SegmentsReply {
  uint64_t epoch = 0;
  bool more = false;
  std::vector<std::pair<SegmentDescriptor, UniqueFd>> segments;
};

using Known = std::set<std::tuple<uint32_t, bool, uint64_t>>;

Known ParseKnown(capnp::Data::Reader bytes) {
  constexpr size_t kEntryBytes = 16;
  Known known;
  for (size_t at = 0; at + kEntryBytes <= bytes.size(); at += kEntryBytes) {
    uint32_t segment = 0, writable = 0;
    uint64_t generation = 0;
    std::memcpy(&segment, bytes.begin() + at, 4);
    std::memcpy(&writable, bytes.begin() + at + 4, 4);
    std::memcpy(&generation, bytes.begin() + at + 8, 8);
    known.emplace(segment, writable != 0, generation);
  }
  return known;
}

// On the shard: answers when there is something the client does not know, else waits on.
void LookForSegments(Shard& shard, const std::string& tenant, SessionId session, uint64_t epoch,
                     const Known& known, const Reply<SegmentsReply>& reply) {
  ChunkStore& store = *shard.store(tenant);
  SegmentsReply out;
  out.epoch = store.descriptor_epoch();
  for (const SegmentDescriptor& segment : store.Descriptors(session)) {
    if (known.contains({segment.segment, segment.writable, segment.generation})) continue;
    if (out.segments.size() == kDescriptorsPerMessageMax) {
      out.more = true;
      break;
    }
    Result<UniqueFd> fd = store.OpenSegment(session, segment);
    if (fd.ok()) out.segments.emplace_back(segment, *std::move(fd));
  }
  if (!out.segments.empty() || out.epoch != epoch) return reply.Fulfill(std::move(out));
  shard.WaitDescriptors(tenant, epoch, [&shard, tenant, session, epoch, known, reply] {
    LookForSegments(shard, tenant, session, epoch, known, reply);
  });
}

}  // namespace

SessionService::~SessionService() noexcept(false) {
  shard_.Post([&shard = shard_, session = session_] { shard.CloseSession(session); });
}

kj::Promise<void> SessionService::attach(AttachContext context) {
  using Attached = Result<SessionDescriptors>;
  return OnShard<Attached>(shard_, [this]() -> Attached { return shard_.Attach(session_); })
      .then([context](kj::Own<Attached> attached) mutable {
        auto results = context.getResults();
        ToRpc(attached->status(), results.initStatus());
        if (!attached->ok()) return;
        SessionDescriptors& descriptors = **attached;
        results.setIndex(Send(std::move(descriptors.index)));
        results.setIndexBytes(descriptors.index_bytes);
        results.setMemory(Send(std::move(descriptors.memory)));
        results.setMemoryBytes(descriptors.memory_bytes);
        results.setDoorbell(Send(std::move(descriptors.doorbell)));
      });
}

kj::Promise<void> SessionService::segments(SegmentsContext context) {
  const auto params = context.getParams();
  Known known = ParseKnown(params.getKnown());
  const uint64_t epoch = params.getEpoch();
  context.releaseParams();
  using Found = SegmentsReply;
  return OnShardLater<Found>(shard_,
                             [&shard = shard_, tenant = chunks_.tenant(), session = session_, epoch,
                              known = std::move(known)](const Reply<Found>& reply) {
                               LookForSegments(shard, tenant, session, epoch, known, reply);
                             })
      .then([context](kj::Own<Found> found) mutable {
        auto results = context.getResults();
        results.setEpoch(found->epoch);
        results.setMore(found->more);
        auto list = results.initSegments(static_cast<uint32_t>(found->segments.size()));
        for (uint32_t i = 0; i < list.size(); ++i) {
          auto& [segment, fd] = found->segments[i];
          list[i].setSegment(segment.segment);
          list[i].setGeneration(segment.generation);
          list[i].setBytes(segment.bytes);
          list[i].setWritable(segment.writable);
          list[i].setDescriptor(Send(std::move(fd)));
        }
      });
}

kj::Promise<void> SessionService::registerNamespace(RegisterNamespaceContext context) {
  using Registered = Result<NamespaceInfo>;
  return OnShard<Registered>(shard_,
                             [this, spec = FromRpc(context.getParams().getSpec())]() {
                               return shard_.store(chunks_.tenant())->RegisterNamespace(spec);
                             })
      .then([context](kj::Own<Registered> registered) mutable {
        ToRpc(registered->status(), context.getResults().initStatus());
        if (registered->ok()) ToRpc(**registered, context.getResults().initInfo());
      });
}

kj::Promise<void> SessionService::put(PutContext context) {
  const uint64_t bytes = context.getParams().totalSize().wordCount * sizeof(capnp::word);
  KJ_REQUIRE(bytes <= kMessagePayloadBytesMax + 64 * kKiB,
             "a put carries at most 32 MiB of payload: send fewer chunks a call", bytes);
  KJ_REQUIRE(load_->bytes + bytes <= kConnectionPayloadBytesMax + 256 * kKiB,
             "a connection has at most 64 MiB of payload in flight: wait for earlier calls");
  load_->bytes += bytes;
  return chunks_.Put(context).attach(kj::defer([load = load_, bytes] { load->bytes -= bytes; }));
}

kj::Promise<void> SessionService::match(MatchContext context) {
  chunks_.Match(context);
  return kj::READY_NOW;
}

kj::Promise<void> SessionService::get(GetContext context) {
  // What it will weigh is known only when found; a message never carries more than this.
  KJ_REQUIRE(load_->bytes + kMessagePayloadBytesMax <= kConnectionPayloadBytesMax + 256 * kKiB,
             "a connection has at most 64 MiB of payload in flight: wait for earlier calls");
  load_->bytes += kMessagePayloadBytesMax;
  return chunks_.Get(context).attach(
      kj::defer([load = load_] { load->bytes -= kMessagePayloadBytesMax; }));
}

kj::Promise<kj::Own<std::vector<StatusCode>>> SessionService::EachKey(
    capnp::List<rpc::Key>::Reader keys,
    std::function<StatusCode(ChunkStore&, const shm::ChunkKey&)> act) {
  KJ_REQUIRE(keys.size() <= kBatchKeysMax, "a call names at most 256 keys", keys.size());
  std::vector<shm::ChunkKey> converted;
  for (const auto key : keys) converted.push_back(FromRpc(key));
  return OnShard<std::vector<StatusCode>>(
      shard_, [this, converted = std::move(converted), act = std::move(act)]() {
        std::vector<StatusCode> codes;
        for (const shm::ChunkKey& key : converted) {
          codes.push_back(key.valid() ? act(*shard_.store(chunks_.tenant()), key)
                                      : StatusCode::kInvalid);
        }
        return codes;
      });
}

namespace {

template <typename Context>
auto Answer(Context context) {
  return [context](kj::Own<std::vector<StatusCode>> found) mutable {
    auto codes = context.getResults().initCodes(static_cast<uint32_t>(found->size()));
    for (uint32_t i = 0; i < codes.size(); ++i) codes.set(i, ToRpc((*found)[i]));
  };
}

}  // namespace

kj::Promise<void> SessionService::prefetch(PrefetchContext context) {
  const uint32_t id = context.getParams().getNamespaceId();
  return EachKey(context.getParams().getKeys(),
                 [id](ChunkStore& store, const shm::ChunkKey& key) {
                   const Result<ReadyChunk> found = store.Find(id, key);
                   return found.ok() ? StatusCode::kOk : found.status().code();
                 })
      .then(Answer(context));
}

kj::Promise<void> SessionService::remove(RemoveContext context) {
  const uint32_t id = context.getParams().getNamespaceId();
  return EachKey(
             context.getParams().getKeys(),
             [id](ChunkStore& store, const shm::ChunkKey& key) { return store.Remove(id, key); })
      .then(Answer(context));
}

kj::Promise<void> SessionService::lease(LeaseContext context) {
  const uint32_t id = context.getParams().getNamespaceId();
  constexpr uint64_t kYearMs = uint64_t{365} * 86400 * 1000;
  const auto ttl_ms = static_cast<int64_t>(std::min(context.getParams().getTtlMs(), kYearMs));
  return EachKey(context.getParams().getKeys(),
                 [id, ttl_ms](ChunkStore& store, const shm::ChunkKey& key) {
                   return store.Lease(id, key, MonotonicNs() + ttl_ms * kNsPerMs);
                 })
      .then(Answer(context));
}

}  // namespace terrace
