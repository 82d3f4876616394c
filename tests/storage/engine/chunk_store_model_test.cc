// Random operations of several sessions against a map that remembers what was put: every chunk that
// is found has exactly its bytes, every pinned byte stays, whoever writes late, dies or holds on.

#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <random>

#include "tests/storage/engine/store_harness.h"

namespace terrace {
namespace {

constexpr int kSteps = 50'000;
constexpr uint64_t kKeys = 600;
constexpr size_t kSessions = 4;  // the last one is trusted

struct ModelCase {
  uint64_t seed;
  const char* policy;
};

class ModelTest : public StoreTest, public ::testing::WithParamInterface<ModelCase> {
 protected:
  struct Chunk {
    uint32_t bytes = 0;
    uint64_t seed = 0;
  };
  struct OpenPut {
    uint64_t key = 0;
    Chunk chunk;
    PutGrant grant;
    uint32_t epoch = 0;
    int64_t deadline_ns = 0;
  };
  struct Pin {
    const std::byte* payload = nullptr;
    Chunk chunk;
  };
  struct Client {
    std::unique_ptr<TestSession> session;
    std::vector<OpenPut> puts;
    std::vector<OpenPut> ended;  // stopped in the copy, their ends not acknowledged
    std::map<size_t, Pin> pins;
  };

  uint64_t Random(uint64_t below) { return random_() % below; }

  // 4 KiB to the maximum, small ones more often.
  uint32_t RandomBytes() {
    const uint64_t span = uint64_t{1} << (12 + Random(9));
    return static_cast<uint32_t>(std::min<uint64_t>(span + Random(span), store->chunk_bytes_max()));
  }

  void Connect(Client& client, bool trusted) {
    client.session = std::make_unique<TestSession>(*store, next_session_++, trusted);
  }

  void BeginOne(Client& client, bool trusted) {
    OpenPut put;
    put.key = Random(kKeys);
    put.chunk = {.bytes = RandomBytes(), .seed = next_seed_++};
    put.epoch = ns;
    put.deadline_ns = now_ns + static_cast<int64_t>(1 + Random(3)) * kSecondNs;
    if (trusted) put.deadline_ns = std::max(put.deadline_ns, now_ns + kPutDeadlineNsDefault);
    put.grant = Begin(*client.session, put.key, put.chunk.bytes, put.deadline_ns);
    if (put.grant.status != StatusCode::kOk) {
      ASSERT_TRUE(put.grant.status == StatusCode::kExists || put.grant.status == StatusCode::kBusy);
      return;
    }
    Fill(*client.session, put.grant, put.key, put.chunk.bytes, put.chunk.seed);
    client.puts.push_back(put);
  }

  void CommitOne(Client& client) {
    if (client.puts.empty()) return;
    const OpenPut put = TakeOne(&client.puts);
    const StatusCode committed = Commit(*client.session, put.grant.claim);
    const bool stale = put.deadline_ns <= now_ns || put.epoch != ns;
    ASSERT_EQ(committed, stale ? StatusCode::kStale : StatusCode::kOk);
    if (committed == StatusCode::kOk) oracle_[put.key] = put.chunk;
    if (stale) store->Acknowledge(client.session->id(), {&put.grant.claim, 1});
  }

  void AbortOne(Client& client) {
    if (client.puts.empty()) return;
    const OpenPut put = TakeOne(&client.puts);
    store->Abort(client.session->id(), {&put.grant.claim, 1});
  }

  // What a writer that was stopped in its copy does once it goes on: every claim of it that ended
  // may still be written to.
  void WriteLate(Client& client) {
    for (size_t i = 0; i < client.puts.size();) {
      if (client.puts[i].deadline_ns > now_ns) {
        ++i;
        continue;
      }
      client.ended.push_back(client.puts[i]);
      client.puts.erase(client.puts.begin() + static_cast<ptrdiff_t>(i));
    }
    for (const OpenPut& put : client.ended) {
      std::byte* record = client.session->At(put.grant.location);
      if (record != nullptr) std::memset(record, 0xee, shm::RecordBytes(put.chunk.bytes));
    }
    if (client.ended.empty() || Random(4) != 0) return;
    const OpenPut put = TakeOne(&client.ended);
    store->Acknowledge(client.session->id(), {&put.grant.claim, 1});
  }

  void Look(uint64_t key) {
    const Result<ReadyChunk> found = store->Find(ns, KeyOf(key));
    if (!found.ok()) return;
    const auto known = oracle_.find(key);
    ASSERT_NE(known, oracle_.end()) << "found a key that was removed or never put: " << key;
    ASSERT_TRUE(Holds(key, known->second.bytes, known->second.seed)) << key;
    if (Random(2) == 0) store->Touch(found->touch);
  }

  void PinOne(Client& client) {
    const size_t word = Random(8);
    const auto held = client.pins.find(word);
    if (held != client.pins.end()) {
      ASSERT_TRUE(
          PayloadIs(held->second.payload, held->second.chunk.bytes, held->second.chunk.seed));
      client.session->pin(word)->store(0);
      client.pins.erase(held);
      return;
    }
    const uint64_t key = Random(kKeys);
    const auto found =
        store->FindAndPin(client.session->id(), ns, KeyOf(key), client.session->pin(word));
    if (!found.ok()) return;
    const std::byte* record = client.session->At(found->location);
    ASSERT_NE(record, nullptr);
    client.pins[word] = {record + shm::kRecordHeaderBytes, oracle_.at(key)};
  }

