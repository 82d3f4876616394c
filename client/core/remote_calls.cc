#include "client/core/remote_calls.h"

#include <algorithm>
#include <cstring>

#include "client/core/rpc_convert.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

using Codes = std::vector<StatusCode>;

void SetKeys(capnp::List<rpc::Key>::Builder out, std::span<const shm::ChunkKey> keys) {
  for (uint32_t i = 0; i < out.size(); ++i) ToRpc(keys[i], out[i]);
}

Codes ToCodes(capnp::List<rpc::Code>::Reader codes) {
  Codes out;
  for (const rpc::Code code : codes) out.push_back(FromRpc(code));
  return out;
}

// One code a key, whatever came back.
Codes Answers(const Result<Codes>& answered, size_t count) {
  if (!answered.ok()) return Codes(count, answered.status().code());
  Codes codes = *answered;
  codes.resize(count, StatusCode::kIoError);
  return codes;
}

uint32_t ToMs(int64_t ns) {
  const int64_t ms = (ns + kNsPerMs - 1) / kNsPerMs;
  return static_cast<uint32_t>(std::clamp<int64_t>(ms, 1, kRequestDeadlineNsMax / kNsPerMs));
}

}  // namespace

template <typename Request, typename Results>
Codes RemoteCalls::EachKey(std::span<const shm::ChunkKey> keys, int64_t timeout_ns,
                           std::function<Request(rpc::Session::Client&)> begin) const {
  Codes all;
  while (!keys.empty()) {
    const auto some = keys.first(std::min<size_t>(keys.size(), kBatchKeysMax));
    keys = keys.subspan(some.size());
    const Result<Codes> answered = connection.Call<Codes>(
        [id = namespace_id, named = std::vector(some.begin(), some.end()), begin](Link& link) {
          Request request = begin(link.session);
          request.setNamespaceId(id);
          SetKeys(request.initKeys(static_cast<uint32_t>(named.size())), named);
          return request.send().then([](capnp::Response<Results>&& reply) -> Delivery<Codes> {
            return ToCodes(reply.getCodes());
          });
        },
        timeout_ns);
    const Codes codes = Answers(answered, some.size());
    all.insert(all.end(), codes.begin(), codes.end());
  }
  return all;
}

Codes RemoteCalls::Prefetch(std::span<const shm::ChunkKey> keys, int64_t timeout_ns) const {
  using Request = capnp::Request<rpc::Session::PrefetchParams, rpc::Session::PrefetchResults>;
  return EachKey<Request, rpc::Session::PrefetchResults>(
      keys, timeout_ns + kAnswerSlackNs, [timeout_ns](rpc::Session::Client& session) {
        Request request = session.prefetchRequest();
        request.setDeadlineMs(ToMs(timeout_ns));
        return request;
      });
}

Codes RemoteCalls::Persist(std::span<const shm::ChunkKey> keys, int64_t timeout_ns) const {
  using Request = capnp::Request<rpc::Session::PersistParams, rpc::Session::PersistResults>;
  return EachKey<Request, rpc::Session::PersistResults>(
      keys, timeout_ns + kAnswerSlackNs, [timeout_ns](rpc::Session::Client& session) {
        Request request = session.persistRequest();
        request.setDeadlineMs(ToMs(timeout_ns));
        return request;
      });
}

Codes RemoteCalls::Remove(std::span<const shm::ChunkKey> keys) const {
  using Request = capnp::Request<rpc::Session::RemoveParams, rpc::Session::RemoveResults>;
  return EachKey<Request, rpc::Session::RemoveResults>(
      keys, kCallTimeoutNs, [](rpc::Session::Client& session) { return session.removeRequest(); });
}

Codes RemoteCalls::Lease(std::span<const shm::ChunkKey> keys, int64_t ttl_ns) const {
  using Request = capnp::Request<rpc::Session::LeaseParams, rpc::Session::LeaseResults>;
  return EachKey<Request, rpc::Session::LeaseResults>(
      keys, kCallTimeoutNs, [ttl_ns](rpc::Session::Client& session) {
        Request request = session.leaseRequest();
        request.setTtlMs(static_cast<uint64_t>(std::max<int64_t>(ttl_ns, 0) / kNsPerMs));
        return request;
      });
}

MatchResult RemoteCalls::Match(std::span<const shm::ChunkKey> keys) const {
  MatchResult result;
  while (!keys.empty()) {
    const auto some = keys.first(std::min<size_t>(keys.size(), kBatchKeysMax));
    keys = keys.subspan(some.size());
    using States = std::vector<KeyState>;
    const Result<States> answered = connection.Call<States>(
        [id = namespace_id, named = std::vector(some.begin(), some.end())](Link& link) {
          auto request = link.session.matchRequest();
          request.setNamespaceId(id);
          SetKeys(request.initKeys(static_cast<uint32_t>(named.size())), named);
          return request.send().then(
              [](capnp::Response<rpc::Session::MatchResults>&& reply) -> Delivery<States> {
                if (reply.getCode() != rpc::Code::OK) return Status(FromRpc(reply.getCode()));
                States states;
                for (const rpc::KeyState state : reply.getStates()) {
                  states.push_back(FromRpc(state));
                }
                return states;
              });
        });
    if (!answered.ok()) result.status = answered.status().code();
    States states = answered.ok() ? *answered : States();
    states.resize(some.size(), KeyState::kAbsent);
    result.states.insert(result.states.end(), states.begin(), states.end());
  }
  const auto first_other = std::find_if(result.states.begin(), result.states.end(),
                                        [](KeyState state) { return !IsReady(state); });
  result.prefix = static_cast<size_t>(first_other - result.states.begin());
  return result;
}

