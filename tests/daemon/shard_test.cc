// The shard against a client written by hand over the shared memory: what the protocol promises,
// and what a hostile client can and cannot do.

#include "daemon/session/shard.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <future>
#include <map>
#include <thread>

#include "proto/shm/session_layout.h"
#include "storage/base/clock.h"
#include "storage/mem/guarded_copy.h"
#include "storage/mem/mapping.h"
#include "storage/record/copy_hash.h"
#include "storage/record/record.h"

namespace terrace {
namespace {

using std::chrono::seconds;

constexpr uint32_t kBytes = 100'000;

shm::ChunkKey Key(int n) { return shm::ChunkKey::FromBytes(&n, sizeof n, 0); }

// One client process' half, in this process.
class HandClient {
 public:
  HandClient(Shard& shard, SessionDescriptors descriptors) : shard_(shard) {
    memory_ = *Mapping::MapReadWrite(descriptors.memory.get(), descriptors.memory_bytes);
    index_memory_ = *Mapping::MapReadOnly(descriptors.index.get(), descriptors.index_bytes);
    index_ = shm::ViewIndex(index_memory_.data());
    doorbell_ = std::move(descriptors.doorbell);
  }

  shm::SessionMemory& shared() {
    return *reinterpret_cast<shm::SessionMemory*>(memory_.writable_data());
  }
  shm::KeyEntry& key(uint32_t request, uint32_t i) { return shared().requests[request].keys[i]; }
  const shm::ResultEntry& result(uint32_t request, uint32_t i) {
    return shared().requests[request].results[i];
  }
  void SetKey(uint32_t request, uint32_t i, const shm::ChunkKey& wanted) {
    shm::KeyEntry entry{};
    std::copy(wanted.words.begin(), wanted.words.end(), entry.key);
    entry.key_length = wanted.length;
    entry.part = wanted.part;
    entry.length = kBytes;
    key(request, i) = entry;
  }

