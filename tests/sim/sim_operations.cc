// What the clients of a simulated store do, and what each answer may be.

#include <gtest/gtest.h>

#include <algorithm>

#include "storage/base/clock.h"
#include "tests/sim/sim_world.h"

namespace terrace {
namespace {

constexpr size_t kOpenPutsMax = 6;
constexpr size_t kPinsMax = 16;
constexpr size_t kWaitersMax = 12;

}  // namespace

void SimWorld::Do(SimOperation operation) {
  switch (operation) {
    case SimOperation::kPut: return Put();
    case SimOperation::kBeginPut: return BeginPut();
    case SimOperation::kEndPut: return EndPut();
    case SimOperation::kGet: return Look(Wish::kGet);
    case SimOperation::kPrefetch: return Look(Wish::kPrefetch);
    case SimOperation::kHold: return Look(Wish::kHold);
    case SimOperation::kRelease: return Release();
    case SimOperation::kRemove: return Remove();
    case SimOperation::kLease: return Lease();
    case SimOperation::kPersist: return Look(Wish::kPersist);
    case SimOperation::kBump: return Bump();
    case SimOperation::kClear: return Clear();
    case SimOperation::kDie: return Die();
    case SimOperation::kRestart: return EndLife(End::kDrained);
    case SimOperation::kKill: return EndLife(End::kKilled);
    case SimOperation::kPowerLoss: return EndLife(End::kPowerLost);
    case SimOperation::kIdle:
      return AdvanceTo(now_ns_ + static_cast<int64_t>(Random(15 * kNsPerSecond)));
    case SimOperation::kSettle: return Settle();
  }
}

// Few keys are asked for often.
SimKey SimWorld::Pick(uint32_t* namespace_id) {
  const auto label = static_cast<uint32_t>(Random(plan_.labels));
  *namespace_id = labels_[label].id;
  const uint64_t key = Chance(50) ? Random(plan_.keys) : Random(1 + plan_.keys / 4);
  return {.label = label, .epoch = labels_[label].epoch, .key = key};
}

// ----------------------------------------------------------------------------------- puts

bool SimWorld::IsOpen(const SimKey& key) const {
  return std::any_of(puts_.begin(), puts_.end(),
                     [&](const OpenPut& put) { return put.key == key; });
}

bool SimWorld::Begin(OpenPut* put, int64_t deadline_ns) {
  put->client = Random(clients_.size());
  const Client& client = clients_[put->client];
  put->session = client.id;
  put->key = Pick(&put->namespace_id);
  put->version = model_.NewVersion();
  put->deadline_ns = deadline_ns;
  const PutWant want{.key = KeyOf(put->key.key), .payload_bytes = model_.BytesOf(put->version)};
  store_->BeginPut(client.id, put->namespace_id, {&want, 1}, deadline_ns, now_ns_,
                   {&put->grant, 1});
  switch (put->grant.status) {
    case StatusCode::kOk: break;
    case StatusCode::kBusy: return false;
    case StatusCode::kExists:
      EXPECT_TRUE(model_.MayExist(put->key) || IsOpen(put->key)) << "an absent key exists";
      return false;
    default: ADD_FAILURE() << "put: " << StatusCodeName(put->grant.status); return false;
  }
  put->record = client.session->At(put->grant.location);
  EXPECT_NE(put->record, nullptr);
  // What was there is gone by now.
  model_.Gone(put->key);
  return put->record != nullptr;
}

void SimWorld::Fill(const OpenPut& put) {
  WriteRecord(put.record,
              {.key = KeyOf(put.key.key),
               .namespace_id = put.namespace_id,
               .payload_bytes = model_.BytesOf(put.version)},
              put.version);
}

void SimWorld::Put() {
  OpenPut put;
  if (!Begin(&put, 0)) return;
  Fill(put);
  CommitPut(put);
}

void SimWorld::BeginPut() {
  if (puts_.size() == kOpenPutsMax) return;
  OpenPut put;
  const int64_t deadline_ns = now_ns_ + kNsPerMs + static_cast<int64_t>(Random(20 * kNsPerSecond));
  if (Begin(&put, deadline_ns)) puts_.push_back(put);
}

// Its claim has not ended: its session lives, its deadline is to come.
bool SimWorld::LivesStill(const OpenPut& put) const {
  return clients_[put.client].id == put.session &&
         (clients_[put.client].trusted || now_ns_ < put.deadline_ns);
}

void SimWorld::EndPut() {
  if (puts_.empty()) return;
  const size_t at = Random(puts_.size());
  const OpenPut put = puts_[at];
  const Client& client = clients_[put.client];
  if (client.id != put.session) {
    puts_.erase(puts_.begin() + static_cast<ptrdiff_t>(at));
    return;
  }
  if (Chance(20)) return;  // a slow client
  puts_.erase(puts_.begin() + static_cast<ptrdiff_t>(at));
  if (Chance(25)) return store_->Abort(client.id, {&put.grant.claim, 1});
  // A client that is late writes all the same, to what it has mapped; the daemon's own does not.
  if (!client.trusted || client.session->At(put.grant.location) != nullptr) Fill(put);
  CommitPut(put);
}

void SimWorld::CommitPut(const OpenPut& put) {
  const SessionId session = clients_[put.client].id;
  StatusCode result = StatusCode::kInvalid;
  store_->Commit(session, {&put.grant.claim, 1}, now_ns_, {&result, 1});
  const bool late = put.deadline_ns != 0 && put.deadline_ns <= now_ns_;
  const bool bumped = labels_[put.key.label].id != put.namespace_id;
  if (result == StatusCode::kStale) {
    EXPECT_TRUE(late || bumped) << "a commit in time is stale";
    return store_->Acknowledge(session, {&put.grant.claim, 1});
  }
  ASSERT_EQ(result, StatusCode::kOk);
  EXPECT_FALSE(bumped);
  model_.Committed(put.key, put.version);
  persisted_.erase(put.key);
  ++tally_.puts;
}

// ---------------------------------------------------------------------------------- reads

std::optional<size_t> SimWorld::TakePin(size_t client) {
  std::set<size_t>& pins = clients_[client].pins;
  for (size_t pin = 0; pin < kPinsMax; ++pin) {
    if (pins.insert(pin).second) return pin;
  }
  return std::nullopt;
}

void SimWorld::FreePin(size_t client, size_t pin) {
  clients_[client].session->pin(pin)->store(0);
  clients_[client].pins.erase(pin);
}

void SimWorld::Look(Wish wish) {
  Waiter waiter;
  waiter.wish = wish;
  waiter.since_ns = now_ns_;
  waiter.client = Random(clients_.size());
  waiter.key = Pick(&waiter.namespace_id);
  if (Chance(20)) {
    waiter.deadline_ns = now_ns_ + static_cast<int64_t>(Random(20 * kNsPerMs));
  }
  if (wish == Wish::kPersist) waiter.deadline_ns = now_ns_ + 30 * kNsPerSecond;
  if (wish == Wish::kGet || wish == Wish::kHold) {
    const std::optional<size_t> pin = TakePin(waiter.client);
    if (!pin) return;
    waiter.pin = *pin;
  }
  if (Ask(waiter)) return;
  if (waiters_.size() < kWaitersMax) return waiters_.push_back(waiter);
  if (wish == Wish::kGet || wish == Wish::kHold) FreePin(waiter.client, waiter.pin);
}

void SimWorld::AskAll() {
  const bool settled = store_->settled_count() != settled_;
  settled_ = store_->settled_count();
  for (size_t i = 0; i < waiters_.size();) {
    const Waiter waiter = waiters_[i];
    const bool expired = waiter.deadline_ns <= now_ns_;
    if ((!settled && !expired) || !Ask(waiter)) {
      ++i;
      continue;
    }
    waiters_.erase(waiters_.begin() + static_cast<ptrdiff_t>(i));
  }
}

bool SimWorld::Ask(const Waiter& waiter) {
  return waiter.wish == Wish::kPersist ? AskPersist(waiter) : AskFor(waiter);
}

bool SimWorld::AskFor(const Waiter& waiter) {
  const bool pinned = waiter.wish != Wish::kPrefetch;
  std::atomic<uint64_t>* const pin =
      pinned ? clients_[waiter.client].session->pin(waiter.pin) : nullptr;
  const LoadWish wish{.io_class = pinned ? IoClass::kDeadline : IoClass::kPrefetch,
                      .deadline_ns = waiter.deadline_ns};
  const Sought sought = store_->FindOrLoad(clients_[waiter.client].id, waiter.namespace_id,
                                           KeyOf(waiter.key.key), pin, wish, now_ns_);
  if (sought.loading) {
    EXPECT_EQ(sought.status, StatusCode::kBusy);
    EXPECT_TRUE(model_.MayExist(waiter.key)) << "an absent key is loaded";
    if (waiter.deadline_ns > now_ns_) return false;
  }
  if (sought.status == StatusCode::kOk) {
    Found(waiter, sought.chunk);
    return true;
  }
  if (pinned) FreePin(waiter.client, waiter.pin);
  switch (sought.status) {
    case StatusCode::kNotFound: ++tally_.misses; return true;
    case StatusCode::kBusy:
    case StatusCode::kIoError:
    case StatusCode::kDeadline: return true;
    case StatusCode::kStale:
      EXPECT_NE(labels_[waiter.key.label].id, waiter.namespace_id);
      return true;
    default: ADD_FAILURE() << "get: " << StatusCodeName(sought.status); return true;
  }
}

void SimWorld::Found(const Waiter& waiter, const ReadyChunk& chunk) {
  ++tally_.hits;
  if (waiter.wish == Wish::kPrefetch) return;
  Client& client = clients_[waiter.client];
  const std::byte* const record = client.session->At(chunk.location);
  ASSERT_NE(record, nullptr);
  const std::byte* const payload = record + shm::kRecordHeaderBytes;
  const uint64_t version = model_.Recognise(waiter.key, payload, chunk.payload_bytes);
  EXPECT_NE(version, 0u) << "wrong bytes of key " << waiter.key.key << " of label "
                         << waiter.key.label << " in epoch " << waiter.key.epoch;
  if (Chance(70)) store_->Touch(chunk.touch);
  if (waiter.wish == Wish::kGet || version == 0) return FreePin(waiter.client, waiter.pin);
  ++tally_.held;
  held_.push_back(
      {.client = waiter.client, .pin = waiter.pin, .version = version, .payload = payload});
}

bool SimWorld::AskPersist(const Waiter& waiter) {
  const StatusCode answer = store_->Persist(waiter.namespace_id, KeyOf(waiter.key.key), now_ns_);
  switch (answer) {
    case StatusCode::kBusy: return waiter.deadline_ns <= now_ns_;
    case StatusCode::kOk: {
      const Result<ChunkInfo> info =
          store_->Describe(waiter.namespace_id, KeyOf(waiter.key.key), now_ns_);
      EXPECT_TRUE(info.ok() && info->durable) << "persisted, and not durable";
      EXPECT_TRUE(model_.MayExist(waiter.key)) << "an absent key is persisted";
      persisted_.insert(waiter.key);
      ++tally_.persisted;
      return true;
    }
    case StatusCode::kNotFound:
    case StatusCode::kUnavailable:
    case StatusCode::kIoError: return true;
    case StatusCode::kStale:
      EXPECT_NE(labels_[waiter.key.label].id, waiter.namespace_id);
      return true;
    default: ADD_FAILURE() << "persist: " << StatusCodeName(answer); return true;
  }
}

void SimWorld::Release() {
  if (held_.empty()) return;
  const size_t at = Random(held_.size());
  CheckHeld(held_[at], true);
  FreePin(held_[at].client, held_[at].pin);
  held_.erase(held_.begin() + static_cast<ptrdiff_t>(at));
}

// ----------------------------------------------------------------------------------- keys

void SimWorld::Remove() {
  uint32_t namespace_id = 0;
  const SimKey key = Pick(&namespace_id);
  const StatusCode removed = store_->Remove(namespace_id, KeyOf(key.key));
  if (removed == StatusCode::kBusy) {
    EXPECT_TRUE(IsOpen(key)) << "nobody fills it";
    return;
  }
  ASSERT_TRUE(removed == StatusCode::kOk || removed == StatusCode::kNotFound);
  EXPECT_TRUE(removed != StatusCode::kOk || model_.MayExist(key)) << "an absent key is removed";
  model_.Gone(key);
  leases_.erase(key);
  persisted_.erase(key);
}

void SimWorld::Lease() {
  uint32_t namespace_id = 0;
  const SimKey key = Pick(&namespace_id);
  const int64_t until_ns = now_ns_ + static_cast<int64_t>(Random(10 * kNsPerSecond));
  const StatusCode leased = store_->Lease(namespace_id, KeyOf(key.key), until_ns);
  if (leased != StatusCode::kOk) {
    ASSERT_TRUE(leased == StatusCode::kNotFound || leased == StatusCode::kBusy);
    return;
  }
  int64_t& known_ns = leases_[key];
  known_ns = std::max(known_ns, until_ns);
  ++tally_.leased;
}

void SimWorld::Bump() {
  Label& label = labels_[Random(labels_.size())];
  const Result<NamespaceInfo> bumped = store_->BumpEpoch(label.name);
  ASSERT_TRUE(bumped.ok());
  label.id = bumped->ref.id;
  label.epoch = bumped->epoch;
  label.epoch_max = std::max(label.epoch_max, label.epoch);
  label.bump_version = store_->namespaces_version();
}

void SimWorld::Clear() {
  const auto label = static_cast<uint32_t>(Random(plan_.labels));
  uint64_t cursor = 0;
  do {
    const Result<uint64_t> cleared = store_->ClearNamespace(labels_[label].name, &cursor);
    ASSERT_TRUE(cleared.ok());
  } while (cursor != 0);
  model_.GoneAll(label, labels_[label].epoch);
  std::erase_if(leases_, [&](const auto& lease) { return lease.first.label == label; });
  std::erase_if(persisted_, [&](const SimKey& key) { return key.label == label; });
}

// A client's process dies with all that it had open.  Its last writes may land a little later.
void SimWorld::Die() {
  const size_t who = Random(clients_.size());
  for (size_t i = 0; i < held_.size();) {
    if (held_[i].client == who) {
      CheckHeld(held_[i], true);
      held_.erase(held_.begin() + static_cast<ptrdiff_t>(i));
    } else {
      ++i;
    }
  }
  std::erase_if(waiters_, [&](const Waiter& waiter) { return waiter.client == who; });
  store_->SessionDied(clients_[who].id, now_ns_);
  for (const OpenPut& put : puts_) {
    if (put.session == clients_[who].id && !clients_[who].trusted && Chance(50)) Fill(put);
  }
  dead_.push_back(std::move(clients_[who].session));
  Connect(who);
}

}  // namespace terrace
