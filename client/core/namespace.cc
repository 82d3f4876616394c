// Lookups: what a client answers alone, and gets that need the daemon.

#include <algorithm>
#include <array>

#include "client/core/client_state.h"
#include "client/core/fork_guard.h"
#include "client/core/key_entry.h"
#include "client/core/remote_calls.h"
#include "client/core/restorable_prefix.h"
#include "storage/base/clock.h"

namespace terrace {
namespace {

// What a miss of the lookup is to a caller that does not ask the daemon.
StatusCode ToStatus(Outcome outcome) {
  switch (outcome) {
    case Outcome::kHit: return StatusCode::kOk;
    case Outcome::kAbsent: return StatusCode::kNotFound;
    case Outcome::kFilling: return StatusCode::kBusy;
    case Outcome::kAsk: return StatusCode::kBusy;
    case Outcome::kStale: return StatusCode::kStale;
    case Outcome::kBusy: return StatusCode::kBusy;
    case Outcome::kUnavailable: return StatusCode::kUnavailable;
  }
  return StatusCode::kNotFound;
}

// One Get over shared memory.
class GetBatch {
 public:
  GetBatch(const NamespaceAttachment& at, std::span<const shm::ChunkKey> keys,
           const GetOptions& options)
      : at_(at),
        session_(*at.session),
        keys_(keys),
        options_(options),
        deadline_ns_(MonotonicNs() + options.timeout_ns),
        results_(keys.size()),
        touches_(keys.size(), 0) {}

  std::vector<GetResult> Run() {
    for (size_t from = 0; from < keys_.size(); from += kBatchKeysMax) {
      LookUp(from, std::min<size_t>(from + kBatchKeysMax, keys_.size()));
    }
    for (size_t from = 0; from < ask_.size(); from += kBatchKeysMax) {
      Ask(std::span(ask_).subspan(from, std::min<size_t>(kBatchKeysMax, ask_.size() - from)));
    }
    // The last key first: of a chain that is too long to keep, the head stays.
    std::erase(touches_, 0u);
    const Session::Use use(session_);
    if (!use.ok()) return std::move(results_);
    session_.touches().PushReversed(touches_);
    session_.RemoveDamaged(damaged_, at_.ref.id);
    return std::move(results_);
  }

 private:
  // Two passes, so that the misses of the caches overlap.
  void LookUp(size_t from, size_t to) {
    std::array<uint64_t, kBatchKeysMax> hashes;
    for (size_t i = from; i < to; ++i) {
      hashes[i - from] = session_.Hash(keys_[i], at_.ref.id);
      session_.Prefetch(hashes[i - from]);
    }
    for (size_t i = from; i < to; ++i) {
      Hit hit;
      const Outcome outcome = session_.FindAndPin(keys_[i], at_.ref, hashes[i - from], &hit);
      if (outcome == Outcome::kHit) {
        Take(i, hit);
      } else if (outcome == Outcome::kAsk ||
                 (outcome == Outcome::kFilling && options_.wait_for_filling)) {
        ask_.push_back(i);
      } else {
        results_[i].status = ToStatus(outcome);
      }
    }
  }

  void Take(size_t i, const Hit& hit) {
    Session::Give(at_.session, hit, keys_[i], at_.ref.id, &results_[i].pin);
    results_[i].status = StatusCode::kOk;
    touches_[i] = hit.touch;
    if (!options_.verify || results_[i].pin.Verify().ok()) return;
    results_[i].status = StatusCode::kCorrupt;
    results_[i].pin.Release();
    touches_[i] = 0;
    damaged_.push_back(EntryOf(keys_[i]));
  }

