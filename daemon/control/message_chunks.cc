#include "daemon/control/message_chunks.h"

#include <kj/debug.h>

#include <algorithm>
#include <functional>
#include <span>

#include "daemon/control/convert.h"
#include "daemon/control/on_shard.h"
#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/base/log.h"
#include "storage/mem/guarded_copy.h"
#include "storage/record/copy_hash.h"
#include "storage/record/record.h"

namespace terrace {
namespace {

int64_t DeadlineNs(uint32_t deadline_ms, int64_t default_ns) {
  const int64_t wanted_ns = deadline_ms == 0 ? default_ns : deadline_ms * kNsPerMs;
  return MonotonicNs() + std::min(wanted_ns, kRequestDeadlineNsMax);
}

// One step a turn of the loop, others' events between.
kj::Promise<void> InSlices(size_t at, size_t count, std::function<void(size_t)> step) {
  if (at == count) return kj::READY_NOW;
  step(at);
  return kj::evalLast([at, count, step = std::move(step)]() mutable {
    return InSlices(at + 1, count, std::move(step));
  });
}

}  // namespace

MessageChunks::MessageChunks(Shard& shard, std::string tenant)
    : shard_(shard),
      tenant_(std::move(tenant)),
      store_(*shard.store(tenant_)),
      pins_(std::make_unique<std::atomic<uint64_t>[]>(kPinCount)) {
  session_ = shard_.OpenTrustedSession(tenant_, pins_.get(), kPinCount);
  index_ = store_.index().view();
  for (uint32_t pin = 0; pin < kPinCount; ++pin) free_pins_.push_back(pin);
}

std::atomic<uint64_t>* MessageChunks::TakePin(std::vector<uint32_t>* held) {
  if (free_pins_.empty()) return nullptr;
  held->push_back(free_pins_.back());
  free_pins_.pop_back();
  return &pins_[held->back()];
}

void MessageChunks::Unpin(const std::vector<uint32_t>& held) {
  for (const uint32_t pin : held) {
    pins_[pin].store(0, std::memory_order_release);
    free_pins_.push_back(pin);
  }
}

auto MessageChunks::Charge(std::shared_ptr<ConnectionLoad> load, uint64_t bytes) {
  KJ_REQUIRE(bytes <= kMessagePayloadBytesMax,
             "a message carries at most 32 MiB of payload: name fewer chunks a call", bytes);
  KJ_REQUIRE(load->payload_bytes + load->unread_bytes() + bytes <= kConnectionPayloadBytesMax,
             "a connection has at most 64 MiB of payload in flight: wait for earlier calls, and "
             "read their answers");
  load->payload_bytes += bytes;
  ++copying_;
  return kj::defer([this, load = std::move(load), bytes] {
    load->payload_bytes -= bytes;
    --copying_;
  });
}

// ------------------------------------------------------------------------------------- put

struct MessageChunks::PutState {
  uint32_t namespace_id = 0;
  std::vector<PutWant> wants;
  std::vector<const kj::byte*> payloads;  // in the message
  std::vector<PutGrant> grants;
  std::vector<std::byte*> records;  // null where nothing is to be filled
  std::vector<StatusCode> codes;
  std::vector<uint32_t> pins;
  std::vector<uint64_t> claims;  // open ones
};

// A claim whose deadline passes in the middle of the copy ends, and its segment may be replaced:
// the pin keeps our mapping of it where it is.
void MessageChunks::Claim(PutState& put, int64_t deadline_ns) {
  store_.BeginPut(session_, put.namespace_id, put.wants, deadline_ns, MonotonicNs(), put.grants);
  for (size_t i = 0; i < put.grants.size(); ++i) {
    PutGrant& grant = put.grants[i];
    if (grant.status != StatusCode::kOk) continue;
    put.claims.push_back(grant.claim);
    std::atomic<uint64_t>* pin = TakePin(&put.pins);
    put.records[i] = pin == nullptr ? nullptr : store_.Address(grant.location);
    if (put.records[i] == nullptr) {
      grant.status = StatusCode::kBusy;
      continue;
    }
    pin->store(shm::PinWord(grant.location), std::memory_order_seq_cst);
  }
}

void MessageChunks::Commit(PutState& put) {
  for (const PutGrant& grant : put.grants) {
    StatusCode code = grant.status;
    if (code == StatusCode::kOk) {
      store_.Commit(session_, std::span(&grant.claim, 1), MonotonicNs(), std::span(&code, 1));
      if (code == StatusCode::kOk) std::erase(put.claims, grant.claim);
    }
    put.codes.push_back(code);
  }
}

kj::Promise<void> MessageChunks::Put(PutContext context, std::shared_ptr<ConnectionLoad> load) {
  const auto params = context.getParams();
  const auto chunks = params.getChunks();
  KJ_REQUIRE(chunks.size() <= kBatchKeysMax, "a put carries at most 256 chunks", chunks.size());
  auto state = std::make_shared<PutState>();
  state->namespace_id = params.getNamespaceId();
  uint64_t bytes = 0;
  // Each payload is looked up once: looking costs the message's traversal limit.
  for (const auto chunk : chunks) {
    const capnp::Data::Reader data = chunk.getData();
    bytes += data.size();
    state->payloads.push_back(data.begin());
    state->wants.push_back(
        {.key = FromRpc(chunk.getKey()), .payload_bytes = static_cast<uint32_t>(data.size())});
  }
  auto charge = Charge(std::move(load), bytes);
  const size_t count = state->wants.size();
  state->grants.resize(count);
  state->records.resize(count);
  const int64_t deadline = DeadlineNs(params.getDeadlineMs(), kPutDeadlineNsDefault);
  auto end = kj::defer([this, state]() {
    shard_.Post([this, state] {
      store_.Abort(session_, state->claims);
      Unpin(state->pins);
    });
  });

  return OnShard<Done>(shard_,
                       [this, state, deadline]() {
                         Claim(*state, deadline);
                         return Done{};
                       })
      .then([state, count](kj::Own<Done>) {
        return InSlices(0, count, [state](size_t i) {
          if (state->records[i] == nullptr) return;
          const PutWant& want = state->wants[i];
          uint64_t leaves[shm::kLeafCountMax];
          CopyAndHash(state->records[i] + shm::kRecordHeaderBytes, state->payloads[i],
                      want.payload_bytes, leaves);
          BuildHeader({.key = want.key,
                       .namespace_id = state->namespace_id,
                       .payload_bytes = want.payload_bytes},
                      leaves, reinterpret_cast<shm::RecordHeader*>(state->records[i]));
        });
      })
      .then([this, state]() {
        return OnShard<Done>(shard_, [this, state]() {
          Commit(*state);
          return Done{};
        });
      })
      .then([state, context](kj::Own<Done>) mutable {
        auto codes = context.getResults().initCodes(static_cast<uint32_t>(state->codes.size()));
        for (uint32_t i = 0; i < codes.size(); ++i) codes.set(i, ToRpc(state->codes[i]));
      })
      .attach(kj::mv(end), kj::mv(charge));
}

// ------------------------------------------------------------------------------------- get

// Keys that a call waits for: those on NVMe, and those that are written when it asked for that.
struct MessageChunks::Fetch {
  struct Key {
    shm::ChunkKey key;
    // While it waits, and when it is not to be had: what the store said last.
    StatusCode code = StatusCode::kBusy;
    uint32_t bytes = 0;  // as the index says; 0: not known
  };
  uint32_t namespace_id = 0;
  LoadWish wish;
  bool wait_for_filling = false;
  std::vector<Key> keys;
  std::vector<size_t> pending;  // of the keys
  Bound::Hold waiting_keys;
  Shard::WaitId waiting = 0;

