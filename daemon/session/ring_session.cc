#include "daemon/session/ring_session.h"

#include <linux/futex.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <new>
#include <span>

#include "storage/base/clock.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

constexpr uint64_t kMemoryBytes = (sizeof(shm::SessionMemory) + 4095) / 4096 * 4096;
constexpr int64_t kGetDeadlineNsDefault = kNsPerSecond;
// Doorbell messages taken at a time: who sends without end gets no more of the shard than this.
constexpr int kDoorbellReadsMax = 64;

shm::ChunkKey KeyOf(const shm::KeyEntry& entry) {
  shm::ChunkKey key;
  std::copy(std::begin(entry.key), std::end(entry.key), key.words.begin());
  key.part = entry.part;
  key.length = entry.key_length;
  return key;
}

uint8_t Code(StatusCode status) { return static_cast<uint8_t>(status); }

}  // namespace

Result<std::unique_ptr<RingSession>> RingSession::Create(SessionId id, ChunkStore& store,
                                                         uint64_t boot_epoch) {
  std::unique_ptr<RingSession> session(new RingSession(id, store));
  Result<MemoryFile> memory =
      MemoryFile::Create("terrace-session-" + std::to_string(id), kMemoryBytes,
                         MemoryFileOptions{.best = PageRung::kSmall, .root = {}});
  if (!memory.ok()) return memory.status();
  session->memory_ = *std::move(memory);
  session->shared_ = new (session->memory_.mapping().writable_data()) shm::SessionMemory{};
  shm::SessionMemory& shared = *session->shared_;
  shared.layout_version = shm::kSessionLayoutVersion;
  shared.request_count = shm::kRequestCount;
  shared.batch_keys_max = shm::kBatchKeysMax;
  shared.pin_count = shm::kPinCount;
  shared.touch_count = shm::kTouchCount;
  shared.session_id = id;
  shared.boot_epoch = boot_epoch;
  shared.daemon_sleeping.store(1, std::memory_order_relaxed);
  shared.magic = shm::kSessionMagic;

  // A message socket: both ends send and receive with MSG_DONTWAIT, so the flags that the client
  // shares with us through its descriptor cannot make us wait.
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
    return ErrnoStatus("socketpair for a doorbell", errno);
  }
  session->doorbell_.Reset(ends[0]);
  session->client_doorbell_.Reset(ends[1]);
  store.OpenSession(id, SessionOptions{.trusted = false}, shared.pins, shm::kPinCount);
  return session;
}

RingSession::~RingSession() = default;

void RingSession::Break(std::string what) {
  if (broken_.empty()) broken_ = std::move(what);
}

bool RingSession::Poll(int64_t now_ns) {
  if (closed_ || !broken_.empty()) return false;
  const uint32_t tail = shared_->submit_tail.load(std::memory_order_acquire);
  if (tail == submit_head_) return false;
  DrainTouches();
  if (tail - submit_head_ > shm::kRequestCount) {
    Break("its submission ring's tail jumped");
    return true;
  }
  while (submit_head_ != tail && broken_.empty()) {
    // A completion entry is reserved before a submission is taken.
    const uint32_t unread = complete_tail_ - shared_->complete_head.load(std::memory_order_acquire);
    if (unread > shm::kRequestCount) {
      Break("its completion ring's head jumped");
      return true;
    }
    if (unread + in_flight_count_ >= shm::kRequestCount) return false;
    shm::SubmissionEntry entry;
    std::memcpy(&entry, &shared_->submissions[submit_head_ % shm::kRequestCount], sizeof entry);
    shared_->submit_head.store(++submit_head_, std::memory_order_release);
    if (!Accept(entry)) return true;
    Execute(entry, now_ns);
  }
  return true;
}

bool RingSession::Accept(const shm::SubmissionEntry& entry) {
  if (entry.request >= shm::kRequestCount || in_flight_[entry.request]) {
    Break("it submitted request " + std::to_string(entry.request) +
          ", which is out of range or in flight");
    return false;
  }
  if (entry.key_count > shm::kBatchKeysMax) {
    Break("it submitted " + std::to_string(entry.key_count) + " keys, more than 256");
    return false;
  }
  in_flight_[entry.request] = true;
  ++in_flight_count_;
  ++requests_;
  return true;
}

