#include "daemon/control/session_service.h"

#include <kj/debug.h>

#include <cstring>
#include <set>
#include <utility>

#include "daemon/control/convert.h"
#include "daemon/control/on_shard.h"
#include "daemon/control/utf8.h"
#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/base/log.h"

namespace terrace {
namespace {

// A capability that is nothing but a descriptor.
class DescriptorService final : public rpc::Descriptor::Server {
 public:
  DescriptorService(UniqueFd fd, Bound::Hold hold) : fd_(std::move(fd)), hold_(std::move(hold)) {}
  kj::Maybe<int> getFd() override { return fd_.get(); }

 private:
  UniqueFd fd_;
  const Bound::Hold hold_;
};

rpc::Descriptor::Client Send(UniqueFd fd, const Bound::Hold& hold) {
  return kj::heap<DescriptorService>(std::move(fd), hold);
}

// A hold of many goes with the last of them: of a message's descriptors a client lets go together.
Bound::Hold HoldDescriptors(ConnectionLoad& load, size_t count) {
  Bound::Hold hold = load.descriptors.Take(static_cast<uint32_t>(count));
  KJ_REQUIRE(hold != nullptr,
             "a connection holds at most 512 descriptors: release those that have come");
  return hold;
}

// A client needs one; the rest is for a new poll that overtakes an old one.
constexpr uint32_t kSegmentPollsMax = 4;
constexpr size_t kKnownEntryBytes = 16;
// Each segment as it is and, read-only before its lease, as it was.
constexpr size_t kKnownBytesMax = 2 * kSegmentCountMax * kKnownEntryBytes;
// How long a poll waits when a descriptor cannot be had.
constexpr int64_t kOpenRetryNs = 100 * kNsPerMs;

struct SegmentsReply {
  uint64_t epoch = 0;
  bool more = false;
  std::vector<std::pair<SegmentDescriptor, UniqueFd>> segments;
};

using Known = std::set<std::tuple<uint32_t, bool, uint64_t>>;

Known ParseKnown(capnp::Data::Reader bytes) {
  Known known;
  for (size_t at = 0; at + kKnownEntryBytes <= bytes.size(); at += kKnownEntryBytes) {
    uint32_t segment = 0, writable = 0;
    uint64_t generation = 0;
    std::memcpy(&segment, bytes.begin() + at, 4);
    std::memcpy(&writable, bytes.begin() + at + 4, 4);
    std::memcpy(&generation, bytes.begin() + at + 8, 8);
    known.emplace(segment, writable != 0, generation);
  }
  return known;
}

// One long poll.  `wait` is the shard's: what is waited for now.
struct SegmentsPoll {
  std::string tenant;
  SessionId session = 0;
  uint64_t epoch = 0;
  Known known;
  Shard::WaitId wait = 0;
  bool failed = false;  // to open a descriptor, and the log says so
};

// On the shard: answers when there is something the client does not know, else waits on.  While a
// descriptor cannot be had, the client hears of no new epoch, and so asks again.
void LookForSegments(Shard& shard, const std::shared_ptr<SegmentsPoll>& poll,
                     const Reply<SegmentsReply>& reply) {
  ChunkStore& store = *shard.store(poll->tenant);
  const uint64_t epoch = store.descriptor_epoch();
  Status opened = Status::Ok();
  SegmentsReply out;
  for (const SegmentDescriptor& segment : store.Descriptors(poll->session)) {
    if (poll->known.contains({segment.segment, segment.writable, segment.generation})) continue;
    if (out.segments.size() == kDescriptorsPerMessageMax) {
      out.more = true;
      break;
    }
    Result<UniqueFd> fd = store.OpenSegment(poll->session, segment);
    if (fd.ok()) {
      out.segments.emplace_back(segment, *std::move(fd));
    } else {
      opened = fd.status();
    }
  }
  if (!opened.ok() && !std::exchange(poll->failed, true)) {
    LogWarning("session " + std::to_string(poll->session) +
               " waits for a segment: " + std::string(opened.message()));
  }
  out.epoch = opened.ok() ? epoch : poll->epoch;
  if (!out.segments.empty() || out.epoch != poll->epoch) return reply.Fulfill(std::move(out));
  poll->wait =
      shard.WaitDescriptors(poll->tenant, epoch, opened.ok() ? 0 : MonotonicNs() + kOpenRetryNs,
                            [&shard, poll, reply] { LookForSegments(shard, poll, reply); });
}

// Others read them, in status() and listNamespaces().
Status CheckTexts(const NamespaceSpec& spec) {
  for (const std::string* text :
       {&spec.label, &spec.model, &spec.weights_digest, &spec.dtype, &spec.layout,
        &spec.hash_algorithm, &spec.hash_seed, &spec.engine_build, &spec.isa, &spec.salt}) {
    if (IsUtf8(*text)) continue;
    return Status(StatusCode::kInvalid,
                  "a namespace's texts are UTF-8: '" + ToUtf8(*text, 64) + "' is not");
  }
  return Status::Ok();
}

}  // namespace

SessionService::~SessionService() noexcept(false) {
  shard_.Post([&shard = shard_, session = session_] { shard.CloseSession(session); });
}

kj::Promise<void> SessionService::attach(AttachContext context) {
  using Attached = Result<SessionDescriptors>;
  return OnShard<Attached>(
             shard_,
             [&shard = shard_, session = session_]() -> Attached { return shard.Attach(session); })
      .then([context, load = load_](kj::Own<Attached> attached) mutable {
        auto results = context.getResults();
        ToRpc(attached->status(), results.initStatus());
        if (!attached->ok()) return;
        SessionDescriptors& descriptors = **attached;
        const Bound::Hold hold = HoldDescriptors(*load, 3);
        results.setIndex(Send(std::move(descriptors.index), hold));
        results.setIndexBytes(descriptors.index_bytes);
        results.setMemory(Send(std::move(descriptors.memory), hold));
        results.setMemoryBytes(descriptors.memory_bytes);
        results.setDoorbell(Send(std::move(descriptors.doorbell), hold));
      });
}

kj::Promise<void> SessionService::segments(SegmentsContext context) {
  KJ_REQUIRE(*polls_ < kSegmentPollsMax, "a session has at most 4 calls of segments() waiting");
  const capnp::Data::Reader known = context.getParams().getKnown();
  KJ_REQUIRE(known.size() <= kKnownBytesMax, "`known` lists at most 8192 segments", known.size());
  ++*polls_;
  auto poll = std::make_shared<SegmentsPoll>();
  poll->tenant = chunks_.tenant();
  poll->session = session_;
  poll->epoch = context.getParams().getEpoch();
  poll->known = ParseKnown(known);
  context.releaseParams();
  context.allowCancellation();
  // However the call ends: nothing may wait for who has gone.
  auto end = kj::defer([&shard = shard_, polls = polls_, poll]() {
    --*polls;
    shard.Post([&shard, poll] { shard.CancelWait(poll->wait); });
  });
  using Found = SegmentsReply;
  return OnShardLater<Found>(shard_,
                             [&shard = shard_, poll](const Reply<Found>& reply) {
                               LookForSegments(shard, poll, reply);
                             })
      .then([context, load = load_](kj::Own<Found> found) mutable {
        const Bound::Hold hold = HoldDescriptors(*load, found->segments.size());
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
          list[i].setDescriptor(Send(std::move(fd), hold));
        }
      })
      .attach(kj::mv(end));
}

