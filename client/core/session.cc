#include "client/core/session.h"

#include <sys/socket.h>

#include <algorithm>

#include "client/core/fork_guard.h"
#include "client/core/key_entry.h"
#include "proto/shm/record_layout.h"
#include "storage/base/clock.h"

namespace terrace {
namespace {

constexpr int64_t kOrphanPollNs = 10 * kNsPerMs;
constexpr int64_t kSupersededPollNs = kNsPerSecond;

Status CheckParts(const Session::Parts& parts) {
  const auto& header = *reinterpret_cast<const shm::IndexHeader*>(parts.index.data());
  const char* wrong = shm::CheckIndexHeader(header, parts.index.bytes());
  if (wrong != nullptr) return Status(StatusCode::kInvalid, wrong);
  if (header.segment_bytes == 0) return Status(StatusCode::kInvalid, "the index has no segments");
  if (parts.memory.bytes() < sizeof(shm::SessionMemory)) {
    return Status(StatusCode::kInvalid, "the session's memory is too short");
  }
  const auto& memory = *reinterpret_cast<const shm::SessionMemory*>(parts.memory.data());
  if (memory.magic != shm::kSessionMagic || memory.layout_version != shm::kSessionLayoutVersion ||
      memory.request_count != shm::kRequestCount || memory.batch_keys_max != shm::kBatchKeysMax ||
      memory.pin_count != shm::kPinCount || memory.touch_count != shm::kTouchCount) {
    return Status(StatusCode::kInvalid, "the session's memory has another layout");
  }
  if (header.boot_epoch != parts.boot_epoch || memory.boot_epoch != parts.boot_epoch) {
    return Status(StatusCode::kInvalid, "index, session and daemon are of different starts");
  }
  return Status::Ok();
}

}  // namespace

Result<std::shared_ptr<Session>> Session::Create(Parts parts, std::function<void()> housekeeping) {
  Status checked = CheckParts(parts);
  if (!checked.ok()) return checked;
  return std::shared_ptr<Session>(new Session(std::move(parts), std::move(housekeeping)));
}

Session::Session(Parts parts, std::function<void()> housekeeping)
    : index_view_(shm::ViewIndex(parts.index.data())),
      memory_view_(reinterpret_cast<shm::SessionMemory*>(parts.memory.writable_data())),
      housekeeping_(std::move(housekeeping)),
      maps_(index_view_.header->segment_count, index_view_.header->segment_bytes),
      touches_(*memory_view_),
      queue_(*memory_view_, parts.doorbell.get(), dead_,
             [this](PendingRequest& request) { Orphaned(request); }),
      parts_(std::move(parts)) {}

Session::~Session() = default;

Session::Use::Use(Session& session) : session_(session) {
  session_.users_.fetch_add(1, std::memory_order_seq_cst);
  ok_ = !session_.dead_.load(std::memory_order_seq_cst);
}

Session::Use::~Use() {
  session_.users_.fetch_sub(1, std::memory_order_seq_cst);
  if (session_.dead_.load(std::memory_order_seq_cst)) session_.ReleaseWhenIdle();
}

Outcome Session::FindAndPin(const shm::ChunkKey& key, shm::NamespaceRef ns, uint64_t hash,
                            Hit* hit) {
  const uint32_t pin = pins_.Acquire();
  if (pin == PinAllocator::kNone) return Outcome::kBusy;
  // The number keeps the mappings from here on, or we see that the session is dead.
  Outcome outcome = Outcome::kUnavailable;
  if (!dead_.load(std::memory_order_seq_cst)) {
    const uint32_t state = memory().state.load(std::memory_order_relaxed);
    if (state == static_cast<uint32_t>(shm::SessionState::kOpen)) {
      shm::Found found;
      switch (shm::FindAndPin(index_view_, key, ns, hash, &memory().pins[pin], &found)) {
        case shm::Look::kReady:
          hit->pin = pin;
          hit->record = maps_.Find(found.location, found.length);
          hit->payload_bytes = found.length;
          hit->touch = shm::TouchWord(found.slot, found.version);
          if (hit->record != nullptr) return Outcome::kHit;
          shm::Unpin(&memory().pins[pin]);
          outcome = Outcome::kAsk;
          break;
        case shm::Look::kFilling: outcome = Outcome::kFilling; break;
        case shm::Look::kAbsent:
          // Of an ended epoch every key is absent in the end: who only gets must learn of it.
          outcome = shm::IsLive(index_view_, ns, std::memory_order_acquire) ? Outcome::kAbsent
                                                                            : Outcome::kStale;
          break;
        case shm::Look::kElsewhere:
        case shm::Look::kContended: outcome = Outcome::kAsk; break;
        case shm::Look::kStale: outcome = Outcome::kStale; break;
      }
    } else if (state == static_cast<uint32_t>(shm::SessionState::kNoPins)) {
      outcome = Outcome::kBusy;
    }
  }
  pins_.Release(pin);
  if (outcome == Outcome::kUnavailable && dead_.load(std::memory_order_seq_cst)) {
    ReleaseWhenIdle();
  }
  return outcome;
}

void Session::Unpin(uint32_t pin) {
  shm::Unpin(&memory().pins[pin]);
  pins_.Release(pin);
  if (dead_.load(std::memory_order_seq_cst)) ReleaseWhenIdle();
}

void Session::Give(const std::shared_ptr<Session>& session, const Hit& hit,
                   const shm::ChunkKey& key, uint32_t namespace_id, Pin* pin) {
  pin->Release();
  pin->session_ = session;
  pin->process_ = ProcessGeneration();
  pin->bytes_ = {hit.record + shm::kRecordHeaderBytes, hit.payload_bytes};
  pin->pin_ = hit.pin;
  pin->key_ = key;
  pin->namespace_id_ = namespace_id;
}

StatusCode Session::Adopt(const shm::ResultEntry& result, uint32_t pin, int64_t deadline_ns,
                          Hit* hit) {
  const shm::Location location = shm::Location::Unpack(result.location);
  hit->pin = pin;
  hit->payload_bytes = result.length;
  hit->touch = result.touch;
  hit->record = maps_.Find(location, result.length);
  if (hit->record == nullptr && maps_.Await(location, false, deadline_ns)) {
    hit->record = maps_.Find(location, result.length);
  }
  if (hit->record != nullptr) return StatusCode::kOk;
  Unpin(pin);
  return dead() ? StatusCode::kUnavailable : StatusCode::kDeadline;
}

StatusCode Session::Call(const RequestQueue::Submission& submission, int64_t until_ns,
                         std::vector<shm::ResultEntry>* results) {
  Result<std::shared_ptr<PendingRequest>> request = queue_.Submit(submission, until_ns);
  if (!request.ok()) {
    if (submission.op == shm::Op::kGet) {
      for (const shm::KeyEntry& key : submission.keys) Unpin(key.pin);
    }
    return request.status().code();
  }
  const StatusCode status = queue_.Wait(**request, until_ns + kAnswerSlackNs);
  if (status == StatusCode::kOk) {
    *results = std::move((*request)->results);
  } else {
    // What may still wait there for a key would hold our pins' words until it ends.
    if (submission.op == shm::Op::kGet) queue_.Cancel(**request);
    housekeeping_();
  }
  return status;
}

void Session::Abandon(PendingRequest& request) {
  queue_.Abandon(request);
  housekeeping_();
}

// A completed request that nobody asks for any more, or one that a dead session never answers.
void Session::Orphaned(PendingRequest& request) {
  for (const uint32_t pin : request.pins) Unpin(pin);
  if (request.op != shm::Op::kBeginPut || dead()) return;
  const std::lock_guard lock(mutex_);
  for (const shm::ResultEntry& result : request.results) {
    if (result.status == static_cast<uint8_t>(StatusCode::kOk)) {
      claims_to_abort_.push_back(result.claim);
    }
  }
}

void Session::RemoveDamaged(std::span<const shm::KeyEntry> keys, uint32_t namespace_id) {
  while (!keys.empty()) {
    const auto some = keys.first(std::min<size_t>(keys.size(), shm::kBatchKeysMax));
    keys = keys.subspan(some.size());
    const Result<std::shared_ptr<PendingRequest>> sent =
        queue_.Submit({.op = shm::Op::kRemove,
                       .flags = shm::kFoundDamaged,
                       .namespace_id = namespace_id,
                       .keys = some},
                      0);
    if (sent.ok()) Abandon(**sent);
  }
}

void Session::AbortClaims(std::span<const uint64_t> claims) {
  if (claims.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    claims_to_abort_.insert(claims_to_abort_.end(), claims.begin(), claims.end());
  }
  if (!SubmitAborts()) housekeeping_();
}

bool Session::SubmitAborts() {
  for (;;) {
    std::vector<shm::KeyEntry> keys;
    {
      const std::lock_guard lock(mutex_);
      while (!claims_to_abort_.empty() && keys.size() < shm::kBatchKeysMax) {
        keys.push_back(EntryOfClaim(claims_to_abort_.back()));
        claims_to_abort_.pop_back();
      }
    }
    if (keys.empty()) return true;
    // An abort of a claim that has ended acknowledges its end.
    const Result<std::shared_ptr<PendingRequest>> sent =
        queue_.Submit({.op = shm::Op::kAbort, .keys = keys}, 0);
    if (sent.ok()) {
      queue_.Abandon(**sent);
      continue;
    }
    if (dead()) return true;
    const std::lock_guard lock(mutex_);
    for (const shm::KeyEntry& key : keys) claims_to_abort_.push_back(key.claim);
    return false;
  }
}

void Session::MarkDead() {
  const Use use(*this);  // taken before: the queue looks at the memory
  dead_.store(true, std::memory_order_seq_cst);
  queue_.WakeAll();
  maps_.Close();
  queue_.Housekeep();
}

int64_t Session::Housekeep() {
  const Use use(*this);
  if (!use.ok()) return 0;
  const bool orphans = queue_.Housekeep();
  const bool aborted = SubmitAborts();
  const size_t superseded = maps_.Sweep(memory().pins);
  if (orphans || !aborted) return kOrphanPollNs;
  return superseded > 0 ? kSupersededPollNs : 0;
}

// Anybody who lets go of a dead session's last use comes through here.
void Session::ReleaseWhenIdle() {
  const std::lock_guard lock(mutex_);
  if (released_ || users_.load(std::memory_order_seq_cst) != 0 || !pins_.Idle()) return;
  released_ = true;
  maps_.Clear();
  // The doorbell's end tells the daemon that all is let go.  Shut down, not only closed: a forked
  // child may hold a copy for as long as it lives.
  shutdown(parts_.doorbell.get(), SHUT_RDWR);
  parts_ = Parts{};
}

}  // namespace terrace