void RingSession::Execute(const shm::SubmissionEntry& entry, int64_t now_ns) {
  switch (static_cast<shm::Op>(entry.op)) {
    case shm::Op::kBeginPut: return BeginPut(entry, now_ns);
    case shm::Op::kCommit:
    case shm::Op::kAbort:
    case shm::Op::kAcknowledge: return EndClaims(entry, now_ns);
    case shm::Op::kGet:
    case shm::Op::kPrefetch:
    case shm::Op::kPersist: return Fetch(entry, now_ns);
    case shm::Op::kRemove:
    case shm::Op::kLease: return EachKey(entry, now_ns);
    case shm::Op::kCancel: return Cancel(entry);
  }
  for (uint32_t i = 0; i < entry.key_count; ++i) {
    ResultOf(entry.request, i).status = Code(StatusCode::kInvalid);
  }
  Complete(entry, StatusCode::kInvalid);  // an operation of a later version
}

shm::KeyEntry RingSession::CopyKey(uint32_t request, uint32_t index) const {
  shm::KeyEntry key;
  std::memcpy(&key, &shared_->requests[request].keys[index], sizeof key);
  return key;
}

shm::ResultEntry& RingSession::ResultOf(uint32_t request, uint32_t index) {
  return shared_->requests[request].results[index];
}

void RingSession::BeginPut(const shm::SubmissionEntry& entry, int64_t now_ns) {
  std::array<PutWant, shm::kBatchKeysMax> wants;
  std::array<PutGrant, shm::kBatchKeysMax> grants;
  for (uint32_t i = 0; i < entry.key_count; ++i) {
    const shm::KeyEntry key = CopyKey(entry.request, i);
    wants[i] = PutWant{.key = KeyOf(key), .payload_bytes = key.length};
  }
  store_.BeginPut(id_, entry.namespace_id, std::span(wants).first(entry.key_count),
                  std::max<int64_t>(entry.deadline_ns, 0), now_ns,
                  std::span(grants).first(entry.key_count));
  for (uint32_t i = 0; i < entry.key_count; ++i) {
    shm::ResultEntry& result = ResultOf(entry.request, i);
    result.location = grants[i].location.Pack();
    result.claim = grants[i].claim;
    result.status = Code(grants[i].status);
  }
  Complete(entry, StatusCode::kOk);
}

void RingSession::EndClaims(const shm::SubmissionEntry& entry, int64_t now_ns) {
  std::array<uint64_t, shm::kBatchKeysMax> claims;
  std::array<StatusCode, shm::kBatchKeysMax> results;
  results.fill(StatusCode::kOk);
  for (uint32_t i = 0; i < entry.key_count; ++i) claims[i] = CopyKey(entry.request, i).claim;
  const auto mine = std::span<const uint64_t>(claims).first(entry.key_count);
  if (static_cast<shm::Op>(entry.op) == shm::Op::kCommit) {
    store_.Commit(id_, mine, now_ns, std::span(results).first(entry.key_count));
  } else if (static_cast<shm::Op>(entry.op) == shm::Op::kAbort) {
    store_.Abort(id_, mine);
  } else {
    store_.Acknowledge(id_, mine);
  }
  for (uint32_t i = 0; i < entry.key_count; ++i) {
    ResultOf(entry.request, i).status = Code(results[i]);
  }
  Complete(entry, StatusCode::kOk);
}

Sought RingSession::Seek(const shm::SubmissionEntry& entry, const shm::KeyEntry& key,
                         int64_t now_ns) {
  Sought sought;
  sought.status = StatusCode::kInvalid;
  if (!KeyOf(key).valid()) return sought;
  LoadWish wish{.io_class = IoClass::kPrefetch, .deadline_ns = entry.deadline_ns};
  std::atomic<uint64_t>* pin = nullptr;
  if (static_cast<shm::Op>(entry.op) == shm::Op::kGet) {
    if (key.pin >= shm::kPinCount) return sought;
    pin = &shared_->pins[key.pin];
    if (pin->load(std::memory_order_relaxed) != 0) return sought;
    wish.io_class = IoClass::kDeadline;
  }
  return store_.FindOrLoad(id_, entry.namespace_id, KeyOf(key), pin, wish, now_ns);
}

