#include "daemon/control/message_chunks.h"

#include <kj/debug.h>

#include <algorithm>
#include <cstring>

#include "daemon/control/convert.h"
#include "daemon/control/on_shard.h"
#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/record/copy_hash.h"
#include "storage/record/record.h"

namespace terrace {
namespace {

int64_t DeadlineNs(uint32_t deadline_ms, int64_t default_ns) {
  return MonotonicNs() + (deadline_ms == 0 ? default_ns : deadline_ms * kNsPerMs);
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
      pins_(std::make_unique<std::atomic<uint64_t>[]>(kPinCount)) {
  session_ = shard_.OpenTrustedSession(tenant_, pins_.get(), kPinCount);
  index_ = shard_.store(tenant_)->index().view();
  for (uint32_t pin = 0; pin < kPinCount; ++pin) free_pins_.push_back(pin);
}

// ------------------------------------------------------------------------------------- put

struct MessageChunks::PutState {
  uint32_t namespace_id = 0;
  std::vector<PutWant> wants;
  std::vector<PutGrant> grants;
  std::vector<std::byte*> records;  // null where nothing is to be filled
  std::vector<StatusCode> codes;
};

kj::Promise<void> MessageChunks::Put(PutContext context) {
  const auto params = context.getParams();
  auto state = std::make_shared<PutState>();
  state->namespace_id = params.getNamespaceId();
  for (const auto chunk : params.getChunks()) {
    state->wants.push_back({.key = FromRpc(chunk.getKey()),
                            .payload_bytes = static_cast<uint32_t>(chunk.getData().size())});
  }
  const size_t count = state->wants.size();
  KJ_REQUIRE(count <= kBatchKeysMax, "a put carries at most 256 chunks", count);
  state->grants.resize(count);
  state->records.resize(count);
  const int64_t deadline = DeadlineNs(params.getDeadlineMs(), kPutDeadlineNsDefault);

  return OnShard<Done>(shard_,
                       [this, state, deadline]() {
                         ChunkStore& store = *shard_.store(tenant_);
                         store.BeginPut(session_, state->namespace_id, state->wants, deadline,
                                        MonotonicNs(), state->grants);
                         for (size_t i = 0; i < state->grants.size(); ++i) {
                           if (state->grants[i].status != StatusCode::kOk) continue;
                           state->records[i] = store.Address(state->grants[i].location);
                         }
                         return Done{};
                       })
      .then([state, params, count](kj::Own<Done>) {
        return InSlices(0, count, [state, params](size_t i) {
          if (state->records[i] == nullptr) return;
          const auto data = params.getChunks()[static_cast<uint32_t>(i)].getData();
          uint64_t leaves[shm::kLeafCountMax];
          CopyAndHash(state->records[i] + shm::kRecordHeaderBytes, data.begin(), data.size(),
                      leaves);
          BuildHeader({.key = state->wants[i].key,
                       .namespace_id = state->namespace_id,
                       .payload_bytes = state->wants[i].payload_bytes},
                      leaves, reinterpret_cast<shm::RecordHeader*>(state->records[i]));
        });
      })
      .then([this, state]() {
        return OnShard<Done>(shard_, [this, state]() {
          for (const PutGrant& grant : state->grants) {
            StatusCode code = grant.status;
            if (code == StatusCode::kOk) {
              shard_.store(tenant_)->Commit(session_, std::span(&grant.claim, 1), MonotonicNs(),
                                            std::span(&code, 1));
            }
            state->codes.push_back(code);
          }
          return Done{};
        });
      })
      .then([state, context](kj::Own<Done>) mutable {
        auto codes = context.getResults().initCodes(static_cast<uint32_t>(state->codes.size()));
        for (uint32_t i = 0; i < codes.size(); ++i) codes.set(i, ToRpc(state->codes[i]));
      });
}

// ------------------------------------------------------------------------------------- get

struct MessageChunks::GetState {
  struct Key {
    shm::ChunkKey key;
    std::atomic<uint64_t>* pin = nullptr;
    StatusCode code = StatusCode::kBusy;
    const std::byte* payload = nullptr;
    uint32_t bytes = 0;
    uint64_t touch = 0;
  };
  uint32_t namespace_id = 0;
  std::vector<Key> keys;
  std::vector<uint32_t> pins;
};

kj::Promise<void> MessageChunks::Get(GetContext context) {
  const auto params = context.getParams();
  const size_t count = params.getKeys().size();
  KJ_REQUIRE(count <= kBatchKeysMax, "a get names at most 256 keys", count);
  KJ_REQUIRE(count <= free_pins_.size(), "the daemon's own pins are in use: try again");
  auto state = std::make_shared<GetState>();
  state->namespace_id = params.getNamespaceId();
  for (const auto key : params.getKeys()) {
    const uint32_t pin = free_pins_.back();
    free_pins_.pop_back();
    state->pins.push_back(pin);
    state->keys.push_back({.key = FromRpc(key), .pin = &pins_[pin]});
  }
  const bool wait = params.getWait();
  const int64_t deadline = DeadlineNs(params.getDeadlineMs(), kNsPerSecond);

  auto look = [this, state, wait](bool expired) {
    ChunkStore& store = *shard_.store(tenant_);
    bool all = true;
    for (GetState::Key& key : state->keys) {
      if (key.code != StatusCode::kBusy) continue;
      const Result<ReadyChunk> found =
          store.FindAndPin(session_, state->namespace_id, key.key, key.pin);
      key.code = found.ok() ? StatusCode::kOk : found.status().code();
      if (found.ok()) {
        key.payload = store.Address(found->location) + shm::kRecordHeaderBytes;
        key.bytes = found->payload_bytes;
        key.touch = found->touch;
      }
      if (key.code == StatusCode::kBusy && wait) {
        all = false;
        if (expired) key.code = StatusCode::kDeadline;
      }
    }
    if (!all && !expired) return false;
    for (auto key = state->keys.rbegin(); key != state->keys.rend(); ++key) {
      if (key->code == StatusCode::kOk) store.Touch(key->touch);
    }
    return true;
  };
  auto unpin = kj::defer([this, state]() {
    for (const uint32_t pin : state->pins) {
      pins_[pin].store(0, std::memory_order_release);
      free_pins_.push_back(pin);
    }
  });
  return OnShardLater<Done>(shard_,
                            [this, look, deadline](const Reply<Done>& reply) {
                              shard_.WaitSettled(tenant_, deadline, [look, reply](bool expired) {
                                const bool done = look(expired);
                                if (done) reply.Fulfill(Done{});
                                return done;
                              });
                            })
      .then([state, context, count](kj::Own<Done>) mutable {
        uint64_t bytes = 0;
        for (const GetState::Key& key : state->keys) bytes += key.bytes;
        KJ_REQUIRE(bytes <= kMessagePayloadBytesMax,
                   "the chunks are more than the 32 MiB that a message carries: ask for fewer",
                   bytes);
        auto results = context.getResults(
            capnp::MessageSize{(bytes + count * 32) / sizeof(capnp::word) + 64, 0});
        auto codes = results.initCodes(static_cast<uint32_t>(count));
        auto data = results.initData(static_cast<uint32_t>(count));
        return InSlices(0, count, [state, codes, data](size_t i) mutable {
          const GetState::Key& key = state->keys[i];
          const auto at = static_cast<uint32_t>(i);
          codes.set(at, ToRpc(key.code));
          if (key.code != StatusCode::kOk) return;
          std::memcpy(data.init(at, key.bytes).begin(), key.payload, key.bytes);
        });
      })
      .attach(kj::mv(unpin));
}

void MessageChunks::Match(MatchContext context) {
  const auto params = context.getParams();
  const auto keys = params.getKeys();
  KJ_REQUIRE(keys.size() <= 65536, "a match names at most 65536 keys", keys.size());
  auto states = context.getResults().initStates(keys.size());
  uint32_t prefix = 0;
  for (uint32_t i = 0; i < keys.size(); ++i) {
    const shm::ChunkKey key = FromRpc(keys[i]);
    shm::Found found;
    const uint64_t hash = shm::KeyHash(key, params.getNamespaceId(), index_.seed);
    const shm::Look look = key.valid()
                               ? shm::Find(index_, key, params.getNamespaceId(), hash, &found)
                               : shm::Look::kAbsent;
    const auto state = look == shm::Look::kReady     ? rpc::KeyState::READY
                       : look == shm::Look::kFilling ? rpc::KeyState::FILLING
                                                     : rpc::KeyState::ABSENT;
    states.set(i, state);
    if (state == rpc::KeyState::READY && prefix == i) ++prefix;
  }
  context.getResults().setPrefix(prefix);
}

}  // namespace terrace