  void Ask(std::span<const size_t> asked) {
    const Session::Use use(session_);
    std::vector<shm::KeyEntry> entries;
    for (const size_t i : asked) {
      results_[i].status = use.ok() ? StatusCode::kBusy : StatusCode::kUnavailable;
    }
    if (!use.ok()) return;
    for (const size_t i : asked) {
      const uint32_t pin = session_.pins().Acquire();
      if (pin == PinAllocator::kNone) break;  // the rest stays kBusy
      entries.push_back(EntryOf(keys_[i]));
      entries.back().pin = pin;
    }
    if (entries.empty()) return;
    std::vector<shm::ResultEntry> answers;
    const uint16_t flags = options_.wait_for_filling ? shm::kWaitForFilling : 0;
    const StatusCode called = session_.Call({.op = shm::Op::kGet,
                                             .flags = flags,
                                             .namespace_id = at_.ref.id,
                                             .deadline_ns = deadline_ns_,
                                             .keys = entries},
                                            deadline_ns_, &answers);
    for (size_t n = 0; n < entries.size(); ++n) {
      StatusCode& status = results_[asked[n]].status;
      status = called;
      if (called != StatusCode::kOk) continue;
      status = static_cast<StatusCode>(answers[n].status);
      if (status != StatusCode::kOk) {
        session_.Unpin(entries[n].pin);
        continue;
      }
      Hit hit;
      status = session_.Adopt(answers[n], entries[n].pin, deadline_ns_, &hit);
      if (status == StatusCode::kOk) Take(asked[n], hit);
    }
  }