bool RingSession::FetchKey(const shm::SubmissionEntry& entry, const shm::KeyEntry& key,
                           uint32_t index, int64_t now_ns) {
  if (static_cast<shm::Op>(entry.op) == shm::Op::kPersist) {
    const StatusCode status = KeyOf(key).valid()
                                  ? store_.Persist(entry.namespace_id, KeyOf(key), now_ns)
                                  : StatusCode::kInvalid;
    ResultOf(entry.request, index).status = Code(status);
    return status == StatusCode::kBusy;
  }
  const Sought sought = Seek(entry, key, now_ns);
  shm::ResultEntry& result = ResultOf(entry.request, index);
  result.status = Code(sought.status);
  if (sought.status == StatusCode::kOk) {
    result.location = sought.chunk.location.Pack();
    result.length = sought.chunk.payload_bytes;
    result.touch = sought.chunk.touch;
  }
  const bool may_wait = (entry.flags & shm::kWaitForFilling) != 0 && store_.MayPin(id_);
  return sought.loading || (sought.status == StatusCode::kBusy && may_wait);
}

void RingSession::Fetch(const shm::SubmissionEntry& entry, int64_t now_ns) {
  auto waiting = std::make_unique<Waiting>();
  waiting->entry = entry;
  int64_t& deadline = waiting->entry.deadline_ns;
  if (deadline <= 0) deadline = now_ns + kGetDeadlineNsDefault;
  deadline = std::min(deadline, now_ns + kRequestDeadlineNsMax);
  for (uint32_t i = 0; i < entry.key_count; ++i) {
    waiting->keys.push_back(CopyKey(entry.request, i));
    if (FetchKey(waiting->entry, waiting->keys[i], i, now_ns)) waiting->pending.push_back(i);
  }
  if (waiting->pending.empty()) return Complete(entry, StatusCode::kOk);
  waiting_.push_back(std::move(waiting));
}

void RingSession::Recheck(int64_t now_ns) {
  for (size_t at = 0; at < waiting_.size();) {
    Waiting& waiting = *waiting_[at];
    std::erase_if(waiting.pending,
                  [&](uint32_t i) { return !FetchKey(waiting.entry, waiting.keys[i], i, now_ns); });
    if (waiting.pending.empty()) {
      Complete(waiting.entry, StatusCode::kOk);
    } else if (waiting.entry.deadline_ns <= now_ns) {
      Expire(waiting, StatusCode::kDeadline);
    } else {
      ++at;
      continue;
    }
    waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(at));
  }
}

int64_t RingSession::NextDeadline() const {
  int64_t next = 0;
  for (const auto& waiting : waiting_) {
    if (next == 0 || waiting->entry.deadline_ns < next) next = waiting->entry.deadline_ns;
  }
  return next;
}

void RingSession::Expire(Waiting& waiting, StatusCode status) {
  for (const uint32_t i : waiting.pending) ResultOf(waiting.entry.request, i).status = Code(status);
  Complete(waiting.entry, status);
}

void RingSession::EachKey(const shm::SubmissionEntry& entry, int64_t now_ns) {
  for (uint32_t i = 0; i < entry.key_count; ++i) {
    const shm::ChunkKey key = KeyOf(CopyKey(entry.request, i));
    StatusCode status = StatusCode::kInvalid;
    if (!key.valid()) {
    } else if (static_cast<shm::Op>(entry.op) == shm::Op::kRemove) {
      const bool damaged = (entry.flags & shm::kFoundDamaged) != 0;
      status = store_.Remove(entry.namespace_id, key,
                             damaged ? ChunkCause::kDamagedForClient : ChunkCause::kRemoved);
    } else if (static_cast<shm::Op>(entry.op) == shm::Op::kLease) {
      const auto ttl = static_cast<int64_t>(
          std::min<uint64_t>(entry.argument, uint64_t{365} * 86400 * kNsPerSecond));
      status = store_.Lease(entry.namespace_id, key, now_ns + ttl);
    }
    ResultOf(entry.request, i).status = Code(status);
  }
  Complete(entry, StatusCode::kOk);
}

