// Puts in one call, and the requests that name keys and nothing else.

#include <algorithm>

#include "client/core/client_state.h"
#include "client/core/key_entry.h"
#include "client/core/remote_calls.h"
#include "storage/base/clock.h"

namespace terrace {
namespace {

struct KeyCall {
  shm::Op op{};
  int64_t timeout_ns = kCallTimeoutNs;
  uint64_t argument = 0;
};

std::vector<StatusCode> CallEachKey(const NamespaceAttachment& at,
                                    std::span<const shm::ChunkKey> keys, const KeyCall& call) {
  std::vector<StatusCode> codes;
  const int64_t deadline_ns = MonotonicNs() + call.timeout_ns;
  const Session::Use use(*at.session);
  if (!use.ok()) return std::vector<StatusCode>(keys.size(), StatusCode::kUnavailable);
  while (!keys.empty()) {
    const auto some = keys.first(std::min<size_t>(keys.size(), kBatchKeysMax));
    keys = keys.subspan(some.size());
    std::vector<shm::KeyEntry> entries;
    for (const shm::ChunkKey& key : some) entries.push_back(EntryOf(key));
    std::vector<shm::ResultEntry> answers;
    const StatusCode called = at.session->Call({.op = call.op,
                                                .namespace_id = at.ref.id,
                                                .deadline_ns = deadline_ns,
                                                .argument = call.argument,
                                                .keys = entries},
                                               deadline_ns, &answers);
    for (size_t i = 0; i < some.size(); ++i) {
      codes.push_back(called == StatusCode::kOk ? static_cast<StatusCode>(answers[i].status)
                                                : called);
    }
  }
  return codes;
}

bool AnyStale(std::span<const StatusCode> codes) {
  return std::find(codes.begin(), codes.end(), StatusCode::kStale) != codes.end();
}

}  // namespace

std::vector<StatusCode> Namespace::Prefetch(std::span<const shm::ChunkKey> keys,
                                            int64_t timeout_ns) {
  const NamespaceAttachment* const at = impl_->current();
  if (at == nullptr) return std::vector<StatusCode>(keys.size(), StatusCode::kUnavailable);
  const KeyCall call{.op = shm::Op::kPrefetch, .timeout_ns = timeout_ns, .argument = 0};
  std::vector<StatusCode> codes =
      at->session != nullptr
          ? CallEachKey(*at, keys, call)
          : RemoteCalls{impl_->client->connection(), at->ref.id}.Prefetch(keys, timeout_ns);
  if (AnyStale(codes)) impl_->Renew();
  return codes;
}

std::vector<StatusCode> Namespace::Persist(std::span<const shm::ChunkKey> keys,
                                           int64_t timeout_ns) {
  const NamespaceAttachment* const at = impl_->current();
  if (at == nullptr) return std::vector<StatusCode>(keys.size(), StatusCode::kUnavailable);
  const KeyCall call{.op = shm::Op::kPersist, .timeout_ns = timeout_ns, .argument = 0};
  std::vector<StatusCode> codes =
      at->session != nullptr
          ? CallEachKey(*at, keys, call)
          : RemoteCalls{impl_->client->connection(), at->ref.id}.Persist(keys, timeout_ns);
  if (AnyStale(codes)) impl_->Renew();
  return codes;
}

std::vector<StatusCode> Namespace::Remove(std::span<const shm::ChunkKey> keys) {
  const NamespaceAttachment* const at = impl_->current();
  if (at == nullptr) return std::vector<StatusCode>(keys.size(), StatusCode::kUnavailable);
  std::vector<StatusCode> codes =
      at->session != nullptr ? CallEachKey(*at, keys, {.op = shm::Op::kRemove})
                             : RemoteCalls{impl_->client->connection(), at->ref.id}.Remove(keys);
  if (AnyStale(codes)) impl_->Renew();
  return codes;
}

std::vector<StatusCode> Namespace::Lease(std::span<const shm::ChunkKey> keys, int64_t ttl_ns) {
  const NamespaceAttachment* const at = impl_->current();
  if (at == nullptr) return std::vector<StatusCode>(keys.size(), StatusCode::kUnavailable);
  const auto ttl = static_cast<uint64_t>(std::max<int64_t>(ttl_ns, 0));
  const KeyCall call{.op = shm::Op::kLease, .timeout_ns = kCallTimeoutNs, .argument = ttl};
  std::vector<StatusCode> codes =
      at->session != nullptr
          ? CallEachKey(*at, keys, call)
          : RemoteCalls{impl_->client->connection(), at->ref.id}.Lease(keys, ttl_ns);
  if (AnyStale(codes)) impl_->Renew();
  return codes;
}

std::vector<StatusCode> Namespace::Put(std::span<const PutItem> items, int64_t timeout_ns) {
  const int64_t deadline_ns = MonotonicNs() + timeout_ns;
  std::vector<StatusCode> codes;
  while (!items.empty()) {
    const auto some = items.first(std::min<size_t>(items.size(), kBatchKeysMax));
    items = items.subspan(some.size());
    std::vector<PutRequest> requests;
    for (const PutItem& item : some) {
      // A payload that 32 bits do not hold is refused as what it is: too large.
      const size_t bytes = std::min<size_t>(item.payload.size(), UINT32_MAX);
      requests.push_back({.key = item.key, .payload_bytes = static_cast<uint32_t>(bytes)});
    }
    const int64_t left_ns = std::max<int64_t>(deadline_ns - MonotonicNs(), 0);
    Result<PutTicket> ticket = BeginPut(requests, left_ns);
    if (!ticket.ok()) {
      codes.insert(codes.end(), some.size(), ticket.status().code());
      continue;
    }
    const std::span<const PutTicket::Grant> grants = ticket->Wait();
    for (size_t i = 0; i < some.size(); ++i) {
      if (grants[i].status == StatusCode::kOk) ticket->Fill(i, some[i].payload.data());
    }
    const std::vector<StatusCode> ended = ticket->Commit();
    codes.insert(codes.end(), ended.begin(), ended.end());
  }
  if (AnyStale(codes)) impl_->Renew();
  return codes;
}

std::vector<StatusCode> Namespace::PutDurable(std::span<const PutItem> items, int64_t timeout_ns) {
  const int64_t deadline_ns = MonotonicNs() + timeout_ns;
  std::vector<StatusCode> codes = Put(items, timeout_ns);
  std::vector<shm::ChunkKey> keys;
  std::vector<size_t> of_item;
  for (size_t i = 0; i < items.size(); ++i) {
    if (codes[i] != StatusCode::kOk && codes[i] != StatusCode::kExists) continue;
    keys.push_back(items[i].key);
    of_item.push_back(i);
  }
  const int64_t left_ns = std::max<int64_t>(deadline_ns - MonotonicNs(), 0);
  const std::vector<StatusCode> persisted = Persist(keys, left_ns);
  for (size_t i = 0; i < keys.size(); ++i) {
    if (persisted[i] != StatusCode::kOk) codes[of_item[i]] = persisted[i];
  }
  return codes;
}

}  // namespace terrace