kj::Promise<void> SessionService::registerNamespace(RegisterNamespaceContext context) {
  using Registered = Result<NamespaceInfo>;
  NamespaceSpec spec = FromRpc(context.getParams().getSpec());
  const Status readable = CheckTexts(spec);
  if (!readable.ok()) {
    ToRpc(readable, context.getResults().initStatus());
    return kj::READY_NOW;
  }
  return OnShard<Registered>(
             shard_,
             [&shard = shard_, tenant = chunks_.tenant(), spec = std::move(spec)]() {
               return shard.store(tenant)->RegisterNamespace(spec);
             })
      .then([context](kj::Own<Registered> registered) mutable {
        ToRpc(registered->status(), context.getResults().initStatus());
        if (registered->ok()) ToRpc(**registered, context.getResults().initInfo());
      });
}

kj::Promise<void> SessionService::put(PutContext context) { return chunks_.Put(context, load_); }

kj::Promise<void> SessionService::match(MatchContext context) {
  chunks_.Match(context);
  return kj::READY_NOW;
}

kj::Promise<void> SessionService::get(GetContext context) { return chunks_.Get(context, load_); }

kj::Promise<kj::Own<std::vector<StatusCode>>> SessionService::EachKey(
    capnp::List<rpc::Key>::Reader keys,
    std::function<StatusCode(ChunkStore&, const shm::ChunkKey&)> act) {
  KJ_REQUIRE(keys.size() <= kBatchKeysMax, "a call names at most 256 keys", keys.size());
  std::vector<shm::ChunkKey> converted;
  for (const auto key : keys) converted.push_back(FromRpc(key));
  return OnShard<std::vector<StatusCode>>(
      shard_, [&shard = shard_, tenant = chunks_.tenant(), converted = std::move(converted),
               act = std::move(act)]() {
        ChunkStore& store = *shard.store(tenant);
        std::vector<StatusCode> codes;
        for (const shm::ChunkKey& key : converted) {
          codes.push_back(key.valid() ? act(store, key) : StatusCode::kInvalid);
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
  return chunks_.Prefetch(context, load_).then(Answer(context));
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