  void RemoveOne() {
    const uint64_t key = Random(kKeys);
    const StatusCode removed = store->Remove(ns, KeyOf(key));
    if (removed == StatusCode::kOk) oracle_.erase(key);
  }

  void LeaseOne() {
    const uint64_t key = Random(kKeys);
    const int64_t until = now_ns + static_cast<int64_t>(Random(20)) * kSecondNs;
    if (store->Lease(ns, KeyOf(key), until) != StatusCode::kOk) return;
    leased_[key] = std::max(leased_[key], until);
  }

  void CheckLeases() {
    std::erase_if(leased_, [&](const auto& lease) {
      return lease.second <= now_ns || !oracle_.contains(lease.first);
    });
    for (const auto& [key, until] : leased_) ASSERT_TRUE(Has(key)) << "leased, and gone: " << key;
  }

  // Its memory is unmapped once nothing of it is left in the store.
  void Kill(Client& client, bool trusted) {
    store->SessionDied(client.session->id(), now_ns);
    dead_.push_back(std::move(client.session));
    client = Client();
    Connect(client, trusted);
  }

  void Bury() {
    std::erase_if(dead_, [&](const auto& session) { return store->PinsReleased(session->id()); });
  }

  void Bump() {
    ns = store->BumpEpoch("ns")->ref.id;
    oracle_.clear();
    leased_.clear();
  }

  void Step(Client& client, bool trusted) {
    const uint64_t dice = Random(1000);
    if (dice < 300) return BeginOne(client, trusted);
    if (dice < 580) return CommitOne(client);
    if (dice < 600) return AbortOne(client);
    if (dice < 640 && !trusted) return WriteLate(client);
    if (dice < 800) return Look(Random(kKeys));
    if (dice < 900) return PinOne(client);
    if (dice < 930) return RemoveOne();
    if (dice < 950) return LeaseOne();
    if (dice < 996) {
      now_ns += static_cast<int64_t>(Random(400)) * 1'000'000;
      store->Tick(now_ns);
      return Bury();
    }
    if (dice < 998) return Kill(client, trusted);
    if (dice == 998 && Random(4) == 0) return Bump();
  }

  OpenPut TakeOne(std::vector<OpenPut>* puts) {
    const auto at = puts->begin() + static_cast<ptrdiff_t>(Random(puts->size()));
    const OpenPut taken = *at;
    puts->erase(at);
    return taken;
  }

  std::mt19937_64 random_;
  SessionId next_session_ = 1;
  uint64_t next_seed_ = 1;
  std::map<uint64_t, Chunk> oracle_;  // put, and not removed; the store may have evicted some
  std::map<uint64_t, int64_t> leased_;
  std::vector<std::unique_ptr<TestSession>> dead_;
};

TEST_P(ModelTest, EveryChunkFoundHasItsBytes) {
  uint64_t seed = GetParam().seed;
  if (const char* given = std::getenv("TERRACE_TEST_SEED"))
    seed = std::strtoull(given, nullptr, 10);
  std::cout << "seed " << seed << " (TERRACE_TEST_SEED)\n";
  random_.seed(seed);
  ChunkStoreOptions options = SmallStore(24);
  options.policy = GetParam().policy;
  Open(options);
  std::vector<Client> clients(kSessions);
  for (size_t i = 0; i < kSessions; ++i) Connect(clients[i], i + 1 == kSessions);

  for (int step = 0; step < kSteps; ++step) {
    const size_t who = Random(kSessions);
    Step(clients[who], who + 1 == kSessions);
    ExpectAccountsAddUp();
    CheckLeases();
    if (HasFatalFailure()) FAIL() << "at step " << step << " of seed " << seed;
  }
  for (uint64_t key = 0; key < kKeys; ++key) Look(key);
  for (Client& client : clients) {
    for (const auto& [word, pin] : client.pins) {
      EXPECT_TRUE(PayloadIs(pin.payload, pin.chunk.bytes, pin.chunk.seed));
    }
  }
  // All that the run was for did happen.
  const ChunkStoreStats stats = store->stats();
  EXPECT_GT(stats.puts, 2000u);
  EXPECT_GT(stats.gets, 1000u);
  EXPECT_GT(stats.evicted, 100u);
  EXPECT_GT(stats.moved, 50u);
  EXPECT_GT(stats.claims_ended, 50u);
  EXPECT_GT(stats.fresh_memfds, 10u);
  EXPECT_EQ(stats.corrupt_moves, 0u);
  EXPECT_EQ(stats.corrupt_commits, 0u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, ModelTest,
                         ::testing::Values(ModelCase{1, "lru"}, ModelCase{2, "gittins"},
                                           ModelCase{3, "gittins"}),
                         [](const auto& model) {
                           return model.param.policy + std::to_string(model.param.seed);
                         });

}  // namespace
}  // namespace terrace