  const NamespaceAttachment& at_;
  Session& session_;
  const std::span<const shm::ChunkKey> keys_;
  const GetOptions& options_;
  const int64_t deadline_ns_;
  std::vector<GetResult> results_;
  std::vector<uint64_t> touches_;  // by key; 0: none
  std::vector<size_t> ask_;        // indexes of keys
  std::vector<shm::KeyEntry> damaged_;
};

}  // namespace

// -- Namespace::Impl ------------------------------------------------------------------------------

Namespace::Impl::Impl(std::shared_ptr<ClientState> shared_client,
                      std::shared_ptr<NamespaceState> first)
    : client(std::move(shared_client)),
      identity(first->identity()),
      of_process(new OfProcess{.process = ProcessGeneration(), .state = std::move(first)}) {}

Namespace::Impl::~Impl() {
  OfProcess* const mine = of_process.load(std::memory_order_acquire);
  if (mine->process == ProcessGeneration()) delete mine;
}

NamespaceState& Namespace::Impl::state() {
  OfProcess* mine = of_process.load(std::memory_order_acquire);
  const uint64_t process = ProcessGeneration();
  if (mine->process == process) return *mine->state;
  // A forked child: connects, and registers on its own behalf.
  auto fresh = std::make_unique<OfProcess>(
      OfProcess{.process = process, .state = std::make_shared<NamespaceState>(identity)});
  if (!of_process.compare_exchange_strong(mine, fresh.get(), std::memory_order_acq_rel)) {
    return *mine->state;  // another thread was first
  }
  const std::shared_ptr<NamespaceState> state = fresh.release()->state;
  // Whatever the answer: a daemon that is away registers it when it is back.
  static_cast<void>(client->connection().Register(state));
  return *state;
}

const NamespaceAttachment* Namespace::Impl::current() {
  const NamespaceAttachment* const at = state().current();
  // While the system refuses the library its thread, only callers can ask for it again.
  if (at == nullptr) static_cast<void>(client->connection());
  return at;
}

void Namespace::Impl::Renew() {
  static_cast<void>(state());  // of this process
  client->connection().Renew(of_process.load(std::memory_order_acquire)->state);
}

// -- Namespace ------------------------------------------------------------------------------------

Namespace::Namespace(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Namespace::~Namespace() = default;

const NamespaceIdentity& Namespace::identity() const { return impl_->identity; }

MatchResult Namespace::Match(std::span<const shm::ChunkKey> keys) const {
  MatchResult result;
  result.states.assign(keys.size(), KeyState::kAbsent);
  const NamespaceAttachment* const at = impl_->current();
  if (at == nullptr) {
    result.status = StatusCode::kUnavailable;
    return result;
  }
  if (at->session == nullptr) {
    result = RemoteCalls{impl_->client->connection(), at->ref.id}.Match(keys);
    if (result.status == StatusCode::kStale) impl_->Renew();
    return result;
  }
  const Session::Use use(*at->session);
  if (!use.ok()) {
    result.status = StatusCode::kUnavailable;
    return result;
  }
  const shm::IndexView& index = at->session->index();
  std::array<uint64_t, kBatchKeysMax> hashes;
  for (size_t from = 0; from < keys.size(); from += kBatchKeysMax) {
    const size_t to = std::min<size_t>(from + kBatchKeysMax, keys.size());
    for (size_t i = from; i < to; ++i) {
      hashes[i - from] = shm::KeyHash(keys[i], at->ref.id, index.seed);
      shm::PrefetchHome(index, hashes[i - from]);
    }
    for (size_t i = from; i < to; ++i) {
      shm::Found found;
      const shm::Look look = shm::Find(index, keys[i], at->ref.id, hashes[i - from], &found);
      if (look == shm::Look::kReady) result.states[i] = KeyState::kReady;
      if (look == shm::Look::kElsewhere) result.states[i] = KeyState::kNvme;
      if (look == shm::Look::kFilling) result.states[i] = KeyState::kFilling;
    }
  }
  if (!shm::IsLive(index, at->ref, std::memory_order_seq_cst)) {
    impl_->Renew();
    result.states.assign(keys.size(), KeyState::kAbsent);
    result.status = StatusCode::kStale;
    return result;
  }
  while (result.prefix < keys.size() && IsReady(result.states[result.prefix])) ++result.prefix;
  return result;
}

size_t Namespace::RestorablePrefix(std::span<const shm::ChunkKey> keys) const {
  const uint32_t ranks = std::max(impl_->identity.ranks, 1u);
  const size_t groups = std::max<size_t>(impl_->identity.group_trailing.size(), 1);
  const std::vector<uint32_t> every_chunk(1, 0);
  const std::vector<uint32_t>& trailing =
      impl_->identity.group_trailing.empty() ? every_chunk : impl_->identity.group_trailing;
  std::vector<shm::ChunkKey> all;
  all.reserve(keys.size() * ranks * groups);
  for (size_t part = 0; part < ranks * groups; ++part) {
    for (const shm::ChunkKey& key : keys) {
      all.push_back(key);
      all.back().part = static_cast<uint16_t>(part);
    }
  }
  const MatchResult matched = Match(all);
  if (matched.status != StatusCode::kOk) return 0;
  return terrace::RestorablePrefix(keys.size(), ranks, trailing, [&](size_t index, uint16_t part) {
    return IsReady(matched.states[part * keys.size() + index]);
  });
}

std::vector<GetResult> Namespace::Get(std::span<const shm::ChunkKey> keys,
                                      const GetOptions& options) {
  const NamespaceAttachment* const at = impl_->current();
  if (at == nullptr) {
    std::vector<GetResult> results(keys.size());
    for (GetResult& result : results) result.status = StatusCode::kUnavailable;
    return results;
  }
  std::vector<GetResult> results =
      at->session != nullptr
          ? GetBatch(*at, keys, options).Run()
          : RemoteCalls{impl_->client->connection(), at->ref.id}.Get(keys, options);
  const auto stale = [](const GetResult& result) { return result.status == StatusCode::kStale; };
  if (std::any_of(results.begin(), results.end(), stale)) impl_->Renew();
  return results;
}

StatusCode Namespace::GetOne(const shm::ChunkKey& key, Pin* pin) {
  pin->Release();
  const NamespaceAttachment* const at = impl_->current();
  if (at == nullptr) return StatusCode::kUnavailable;
  Outcome outcome = Outcome::kAsk;
  if (at->session != nullptr) {
    Session& session = *at->session;
    Hit hit;
    outcome = session.FindAndPin(key, at->ref, session.Hash(key, at->ref.id), &hit);
    if (outcome == Outcome::kHit) {
      session.touches().Push(hit.touch);
      Session::Give(at->session, hit, key, at->ref.id, pin);
      return StatusCode::kOk;
    }
  }
  if (outcome == Outcome::kStale) impl_->Renew();
  if (outcome != Outcome::kAsk) return ToStatus(outcome);
  std::vector<GetResult> asked = Get(std::span(&key, 1), {});
  *pin = std::move(asked.front().pin);
  return asked.front().status;
}

}  // namespace terrace