std::vector<GetResult> RemoteCalls::Get(std::span<const shm::ChunkKey> keys,
                                        const GetOptions& options) const {
  // How much a key weighs is not known before: as many a call as fit whatever they weigh.
  constexpr size_t kKeysMax = kMessagePayloadBytesMax / kChunkBytesMax;
  std::vector<GetResult> results(keys.size());
  for (size_t at = 0; at < keys.size(); at += kKeysMax) {
    const size_t count = std::min(kKeysMax, keys.size() - at);
    GetSome(keys.subspan(at, count), options, std::span(results).subspan(at, count));
  }
  return results;
}

void RemoteCalls::GetSome(std::span<const shm::ChunkKey> keys, const GetOptions& options,
                          std::span<GetResult> results) const {
  struct Copied {
    StatusCode status = StatusCode::kIoError;
    std::shared_ptr<std::byte[]> bytes;
    size_t size = 0;
  };
  using AllCopied = std::vector<Copied>;
  const Result<AllCopied> answered = connection.Call<AllCopied>(
      [id = namespace_id, named = std::vector(keys.begin(), keys.end()), options](Link& link) {
        auto request = link.session.getRequest();
        request.setNamespaceId(id);
        request.setDeadlineMs(ToMs(options.timeout_ns));
        request.setWait(options.wait_for_filling);
        SetKeys(request.initKeys(static_cast<uint32_t>(named.size())), named);
        return request.send().then(
            [](capnp::Response<rpc::Session::GetResults>&& reply) -> Delivery<AllCopied> {
              AllCopied all;
              const auto data = reply.getData();
              for (uint32_t i = 0; i < reply.getCodes().size(); ++i) {
                Copied copied{.status = FromRpc(reply.getCodes()[i]), .bytes = nullptr};
                if (copied.status == StatusCode::kOk && i < data.size()) {
                  copied.size = data[i].size();
                  copied.bytes = std::make_shared<std::byte[]>(copied.size);
                  std::memcpy(copied.bytes.get(), data[i].begin(), copied.size);
                }
                all.push_back(std::move(copied));
              }
              return all;
            });
      },
      options.timeout_ns + kAnswerSlackNs);
  for (size_t i = 0; i < keys.size(); ++i) {
    GetResult& result = results[i];
    if (!answered.ok() || i >= answered->size()) {
      result.status = answered.ok() ? StatusCode::kIoError : answered.status().code();
      continue;
    }
    const Copied& copied = (*answered)[i];
    result.status = copied.status;
    if (copied.bytes == nullptr) continue;
    result.pin.copy_ = copied.bytes;
    result.pin.bytes_ = {copied.bytes.get(), copied.size};
  }
}

Codes RemoteCalls::Put(std::span<const PutItem> items, int64_t timeout_ns) const {
  Codes all;
  while (!items.empty()) {
    size_t count = 0;
    uint64_t bytes = 0;
    while (count < items.size() && count < kBatchKeysMax) {
      bytes += items[count].payload.size();
      if (count > 0 && bytes > kMessagePayloadBytesMax) break;
      ++count;
    }
    const Codes codes = PutSome(items.first(count), timeout_ns);
    all.insert(all.end(), codes.begin(), codes.end());
    items = items.subspan(count);
  }
  return all;
}

Codes RemoteCalls::PutSome(std::span<const PutItem> items, int64_t timeout_ns) const {
  // Built here: the caller's payloads must not be read once the call was given up.
  auto message = std::make_shared<capnp::MallocMessageBuilder>();
  auto chunks = message->getRoot<capnp::AnyPointer>().initAs<capnp::List<rpc::Chunk>>(
      static_cast<uint32_t>(items.size()));
  for (uint32_t i = 0; i < chunks.size(); ++i) {
    if (items[i].payload.size() > kChunkBytesMax) return Codes(items.size(), StatusCode::kInvalid);
    ToRpc(items[i].key, chunks[i].initKey());
    chunks[i].setData(kj::arrayPtr(reinterpret_cast<const kj::byte*>(items[i].payload.data()),
                                   items[i].payload.size()));
  }
  const Result<Codes> answered = connection.Call<Codes>(
      [id = namespace_id, message, timeout_ns](Link& link) {
        auto request = link.session.putRequest();
        request.setNamespaceId(id);
        request.setDeadlineMs(ToMs(timeout_ns));
        request.setChunks(
            message->getRoot<capnp::AnyPointer>().getAs<capnp::List<rpc::Chunk>>().asReader());
        return request.send().then(
            [](capnp::Response<rpc::Session::PutResults>&& reply) -> Delivery<Codes> {
              return ToCodes(reply.getCodes());
            });
      },
      timeout_ns + kAnswerSlackNs);
  return Answers(answered, items.size());
}

}  // namespace terrace