void RingSession::Cancel(const shm::SubmissionEntry& entry) {
  StatusCode status = StatusCode::kNotFound;  // it completed before
  for (size_t at = 0; at < waiting_.size(); ++at) {
    if (waiting_[at]->entry.tag != entry.argument) continue;
    Expire(*waiting_[at], StatusCode::kCancelled);
    waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(at));
    status = StatusCode::kOk;
    break;
  }
  Complete(entry, status);
}

void RingSession::Complete(const shm::SubmissionEntry& entry, StatusCode status) {
  shm::CompletionEntry done{};
  done.request = entry.request;
  done.status = Code(status);
  done.tag = entry.tag;
  done.key_count = entry.key_count;
  for (uint32_t i = 0; i < entry.key_count; ++i) {
    if (ResultOf(entry.request, i).status == Code(StatusCode::kOk)) ++done.ok_count;
  }
  shared_->completions[complete_tail_ % shm::kRequestCount] = done;
  in_flight_[entry.request] = false;
  --in_flight_count_;
  // seq_cst against client_waiting: either the client sees the new tail before it sleeps, or we see
  // that it sleeps.
  shared_->complete_tail.store(++complete_tail_, std::memory_order_seq_cst);
  if (shared_->client_waiting.load(std::memory_order_seq_cst) != 0) {
    syscall(SYS_futex, &shared_->complete_tail, FUTEX_WAKE_BITSET, INT_MAX, nullptr, nullptr,
            shm::WakeBit(entry.request));
  }
}

void RingSession::DrainTouches() {
  const uint32_t tail = shared_->touch_tail.load(std::memory_order_acquire);
  if (tail == touch_head_) return;
  if (tail - touch_head_ > shm::kTouchCount) return Break("its touch ring's tail jumped");
  for (; touch_head_ != tail; ++touch_head_) {
    store_.Touch(shared_->touches[touch_head_ % shm::kTouchCount].load(std::memory_order_relaxed));
  }
  shared_->touch_head.store(touch_head_, std::memory_order_release);
}

void RingSession::Close(StatusCode status) {
  if (closed_) return;
  for (auto& waiting : waiting_) Expire(*waiting, status);
  waiting_.clear();
  closed_ = true;
  shared_->state.store(static_cast<uint32_t>(shm::SessionState::kClosed),
                       std::memory_order_seq_cst);
  syscall(SYS_futex, &shared_->complete_tail, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void RingSession::PublishState() {
  if (closed_) return;
  const auto state = store_.MayPin(id_) ? shm::SessionState::kOpen : shm::SessionState::kNoPins;
  if (shared_->state.load(std::memory_order_relaxed) == static_cast<uint32_t>(state)) return;
  shared_->state.store(static_cast<uint32_t>(state), std::memory_order_release);
}

bool RingSession::AnnounceSleep() {
  if (closed_ || !broken_.empty()) return true;
  // seq_cst against the client's tail: either it sees that we sleep, or we see its entry.
  shared_->daemon_sleeping.store(1, std::memory_order_seq_cst);
  const uint32_t unread = complete_tail_ - shared_->complete_head.load(std::memory_order_seq_cst);
  if (unread + in_flight_count_ >= shm::kRequestCount) return true;
  return shared_->submit_tail.load(std::memory_order_seq_cst) == submit_head_;
}

void RingSession::AnnounceAwake() {
  if (!closed_) shared_->daemon_sleeping.store(0, std::memory_order_relaxed);
}

bool RingSession::DrainDoorbell() {
  char byte[16];
  for (int reads = 0; reads < kDoorbellReadsMax; ++reads) {
    const ssize_t got = recv(doorbell_.get(), byte, sizeof byte, MSG_DONTWAIT);
    if (got > 0 || (got < 0 && errno == EINTR)) continue;
    return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
  }
  return true;  // the rest rings again
}

uint64_t RingSession::touches_dropped() const {
  return shared_->touches_dropped.load(std::memory_order_relaxed);
}

}  // namespace terrace
