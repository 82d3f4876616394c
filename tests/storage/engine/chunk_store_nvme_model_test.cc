// Seeded runs of the store over a faulty disk, beside a model: whatever happens, a get answers the
// bytes that were put under that key in that epoch, or a miss; nothing hangs; the accounts add up.

#include <algorithm>
#include <random>
#include <set>

#include "tests/storage/engine/nvme_harness.h"

namespace terrace {
namespace {

constexpr uint64_t kKeys = 80;

class ChunkStoreNvmeModel : public NvmeStoreTest {
 protected:
  // Other bytes and lengths for each key and epoch.
  uint64_t SeedOf(uint64_t key) const { return key * 1000 + epoch; }
  uint32_t BytesOf(uint64_t key) const {
    return static_cast<uint32_t>(1 + (SeedOf(key) * 7919) % 400'000);
  }

  void Run(uint64_t seed, const SimFaults& with, bool honest) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    OpenNvme(static_cast<uint32_t>(4 + random() % 5), static_cast<uint32_t>(8 + random() % 16),
             with);
    for (int step = 0; step < 400 && !HasFatalFailure(); ++step) {
      const uint64_t key = random() % kKeys;
      switch (random() % 24) {
        case 0: {
          const StatusCode removed = store->Remove(ns, KeyOf(key));
          ASSERT_TRUE(removed == StatusCode::kOk || removed == StatusCode::kNotFound);
          break;
        }
        case 1:
          if (random() % 8 == 0) BumpAndStore();
          break;
        case 2: store->Lease(ns, KeyOf(key), now_ns + kSecondNs); break;
        case 3:
          if (random() % 6 == 0) End(random() % 2 == 0, honest);
          break;
        case 4: Settle(); break;
        case 5:
          if (random() % 10 == 0) Clear("ns");
          break;
        case 6: AdvanceTo(now_ns + static_cast<int64_t>(random() % (3 * kSecondNs))); break;
        case 7:
        case 8:
        case 9: Look(key, 1 + random() % 8); break;  // begun, and left alone
        case 10:
        case 11: {
          const StatusCode got = Get(key, BytesOf(key), SeedOf(key));
          ASSERT_NE(got, StatusCode::kCorrupt);
          ASSERT_NE(got, StatusCode::kStale);
          break;
        }
        default: {
          const StatusCode put = Put(*session, key, BytesOf(key), SeedOf(key));
          ASSERT_TRUE(put == StatusCode::kOk || put == StatusCode::kExists ||
                      put == StatusCode::kBusy)
              << StatusCodeName(put);
        }
      }
      for (size_t pin = 1; pin < 9; ++pin) session->pin(pin)->store(0);
      for (uint64_t steps = random() % 12; steps > 0; --steps) Step();
      store->Tick(now_ns);
      ExpectAccountsAddUp();
    }
  }

  void BumpAndStore() {
    const Result<NamespaceInfo> bumped = store->BumpEpoch("ns");
    ASSERT_TRUE(bumped.ok());
    ns = bumped->ref.id;
    epoch = bumped->epoch;
    const uint64_t version = store->namespaces_version();
    RunUntil([&] { return store->NamespacesStored(version).code() != StatusCode::kBusy; });
    stored = store->NamespacesStored(version).ok();
  }

  // The store's life ends.  On an honest disk what was durable is there in the next one, but for
  // what its reclaim has taken at once.
  void End(bool crash, bool honest) {
    // On a disk that fails it may never be drained.
    for (int steps = 0; !crash && steps < 20'000 && !store->DrainNvme(now_ns); ++steps) Step();
    std::set<uint64_t> durable;
    for (uint64_t key = 0; key < kKeys; ++key) {
      if (Durable(key)) durable.insert(key);
    }
    const uint64_t before = epoch;
    if (crash) {
      Crash();
    } else {
      ShutDown();
      Boot();
    }
    if (HasFatalFailure()) return;
    epoch = store->FindNamespace("ns")->epoch;
    if (!honest) return;
    ASSERT_TRUE(epoch == before || !stored);
    const auto lost = std::count_if(durable.begin(), durable.end(),
                                    [&](uint64_t key) { return TierOf(key) == "none"; });
    ASSERT_LE(static_cast<uint64_t>(lost), nvme().evicted);
  }

  uint64_t epoch = 0;
  bool stored = true;
};

TEST_F(ChunkStoreNvmeModel, AnHonestDiskLosesNothingThatWasDurable) {
  SimFaults honest;
  honest.again = 20;
  honest.stale = 10;
  honest.slow = 5;
  for (uint64_t seed = 1; seed <= 40 && !HasFailure(); ++seed) {
    Run(seed, honest, true);
    epoch = 0;
    stored = true;
    ShutDown();
    boots = 0;
  }
}

TEST_F(ChunkStoreNvmeModel, AFaultyDiskNeverGivesWrongBytes) {
  for (uint64_t seed = 1; seed <= 60 && !HasFailure(); ++seed) {
    Run(seed, SimFaults::Swarm(seed), false);
    epoch = 0;
    stored = true;
    ShutDown();
    boots = 0;
  }
}

}  // namespace
}  // namespace terrace