  void Push(const shm::SubmissionEntry& entry) {
    shared().submissions[tail_ % shm::kRequestCount] = entry;
    shared().submit_tail.store(++tail_, std::memory_order_seq_cst);
    if (shared().daemon_sleeping.load(std::memory_order_seq_cst) != 0) {
      char byte = 0;
      send(doorbell_.get(), &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
  }

  // The next completion, or nothing within the time.
  std::optional<shm::CompletionEntry> Next(int64_t within_ns = 5 * kNsPerSecond) {
    const int64_t until = MonotonicNs() + within_ns;
    while (shared().complete_tail.load(std::memory_order_acquire) == head_) {
      if (MonotonicNs() > until) return std::nullopt;
      std::this_thread::yield();
    }
    const shm::CompletionEntry entry = shared().completions[head_ % shm::kRequestCount];
    shared().complete_head.store(++head_, std::memory_order_release);
    return entry;
  }

  shm::SubmissionEntry Entry(shm::Op op, uint32_t request, uint32_t keys) const {
    shm::SubmissionEntry entry{};
    entry.op = static_cast<uint8_t>(op);
    entry.request = request;
    entry.key_count = keys;
    entry.namespace_id = ns_.id;
    entry.tag = 1000 + request;
    return entry;
  }

  void RingDoorbell() {
    char byte = 0;
    send(doorbell_.get(), &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  void HangUp() { doorbell_.Reset(); }
  void set_namespace(shm::NamespaceRef ns) { ns_ = ns; }
  const shm::IndexView& index() const { return index_; }
  shm::NamespaceRef ns() const { return ns_; }
  Shard& shard() { return shard_; }

 private:
  Shard& shard_;
  Mapping memory_, index_memory_;
  shm::IndexView index_;
  UniqueFd doorbell_;
  shm::NamespaceRef ns_;
  uint32_t tail_ = 0, head_ = 0;
};

class ShardTest : public testing::Test {
 protected:
  explicit ShardTest(int64_t death_grace_ns = 10 * kNsPerMs) {
    EXPECT_TRUE(InstallGuard().ok());
    ChunkStoreOptions tenant;
    tenant.dram_bytes = 32 << 20;
    tenant.segment_bytes = 2 << 20;
    tenant.boot_epoch = 7;
    tenant.seed = 11;
    tenant.death_grace_ns = death_grace_ns;
    tenant.memory.best = PageRung::kSmall;
    ShardOptions options;
    options.tenants.push_back(tenant);
    options.session_count_max = 4;
    shard_ = *Shard::Create(std::move(options));
    shard_->Start();
  }
  ~ShardTest() override { shard_->Stop(); }

  template <typename T>
  T On(std::function<T()> work) {
    std::promise<T> answer;
    shard_->Post([&] { answer.set_value(work()); });
    return answer.get_future().get();
  }

  std::unique_ptr<HandClient> Join(const std::string& name = "test") {
    std::promise<Result<SessionDescriptors>> answer;
    shard_->Post([&] {
      const Result<SessionId> id = shard_->OpenSession(
          {.tenant = "default", .client_name = name, .pid = getpid(), .pidfd = UniqueFd()});
      ids_.push_back(id.ok() ? *id : 0);
      answer.set_value(id.ok() ? shard_->Attach(*id) : Result<SessionDescriptors>(id.status()));
    });
    Result<SessionDescriptors> descriptors = answer.get_future().get();
    EXPECT_TRUE(descriptors.ok());
    auto client = std::make_unique<HandClient>(*shard_, *std::move(descriptors));
    NamespaceSpec spec;
    spec.label = "n";
    client->set_namespace(On<shm::NamespaceRef>(
        [&] { return shard_->store("default")->RegisterNamespace(spec)->ref; }));
    return client;
  }

  // Claims and fills one key; answers the claim.
  uint64_t Fill(HandClient& client, int n) {
    client.SetKey(0, 0, Key(n));
    client.Push(client.Entry(shm::Op::kBeginPut, 0, 1));
    EXPECT_TRUE(client.Next().has_value());
    const shm::ResultEntry granted = client.result(0, 0);
    EXPECT_EQ(static_cast<StatusCode>(granted.status), StatusCode::kOk);
    On<bool>([&] {
      // A client writes through its own mapping of the same memfd.
      std::byte* record =
          shard_->store("default")->Address(shm::Location::Unpack(granted.location));
      const std::vector<char> payload(kBytes, static_cast<char>(n));
      uint64_t leaves[shm::kLeafCountMax];
      CopyAndHash(record + shm::kRecordHeaderBytes, payload.data(), kBytes, leaves);
      BuildHeader({.key = Key(n), .namespace_id = client.ns().id, .payload_bytes = kBytes}, leaves,
                  reinterpret_cast<shm::RecordHeader*>(record));
      return true;
    });
    return granted.claim;
  }

  StatusCode Commit(HandClient& client, uint64_t claim) {
    client.key(0, 0) = shm::KeyEntry{};
    client.key(0, 0).claim = claim;
    client.Push(client.Entry(shm::Op::kCommit, 0, 1));
    EXPECT_TRUE(client.Next().has_value());
    return static_cast<StatusCode>(client.result(0, 0).status);
  }

  StatusCode Get(HandClient& client, int n, uint32_t pin, uint32_t request = 1) {
    client.SetKey(request, 0, Key(n));
    client.key(request, 0).pin = pin;
    client.Push(client.Entry(shm::Op::kGet, request, 1));
    EXPECT_TRUE(client.Next().has_value());
    return static_cast<StatusCode>(client.result(request, 0).status);
  }

  // The daemon still serves somebody else.
  void ExpectServes() {
    auto other = Join();
    const int n = 900 + static_cast<int>(ids_.size());
    EXPECT_EQ(Commit(*other, Fill(*other, n)), StatusCode::kOk);
    EXPECT_EQ(Get(*other, n, 5), StatusCode::kOk);
  }

  bool IsClosed(HandClient& client) {
    const int64_t until = MonotonicNs() + 5 * kNsPerSecond;
    while (client.shared().state.load() != static_cast<uint32_t>(shm::SessionState::kClosed)) {
      if (MonotonicNs() > until) return false;
      std::this_thread::yield();
    }
    return true;
  }

  std::unique_ptr<Shard> shard_;
  std::vector<SessionId> ids_;
};

TEST_F(ShardTest, PutIsVisibleOnceCommitted) {
  auto client = Join();
  const uint64_t claim = Fill(*client, 1);
  shm::Found found;
  const uint64_t hash = shm::KeyHash(Key(1), client->ns().id, client->index().seed);
  EXPECT_EQ(shm::Find(client->index(), Key(1), client->ns().id, hash, &found), shm::Look::kFilling);
  EXPECT_EQ(Get(*client, 1, 0), StatusCode::kBusy);
  EXPECT_EQ(Commit(*client, claim), StatusCode::kOk);
  EXPECT_EQ(shm::Find(client->index(), Key(1), client->ns().id, hash, &found), shm::Look::kReady);
  EXPECT_EQ(found.length, kBytes);
  EXPECT_EQ(Get(*client, 1, 3), StatusCode::kOk);
  EXPECT_EQ(client->shared().pins[3].load(), shm::PinWord(found.location));
}

TEST_F(ShardTest, WaitingGetCompletesWithTheCommit) {
  auto writer = Join();
  auto reader = Join();
  const uint64_t claim = Fill(*writer, 2);
  reader->SetKey(1, 0, Key(2));
  reader->key(1, 0).pin = 9;
  shm::SubmissionEntry entry = reader->Entry(shm::Op::kGet, 1, 1);
  entry.flags = shm::kWaitForFilling;
  entry.deadline_ns = MonotonicNs() + 60 * kNsPerSecond;
  reader->Push(entry);
  EXPECT_FALSE(reader->Next(50 * kNsPerMs).has_value());
  EXPECT_EQ(Commit(*writer, claim), StatusCode::kOk);
  const auto done = reader->Next();
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->tag, entry.tag);
  EXPECT_EQ(static_cast<StatusCode>(reader->result(1, 0).status), StatusCode::kOk);
  EXPECT_NE(reader->shared().pins[9].load(), 0u);
}

TEST_F(ShardTest, WaitingGetEndsAtItsDeadlineOnce) {
  auto client = Join();
  Fill(*client, 3);
  client->SetKey(1, 0, Key(3));
  shm::SubmissionEntry entry = client->Entry(shm::Op::kGet, 1, 1);
  entry.flags = shm::kWaitForFilling;
  entry.deadline_ns = MonotonicNs() + 30 * kNsPerMs;
  client->Push(entry);
  const auto done = client->Next();
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(static_cast<StatusCode>(done->status), StatusCode::kDeadline);
  EXPECT_EQ(static_cast<StatusCode>(client->result(1, 0).status), StatusCode::kDeadline);
  EXPECT_EQ(client->shared().pins[0].load(), 0u);
  EXPECT_FALSE(client->Next(50 * kNsPerMs).has_value());
}

TEST_F(ShardTest, CancelEndsAWaitingGetAndItself) {
  auto client = Join();
  Fill(*client, 4);
  client->SetKey(1, 0, Key(4));
  shm::SubmissionEntry get = client->Entry(shm::Op::kGet, 1, 1);
  get.flags = shm::kWaitForFilling;
  get.deadline_ns = MonotonicNs() + 60 * kNsPerSecond;
  client->Push(get);
  shm::SubmissionEntry cancel = client->Entry(shm::Op::kCancel, 2, 0);
  cancel.argument = get.tag;
  client->Push(cancel);
  std::map<uint64_t, StatusCode> ends;
  for (int i = 0; i < 2; ++i) {
    const auto done = client->Next();
    ASSERT_TRUE(done.has_value());
    ends[done->tag] = static_cast<StatusCode>(done->status);
  }
  EXPECT_EQ(ends[get.tag], StatusCode::kCancelled);
  EXPECT_EQ(ends[cancel.tag], StatusCode::kOk);
}

TEST_F(ShardTest, FullRingIsServedAsCompletionsAreRead) {
  auto client = Join();
  for (uint32_t request = 0; request < shm::kRequestCount; ++request) {
    client->SetKey(request, 0, Key(50));
    client->Push(client->Entry(shm::Op::kPrefetch, request, 1));
  }
  for (uint32_t request = 0; request < shm::kRequestCount; ++request) {
    const auto done = client->Next();
    ASSERT_TRUE(done.has_value());
    EXPECT_EQ(static_cast<StatusCode>(client->result(done->request, 0).status),
              StatusCode::kNotFound);
  }
}

TEST_F(ShardTest, DeadClientsClaimsVanishAndItsKeysCanBePut) {
  auto client = Join();
  Fill(*client, 6);
  client->HangUp();
  ASSERT_TRUE(IsClosed(*client));
  auto other = Join();
  EXPECT_EQ(Commit(*other, Fill(*other, 6)), StatusCode::kOk);
}

class LongGraceTest : public ShardTest {
 protected:
  LongGraceTest() : ShardTest(60 * kNsPerSecond) {}
};

TEST_F(LongGraceTest, DeadSessionsKeepNobodyOutUntilThereAreTooMany) {
  for (int round = 0; round < 8; ++round) {  // twice the limit of the living
    auto client = Join();
    ASSERT_NE(ids_.back(), 0u) << round;
    client->HangUp();
    ASSERT_TRUE(IsClosed(*client));
  }
  const Result<SessionId> refused = On<Result<SessionId>>([&] {
    return shard_->OpenSession(
        {.tenant = "default", .client_name = "test", .pid = getpid(), .pidfd = UniqueFd()});
  });
  EXPECT_EQ(refused.status().code(), StatusCode::kBusy);
}

TEST_F(ShardTest, SessionsComeBackAfterTheGrace) {
  for (int round = 0; round < 12; ++round) {  // three times the limit of sessions
    auto client = Join();
    ASSERT_NE(ids_.back(), 0u) << round;
    client->HangUp();
    ASSERT_TRUE(IsClosed(*client));
    const int64_t until = MonotonicNs() + 5 * kNsPerSecond;
    while (On<size_t>([&] { return shard_->sessions().size(); }) != 0) {
      ASSERT_LT(MonotonicNs(), until);
      std::this_thread::yield();
    }
  }
}

// ------------------------------------------------------------------------ hostile clients

TEST_F(ShardTest, UnknownOperationIsInvalidAndHarmless) {
  auto client = Join();
  client->SetKey(0, 0, Key(7));
  shm::SubmissionEntry entry = client->Entry(shm::Op::kGet, 0, 1);
  entry.op = 200;
  client->Push(entry);
  const auto done = client->Next();
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(static_cast<StatusCode>(done->status), StatusCode::kInvalid);
  EXPECT_EQ(Commit(*client, Fill(*client, 7)), StatusCode::kOk);
}

TEST_F(ShardTest, BadPinIndexIsInvalid) {
  auto client = Join();
  EXPECT_EQ(Commit(*client, Fill(*client, 8)), StatusCode::kOk);
  EXPECT_EQ(Get(*client, 8, shm::kPinCount), StatusCode::kInvalid);
  EXPECT_EQ(Get(*client, 8, UINT32_MAX), StatusCode::kInvalid);
  client->shared().pins[4].store(77);  // in use
  EXPECT_EQ(Get(*client, 8, 4), StatusCode::kInvalid);
  EXPECT_EQ(client->shared().pins[4].load(), 77u);
}

TEST_F(ShardTest, ForeignClaimIsStale) {
  auto client = Join();
  auto thief = Join();
  const uint64_t claim = Fill(*client, 9);
  EXPECT_EQ(Commit(*thief, claim), StatusCode::kStale);
  EXPECT_EQ(Commit(*client, claim), StatusCode::kOk);
  EXPECT_EQ(Commit(*client, claim), StatusCode::kStale);
}

TEST_F(ShardTest, UnfilledRecordIsCorruptAndInvisible) {
  auto client = Join();
  client->SetKey(0, 0, Key(10));
  client->Push(client->Entry(shm::Op::kBeginPut, 0, 1));
  ASSERT_TRUE(client->Next().has_value());
  EXPECT_EQ(Commit(*client, client->result(0, 0).claim), StatusCode::kCorrupt);
  EXPECT_EQ(Get(*client, 10, 0), StatusCode::kNotFound);
}

TEST_F(ShardTest, ProtocolBreakersAreCutOffAlone) {
  const auto cut_off = [&](const char* what, std::function<void(HandClient&)> breach) {
    SCOPED_TRACE(what);
    auto client = Join();
    breach(*client);
    client->RingDoorbell();
    EXPECT_TRUE(IsClosed(*client));
    client->HangUp();
    ExpectServes();
    // The four sessions of this test's limit come back after the grace.
    const int64_t until = MonotonicNs() + 5 * kNsPerSecond;
    while (On<size_t>([&] { return shard_->sessions().size(); }) != 0) {
      ASSERT_LT(MonotonicNs(), until);
      std::this_thread::yield();
    }
  };
  cut_off("request out of range",
          [](HandClient& c) { c.Push(c.Entry(shm::Op::kGet, shm::kRequestCount, 0)); });
  cut_off("request in flight submitted again", [&](HandClient& c) {
    Fill(c, 777);
    c.SetKey(1, 0, Key(777));
    shm::SubmissionEntry get = c.Entry(shm::Op::kGet, 1, 1);
    get.flags = shm::kWaitForFilling;
    get.deadline_ns = MonotonicNs() + 60 * kNsPerSecond;
    c.Push(get);
    c.Push(get);
  });
  cut_off("too many keys",
          [](HandClient& c) { c.Push(c.Entry(shm::Op::kGet, 0, shm::kBatchKeysMax + 1)); });
  cut_off("submission tail jumps",
          [](HandClient& c) { c.shared().submit_tail.store(1000, std::memory_order_seq_cst); });
  cut_off("touch tail jumps", [](HandClient& c) {
    c.shared().touch_tail.store(shm::kTouchCount + 1, std::memory_order_seq_cst);
    c.Push(c.Entry(shm::Op::kPrefetch, 0, 0));
  });
  cut_off("completion head jumps", [](HandClient& c) {
    c.shared().complete_head.store(5000, std::memory_order_seq_cst);
    c.Push(c.Entry(shm::Op::kPrefetch, 0, 0));
  });
}

TEST_F(ShardTest, TouchesOfNothingAreDropped) {
  auto client = Join();
  for (uint32_t i = 0; i < 100; ++i) {
    client->shared().touches[i].store(shm::TouchWord(UINT32_MAX - i, i));
  }
  client->shared().touch_tail.store(100, std::memory_order_release);
  EXPECT_EQ(Commit(*client, Fill(*client, 11)), StatusCode::kOk);
  EXPECT_EQ(client->shared().touch_head.load(), 100u);
  EXPECT_EQ(On<uint64_t>([&] { return shard_->store("default")->stats().touches; }), 0u);
}

// Standard error of this process, from now on until the end of the life of this.
class Log {
 public:
  Log() : file_(memfd_create("log", MFD_CLOEXEC)), before_(dup(STDERR_FILENO)) {
    dup2(file_.get(), STDERR_FILENO);
  }
  ~Log() { dup2(before_.get(), STDERR_FILENO); }

  size_t Count(const std::string& what) const {
    std::string text(1 << 20, '\0');
    text.resize(static_cast<size_t>(pread(file_.get(), text.data(), text.size(), 0)));
    size_t count = 0;
    for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
      ++count;
    }
    return count;
  }

 private:
  UniqueFd file_, before_;
};

TEST_F(ShardTest, PoolFullOfPinsNamesWhoHoldsMostOfThemOnce) {
  const Log log;
  const std::unique_ptr<HandClient> writer = Join(), some = Join(), most = Join("an\nengine");
  const auto full = [&] {
    return On<uint64_t>([&] { return shard_->store("default")->full_count(); });
  };
  // Claims fill the pool; each further search for room is refused, one a millisecond.
  int next = 0;
  const auto refuse = [&](const std::function<bool()>& enough) {
    const int64_t until = MonotonicNs() + 10 * kNsPerSecond;
    while (!enough() && MonotonicNs() < until) {
      for (uint32_t i = 0; i < 256; ++i) writer->SetKey(0, i, Key(++next));
      writer->Push(writer->Entry(shm::Op::kBeginPut, 0, 256));
      ASSERT_TRUE(writer->Next().has_value());
    }
    ASSERT_TRUE(enough());
  };
  refuse([&] { return full() >= 3; });
  EXPECT_EQ(log.Count("no room"), 0u) << "nothing is pinned";

  const auto memfds =
      On<std::vector<SegmentDescriptor>>([&] { return shard_->store("default")->Descriptors(0); });
  ASSERT_EQ(memfds.size(), 16u);
  for (size_t i = 0; i < 8; ++i) {
    const uint64_t word = shm::PinWord(memfds[i].segment, memfds[i].generation);
    most->shared().pins[2 * i] = most->shared().pins[2 * i + 1] = word;
    if (i < 7) some->shared().pins[i] = word;
  }
  refuse([&] { return log.Count("no room") > 0; });
  const std::string who = "8 of 16 segments are pinned; most, 8, by session " +
                          std::to_string(ids_[2]) + " of pid " + std::to_string(getpid()) +
                          " (an?engine)";
  EXPECT_EQ(log.Count(who), 1u);
  const uint64_t before = full();
  refuse([&] { return full() >= before + 4; });
  EXPECT_EQ(log.Count("no room"), 1u);
  const auto sessions = On<std::vector<SessionSummary>>([&] { return shard_->sessions(); });
  EXPECT_EQ(sessions[2].pins, 16u);
  EXPECT_EQ(sessions[2].pinned_segments, 8u);
}

TEST_F(ShardTest, RingsAreServedBesideWorkThatPostsItself) {
  auto client = Join();
  std::atomic<bool> stop{false};
  std::atomic<int> turns{0};
  std::function<void()> again = [&] {
    ++turns;
    if (!stop.load()) shard_->Post(again);
  };
  shard_->Post(again);
  while (turns.load() < 1000) std::this_thread::yield();
  client->SetKey(1, 0, Key(1));
  client->Push(client->Entry(shm::Op::kPrefetch, 1, 1));
  EXPECT_TRUE(client->Next().has_value());
  stop = true;
  On<bool>([] { return true; });  // behind the last of them
}

TEST_F(ShardTest, StopClosesSessions) {
  auto client = Join();
  shard_->Stop();
  EXPECT_EQ(client->shared().state.load(), static_cast<uint32_t>(shm::SessionState::kClosed));
}

}  // namespace
}  // namespace terrace