  // Its deadline has passed, or the shard ends: it may look, and starts nothing.
  bool Ends(bool expired) const { return expired || MonotonicNs() >= wish.deadline_ns; }
};

std::shared_ptr<MessageChunks::Fetch> MessageChunks::BeginFetch(
    ConnectionLoad& load, uint32_t namespace_id, capnp::List<rpc::Key>::Reader keys) {
  KJ_REQUIRE(keys.size() <= kBatchKeysMax, "a call names at most 256 keys", keys.size());
  auto fetch = std::make_shared<Fetch>();
  fetch->waiting_keys = load.waiting_keys.Take(keys.size());
  KJ_REQUIRE(fetch->waiting_keys != nullptr,
             "a connection waits for at most 16384 keys: wait for earlier calls");
  fetch->namespace_id = namespace_id;
  for (const auto key : keys) {
    fetch->keys.push_back({.key = FromRpc(key)});
    if (fetch->keys.back().key.valid()) {
      fetch->pending.push_back(fetch->keys.size() - 1);
    } else {
      fetch->keys.back().code = StatusCode::kInvalid;
    }
  }
  return fetch;
}

shm::Look MessageChunks::LookAt(uint32_t namespace_id, const shm::ChunkKey& key,
                                shm::Found* found) const {
  return shm::Find(index_, key, namespace_id, shm::KeyHash(key, namespace_id, index_.seed), found);
}

// What all of them carry, as far as the index knows.
uint64_t MessageChunks::Weigh(Fetch& fetch) const {
  for (const size_t i : fetch.pending) {
    shm::Found found;
    Fetch::Key& key = fetch.keys[i];
    const shm::Look look = LookAt(fetch.namespace_id, key.key, &found);
    if (look == shm::Look::kReady || look == shm::Look::kElsewhere) key.bytes = found.length;
  }
  uint64_t bytes = 0;
  for (const Fetch::Key& key : fetch.keys) bytes += key.bytes;
  return bytes;
}

// Starts the loads of all: what is on NVMe is read at once.  A key that was near once is waited for
// no more: when room is short, keys would drive each other out until the deadline.
bool MessageChunks::Awaits(Fetch& fetch) {
  std::erase_if(fetch.pending, [&](size_t i) {
    Fetch::Key& key = fetch.keys[i];
    shm::Found found;
    const shm::Look look = LookAt(fetch.namespace_id, key.key, &found);
    key.code = StatusCode::kBusy;
    if (look == shm::Look::kFilling) return !fetch.wait_for_filling;
    if (look != shm::Look::kElsewhere) return true;
    const Sought sought = store_.FindOrLoad(session_, fetch.namespace_id, key.key, nullptr,
                                            fetch.wish, MonotonicNs());
    key.code = sought.status;
    return !sought.loading;
  });
  return !fetch.pending.empty();
}

// True when the call may be answered.
bool MessageChunks::Ripe(Fetch& fetch, bool expired) {
  if (!fetch.Ends(expired) && Awaits(fetch)) return false;
  for (const size_t i : fetch.pending) fetch.keys[i].code = StatusCode::kDeadline;
  return true;
}

// Where a key is at last, pinned when there is a `pin`.  Sets its code.
Result<ReadyChunk> MessageChunks::FindFetched(Fetch& fetch, size_t index,
                                              std::atomic<uint64_t>* pin) {
  Fetch::Key& key = fetch.keys[index];
  const uint32_t id = fetch.namespace_id;
  Result<ReadyChunk> found =
      pin != nullptr ? store_.FindAndPin(session_, id, key.key, pin) : store_.Find(id, key.key);
  shm::Found where;
  const shm::Look look = LookAt(id, key.key, &where);
  const bool there = look == shm::Look::kElsewhere || look == shm::Look::kFilling;
  const StatusCode code = found.status().code();
  // Of what is there and not near, the wait has told why.
  if (found.ok() || code == StatusCode::kStale || !there) key.code = code;
  return found;
}

struct MessageChunks::GetState {
  struct Copy {
    shm::Location location = {};
    const std::byte* record = nullptr;
  };
  std::shared_ptr<Fetch> fetch;
  std::vector<Copy> copies;  // one a key
  std::vector<uint32_t> pins;
};

// Pins once nothing is awaited any more: a pin that is held
// through a wait would strand its segment, and our mapping of it would go.
bool MessageChunks::Look(GetState& get, bool expired) {
  Fetch& fetch = *get.fetch;
  if (!fetch.Ends(expired) && Weigh(fetch) > kMessagePayloadBytesMax) return true;  // see Charge
  if (!Ripe(fetch, expired)) return false;
  std::vector<uint64_t> touches;
  for (size_t i = 0; i < fetch.keys.size(); ++i) {
    Fetch::Key& key = fetch.keys[i];
    key.bytes = 0;
    if (!key.key.valid()) continue;
    std::atomic<uint64_t>* pin = TakePin(&get.pins);
    key.code = pin == nullptr ? StatusCode::kBusy : key.code;
    if (pin == nullptr) continue;
    const Result<ReadyChunk> found = FindFetched(fetch, i, pin);
    if (!found.ok()) continue;
    key.bytes = found->payload_bytes;
    get.copies[i] = {.location = found->location, .record = store_.Address(found->location)};
    touches.push_back(found->touch);
  }
  // Last first: a prefix outlives what hangs on it.
  for (auto touch = touches.rbegin(); touch != touches.rend(); ++touch) store_.Touch(*touch);
  return true;
}

bool MessageChunks::CopyOut(const GetState& get, size_t index, kj::byte* into) {
  const Fetch::Key& key = get.fetch->keys[index];
  const std::byte* const record = get.copies[index].record;
  shm::RecordHeader header;
  // Where the client that wrote it took its pages away, nothing can be read.
  if (!GuardedCopy(&header, record, sizeof header).ok()) return false;
  if (!GuardedCopy(into, record + shm::kRecordHeaderBytes, key.bytes).ok()) return false;
  const RecordIdentity identity{
      .key = key.key, .namespace_id = get.fetch->namespace_id, .payload_bytes = key.bytes};
  return ValidateHeader(header, identity).ok() &&
         VerifyPayload(into, key.bytes, header.leaves).ok();
}

// Unless another record has taken its place since.
void MessageChunks::Drop(uint32_t namespace_id, const shm::ChunkKey& key,
                         const shm::Location& location) {
  const Result<ReadyChunk> found = store_.Find(namespace_id, key);
  if (!found.ok() || found->location != location) return;
  LogWarning("a chunk of tenant '" + tenant_ + "' in segment " + std::to_string(location.segment) +
             " is damaged and dropped");
  if (store_.Remove(namespace_id, key) != StatusCode::kOk) LogDebug("it had gone already");
}

kj::Promise<void> MessageChunks::Get(GetContext context, std::shared_ptr<ConnectionLoad> load) {
  const auto params = context.getParams();
  const size_t count = params.getKeys().size();
  auto state = std::make_shared<GetState>();
  state->fetch = BeginFetch(*load, params.getNamespaceId(), params.getKeys());
  state->copies.resize(count);
  state->fetch->wait_for_filling = params.getWait();
  state->fetch->wish = {.io_class = IoClass::kDeadline,
                        .deadline_ns = DeadlineNs(params.getDeadlineMs(), kNsPerSecond)};
  context.releaseParams();
  context.allowCancellation();
  auto end = kj::defer([this, state]() {
    shard_.Post([this, state] {
      shard_.CancelWait(state->fetch->waiting);
      Unpin(state->pins);
    });
  });
  return OnShardLater<Done>(shard_,
                            [this, state](const Reply<Done>& reply) {
                              const auto look = [this, state, reply](bool expired) {
                                const bool done = Look(*state, expired);
                                if (done) reply.Fulfill(Done{});
                                return done;
                              };
                              Fetch& fetch = *state->fetch;
                              fetch.waiting =
                                  shard_.WaitSettled(tenant_, fetch.wish.deadline_ns, look);
                            })
      .then([this, state, context, count, load = std::move(load)](kj::Own<Done>) mutable {
        const std::vector<Fetch::Key>& keys = state->fetch->keys;
        uint64_t bytes = 0;
        for (const Fetch::Key& key : keys) bytes += key.bytes;
        auto charge = Charge(std::move(load), bytes);
        auto results = context.getResults(
            capnp::MessageSize{(bytes + count * 32) / sizeof(capnp::word) + 64, 0});
        auto codes = results.initCodes(static_cast<uint32_t>(count));
        auto data = results.initData(static_cast<uint32_t>(count));
        return InSlices(0, count,
                        [this, state, codes, data](size_t i) mutable {
                          const Fetch::Key& key = state->fetch->keys[i];
                          const auto at = static_cast<uint32_t>(i);
                          codes.set(at, ToRpc(key.code));
                          if (key.code != StatusCode::kOk) return;
                          if (CopyOut(*state, i, data.init(at, key.bytes).begin())) return;
                          data.init(at, 0);
                          codes.set(at, rpc::Code::CORRUPT);
                          shard_.Post([this, state, i] {
                            Drop(state->fetch->namespace_id, state->fetch->keys[i].key,
                                 state->copies[i].location);
                          });
                        })
            .attach(kj::mv(charge));
      })
      .attach(kj::mv(end));
}

kj::Promise<kj::Own<std::vector<StatusCode>>> MessageChunks::Prefetch(
    PrefetchContext context, std::shared_ptr<ConnectionLoad> load) {
  using Codes = std::vector<StatusCode>;
  const auto params = context.getParams();
  auto fetch = BeginFetch(*load, params.getNamespaceId(), params.getKeys());
  fetch->wish = {.io_class = IoClass::kPrefetch,
                 .deadline_ns = DeadlineNs(params.getDeadlineMs(), kNsPerSecond)};
  context.releaseParams();
  context.allowCancellation();
  auto end = kj::defer(
      [this, fetch]() { shard_.Post([this, fetch] { shard_.CancelWait(fetch->waiting); }); });
  return OnShardLater<Codes>(shard_,
                             [this, fetch](const Reply<Codes>& reply) {
                               const auto look = [this, fetch, reply](bool expired) {
                                 if (!Ripe(*fetch, expired)) return false;
                                 Codes codes;
                                 for (size_t i = 0; i < fetch->keys.size(); ++i) {
                                   if (fetch->keys[i].key.valid())
                                     (void)FindFetched(*fetch, i, nullptr);
                                   codes.push_back(fetch->keys[i].code);
                                 }
                                 reply.Fulfill(std::move(codes));
                                 return true;
                               };
                               fetch->waiting =
                                   shard_.WaitSettled(tenant_, fetch->wish.deadline_ns, look);
                             })
      .attach(kj::mv(end));
}

// The caller names an id without its live word.
bool MessageChunks::IsLive(uint32_t namespace_id) const {
  if (namespace_id == 0) return false;
  return std::any_of(std::begin(index_.header->live), std::end(index_.header->live),
                     [namespace_id](const auto& live) { return live.load() == namespace_id; });
}

void MessageChunks::Match(MatchContext context) {
  const auto params = context.getParams();
  const auto keys = params.getKeys();
  KJ_REQUIRE(keys.size() <= 65536, "a match names at most 65536 keys", keys.size());
  auto states = context.getResults().initStates(keys.size());  // absent, all
  if (!IsLive(params.getNamespaceId())) {
    context.getResults().setCode(rpc::Code::STALE);
    return;
  }
  uint32_t prefix = 0;
  for (uint32_t i = 0; i < keys.size(); ++i) {
    const shm::ChunkKey key = FromRpc(keys[i]);
    shm::Found found;
    const uint64_t hash = shm::KeyHash(key, params.getNamespaceId(), index_.seed);
    const shm::Look look = key.valid()
                               ? shm::Find(index_, key, params.getNamespaceId(), hash, &found)
                               : shm::Look::kAbsent;
    const auto state = look == shm::Look::kReady       ? rpc::KeyState::READY
                       : look == shm::Look::kElsewhere ? rpc::KeyState::NVME
                       : look == shm::Look::kFilling   ? rpc::KeyState::FILLING
                                                       : rpc::KeyState::ABSENT;
    states.set(i, state);
    const bool ready = state == rpc::KeyState::READY || state == rpc::KeyState::NVME;
    if (ready && prefix == i) ++prefix;
  }
  context.getResults().setPrefix(prefix);
}

}  // namespace terrace
