#include "storage/engine/chunk_store.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/storage/engine/store_harness.h"

namespace terrace {
namespace {

constexpr uint32_t kBytes = 100'000;  // no multiple of anything

TEST_F(StoreTest, KeyIsAbsentThenFillingThenReadyThenAbsent) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  EXPECT_EQ(store->Find(ns, KeyOf(1)).status().code(), StatusCode::kNotFound);

  const PutGrant grant = Begin(session, 1, kBytes);
  ASSERT_EQ(grant.status, StatusCode::kOk);
  EXPECT_EQ(store->Find(ns, KeyOf(1)).status().code(), StatusCode::kBusy);
  EXPECT_EQ(store->Describe(ns, KeyOf(1), now_ns)->state, shm::SlotState::kFilling);
  EXPECT_EQ(Begin(session, 1, kBytes).status, StatusCode::kExists);
  EXPECT_EQ(store->Remove(ns, KeyOf(1)), StatusCode::kBusy);
  ExpectAccountsAddUp();

  const uint64_t settled = store->settled_count();
  Fill(session, grant, 1, kBytes, 1);
  EXPECT_EQ(Commit(session, grant.claim), StatusCode::kOk);
  EXPECT_GT(store->settled_count(), settled);
  EXPECT_TRUE(Holds(1, kBytes, 1));
  EXPECT_EQ(Begin(session, 1, kBytes).status, StatusCode::kExists);
  EXPECT_EQ(Commit(session, grant.claim), StatusCode::kStale);
  EXPECT_EQ(store->FindNamespace("ns")->chunk_bytes, kBytes);
  ExpectAccountsAddUp();

  EXPECT_EQ(store->Remove(ns, KeyOf(1)), StatusCode::kOk);
  EXPECT_EQ(store->Remove(ns, KeyOf(1)), StatusCode::kNotFound);
  EXPECT_FALSE(Has(1));
  EXPECT_EQ(store->FindNamespace("ns")->chunk_count, 0u);
  EXPECT_EQ(store->stats().dead_bytes, shm::RecordBytes(kBytes));
  ExpectAccountsAddUp();
}

TEST_F(StoreTest, AbortedKeyIsAbsentAndItsRoomDead) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  const PutGrant grant = Begin(session, 1, kBytes);
  store->Abort(session.id(), {&grant.claim, 1});
  EXPECT_EQ(store->Find(ns, KeyOf(1)).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Commit(session, grant.claim), StatusCode::kStale);
  EXPECT_EQ(store->stats().dead_bytes, shm::RecordBytes(kBytes));
  EXPECT_EQ(Put(session, 1, kBytes), StatusCode::kOk);
  ExpectAccountsAddUp();
}

TEST_F(StoreTest, SizesOutOfBoundsAreInvalid) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  EXPECT_EQ(store->chunk_bytes_max(), kTestSegmentBytes / 2 - shm::kRecordHeaderBytes);
  EXPECT_EQ(Begin(session, 1, 0).status, StatusCode::kInvalid);
  EXPECT_EQ(Begin(session, 1, store->chunk_bytes_max() + 1).status, StatusCode::kInvalid);
  EXPECT_EQ(Put(session, 1, 1), StatusCode::kOk);
  EXPECT_EQ(Put(session, 2, store->chunk_bytes_max()), StatusCode::kOk);
  EXPECT_TRUE(Holds(1, 1, 1));
  EXPECT_TRUE(Holds(2, store->chunk_bytes_max(), 2));
  ExpectAccountsAddUp();
}

TEST_F(StoreTest, KeyWithBytesBehindItsLengthIsInvalid) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  PutWant want{.key = KeyOf(1), .payload_bytes = kBytes};
  want.key.words[3] = 1;
  PutGrant grant;
  store->BeginPut(session.id(), ns, {&want, 1}, 0, now_ns, {&grant, 1});
  EXPECT_EQ(grant.status, StatusCode::kInvalid);
}

TEST_F(StoreTest, BatchSpansSegmentsAndClaimsATwiceNamedKeyOnce) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  const uint32_t bytes = store->chunk_bytes_max();
  std::vector<PutWant> wants;
  for (uint64_t key = 0; key < 8; ++key) wants.push_back({KeyOf(key), bytes});
  wants.push_back({KeyOf(0), bytes});
  std::vector<PutGrant> grants(wants.size());
  store->BeginPut(session.id(), ns, wants, 0, now_ns, grants);
  EXPECT_EQ(grants.back().status, StatusCode::kExists);
  grants.pop_back();

  std::set<uint32_t> segments;
  std::vector<uint64_t> claims;
  for (uint64_t key = 0; key < grants.size(); ++key) {
    ASSERT_EQ(grants[key].status, StatusCode::kOk);
    Fill(session, grants[key], key, bytes, key);
    segments.insert(grants[key].location.segment);
    claims.push_back(grants[key].claim);
  }
  EXPECT_EQ(segments.size(), 4u);
  ExpectAccountsAddUp();
  std::vector<StatusCode> results(claims.size());
  store->Commit(session.id(), claims, now_ns, results);
  for (uint64_t key = 0; key < claims.size(); ++key) {
    EXPECT_EQ(results[key], StatusCode::kOk);
    EXPECT_TRUE(Holds(key, bytes, key));
  }
}

TEST_F(StoreTest, ClaimsBelongToTheirSession) {
  Open(SmallStore(16));
  TestSession owner(*store, 1);
  TestSession thief(*store, 2);
  const PutGrant grant = Begin(owner, 1, kBytes);
  Fill(owner, grant, 1, kBytes, 1);
  EXPECT_EQ(Commit(thief, grant.claim), StatusCode::kStale);
  store->Abort(thief.id(), {&grant.claim, 1});
  EXPECT_EQ(Commit(owner, grant.claim), StatusCode::kOk);
}

TEST_F(StoreTest, ClaimsOfOneSessionAreBounded) {
  Open(SmallStore(128));
  TestSession session(*store, 1);
  TestSession other(*store, 2);
  for (uint64_t key = 0; key < kClaimCountMax; ++key) {
    ASSERT_EQ(Begin(session, key, 1).status, StatusCode::kOk);
  }
  EXPECT_EQ(Begin(session, kClaimCountMax, 1).status, StatusCode::kBusy);
  EXPECT_EQ(Begin(other, kClaimCountMax, 1).status, StatusCode::kOk);
  ExpectAccountsAddUp();
}

TEST_F(StoreTest, HeaderOfAnotherRecordIsCorrupt) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  const PutGrant grant = Begin(session, 1, kBytes);
  Fill(session, grant, 2, kBytes, 1);
  EXPECT_EQ(Commit(session, grant.claim), StatusCode::kCorrupt);
  EXPECT_FALSE(Has(1));
  EXPECT_EQ(store->stats().corrupt_commits, 1u);
  EXPECT_EQ(Put(session, 1, kBytes), StatusCode::kOk);
  ExpectAccountsAddUp();
}

TEST_F(StoreTest, FullProbeWindowIsBusyAndCostsNothing) {
  ChunkStoreOptions options = SmallStore(16);
  options.index_slots = 64;
  Open(options);
  TestSession session(*store, 1);
  for (uint64_t key = 0; key < 64; ++key) ASSERT_EQ(Put(session, key, 1), StatusCode::kOk);
  const uint64_t free_bytes = store->stats().free_bytes;
  EXPECT_EQ(Put(session, 64, 1), StatusCode::kBusy);
  EXPECT_EQ(store->stats().free_bytes, free_bytes);
  EXPECT_EQ(store->stats().busy, 1u);
  ExpectAccountsAddUp();
}

TEST_F(StoreTest, TouchWordsOfAnotherTimeAreIgnored) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  ASSERT_EQ(Put(session, 1, kBytes), StatusCode::kOk);
  const uint64_t touch = store->Find(ns, KeyOf(1))->touch;
  store->Touch(touch);
  EXPECT_EQ(store->stats().touches, 1u);
  store->Remove(ns, KeyOf(1));
  ASSERT_EQ(Put(session, 1, kBytes), StatusCode::kOk);
  store->Touch(touch);
  store->Touch(~uint64_t{0});
  EXPECT_EQ(store->stats().touches, 1u);
}

TEST_F(StoreTest, ListMeetsEveryReadyChunkOnce) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  for (uint64_t key = 0; key < 50; ++key) ASSERT_EQ(Put(session, key, 5000), StatusCode::kOk);
  (void)Begin(session, 99, 5000);
  std::set<uint64_t> seen;
  uint64_t cursor = 0;
  do {
    for (const ChunkInfo& info : store->List(&cursor, 7, now_ns)) {
      EXPECT_EQ(info.namespace_label, "ns");
      EXPECT_TRUE(seen.insert(info.key.words[0]).second);
    }
  } while (cursor != 0);
  EXPECT_EQ(seen.size(), 50u);
}

// ----------------------------------------------------------------------------- namespaces

TEST_F(StoreTest, NamespaceOfAnotherIdentityIsRefusedNamingTheField) {
  Open(SmallStore(16));
  NamespaceSpec spec;
  spec.label = "ns";
  EXPECT_EQ(store->RegisterNamespace(spec)->ref.id, ns);
  spec.dtype = "f16";
  const Result<NamespaceInfo> refused = store->RegisterNamespace(spec);
  EXPECT_EQ(refused.status().code(), StatusCode::kInvalid);
  EXPECT_NE(refused.status().ToString().find("dtype"), std::string::npos);
}

TEST_F(StoreTest, NamespacesShareNothing) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  NamespaceSpec spec;
  spec.label = "other";
  const uint32_t other = store->RegisterNamespace(spec)->ref.id;
  ASSERT_EQ(Put(session, 1, kBytes), StatusCode::kOk);
  EXPECT_EQ(store->Find(other, KeyOf(1)).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Clear("other"), 0u);
  EXPECT_TRUE(Has(1));
  EXPECT_EQ(Clear("ns"), 1u);
  EXPECT_FALSE(Has(1));
}

TEST_F(StoreTest, ClearLooksAtASliceOfTheIndexACall) {
  ChunkStoreOptions options = SmallStore(16);
  options.index_slots = 16384;
  Open(options);
  TestSession session(*store, 1);
  for (uint64_t key = 0; key < 64; ++key) ASSERT_EQ(Put(session, key, kBytes), StatusCode::kOk);
  uint64_t cursor = 0;
  const uint64_t first = *store->ClearNamespace("ns", &cursor);
  EXPECT_NE(cursor, 0u);
  EXPECT_GT(first, 0u);
  EXPECT_LT(first, 64u);
  uint64_t cleared = first;
  while (cursor != 0) cleared += *store->ClearNamespace("ns", &cursor);
  EXPECT_EQ(cleared, 64u);
  EXPECT_EQ(store->ClearNamespace("none", &cursor).status().code(), StatusCode::kNotFound);
}

TEST_F(StoreTest, OldestEmptyNamespaceYieldsToANewOneWhenAllAreInUse) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  ASSERT_EQ(Put(session, 1, kBytes), StatusCode::kOk);  // "ns", the oldest, has a chunk
  NamespaceSpec spec;
  uint32_t oldest = 0;
  for (uint32_t n = 1; n < shm::kLiveWordCount; ++n) {
    spec.label = "n" + std::to_string(n);
    const Result<NamespaceInfo> made = store->RegisterNamespace(spec);
    ASSERT_TRUE(made.ok());
    if (n == 1) oldest = made->ref.id;
  }
  spec.label = "one more";
  const Result<NamespaceInfo> made = store->RegisterNamespace(spec);
  ASSERT_TRUE(made.ok()) << made.status().ToString();
  EXPECT_GT(made->ref.id, oldest);
  EXPECT_EQ(store->Find(oldest, KeyOf(1)).status().code(), StatusCode::kStale);
  EXPECT_EQ(store->FindNamespace("n1").status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(store->FindNamespace("n2").ok());
  EXPECT_TRUE(Has(1));
}

TEST_F(StoreTest, SpecsAreBounded) {
  Open(SmallStore(16));
  NamespaceSpec spec;
  EXPECT_EQ(store->RegisterNamespace(spec).status().code(), StatusCode::kInvalid);
  spec.label = "big";
  spec.salt = std::string(kNamespaceSpecBytesMax + 1, 'x');
  EXPECT_EQ(store->RegisterNamespace(spec).status().code(), StatusCode::kInvalid);
  spec.salt.clear();
  EXPECT_TRUE(store->RegisterNamespace(spec).ok());
}

TEST_F(StoreTest, EpochBumpEndsKeysAndClaimsAndIsSweptInSlices) {
  ChunkStoreOptions options = SmallStore(16);
  options.index_slots = 65536;
  Open(options);
  TestSession session(*store, 1);
  for (uint64_t key = 0; key < 100; ++key) ASSERT_EQ(Put(session, key, 5000), StatusCode::kOk);
  const PutGrant late = Begin(session, 200, 5000);
  Fill(session, late, 200, 5000, 200);

  const uint32_t old = ns;
  ns = store->BumpEpoch("ns")->ref.id;
  EXPECT_NE(ns, old);
  EXPECT_EQ(store->Find(old, KeyOf(1)).status().code(), StatusCode::kStale);
  EXPECT_FALSE(Has(1));
  EXPECT_EQ(Commit(session, late.claim), StatusCode::kStale);
  EXPECT_EQ(store->stats().chunk_count, 100u);
  ASSERT_EQ(Put(session, 1, kBytes), StatusCode::kOk);  // beside the old one

  int ticks = 0;
  while (store->Tick(now_ns) == now_ns) ASSERT_LT(++ticks, 100);
  EXPECT_GE(ticks, 3);
  EXPECT_EQ(store->stats().chunk_count, 1u);
  EXPECT_TRUE(Holds(1, kBytes, 1));
  EXPECT_EQ(store->FindNamespace("ns")->chunk_count, 1u);
  ExpectAccountsAddUp();
}

TEST_F(StoreTest, BumpDuringASweepIsSweptAsWell) {
  ChunkStoreOptions options = SmallStore(16);
  options.index_slots = 65536;
  Open(options);
  TestSession session(*store, 1);
  for (int bump = 0; bump < 3; ++bump) {
    for (uint64_t key = 0; key < 100; ++key) ASSERT_EQ(Put(session, key, 5000), StatusCode::kOk);
    ns = store->BumpEpoch("ns")->ref.id;
    store->Tick(now_ns);
  }
  while (store->Tick(now_ns) == now_ns) continue;
  EXPECT_EQ(store->stats().chunk_count, 0u);
}

// --------------------------------------------------------------------------------- reclaim

TEST_F(StoreTest, FullPoolKeepsTakingPuts) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  for (uint64_t key = 0; key < 160; ++key) {
    ASSERT_EQ(Put(session, key, store->chunk_bytes_max()), StatusCode::kOk) << key;
    ASSERT_TRUE(Holds(key, store->chunk_bytes_max(), key));
    ExpectAccountsAddUp();
  }
  EXPECT_GT(store->stats().evicted, 120u);
  EXPECT_EQ(store->stats().busy, 0u);
}

TEST_F(StoreTest, ManyWritersInFewSegmentsAllGetRoom) {
  Open(SmallStore(8));
  std::vector<std::unique_ptr<TestSession>> sessions;
  for (SessionId id = 1; id <= 24; ++id) {
    sessions.push_back(std::make_unique<TestSession>(*store, id, id % 3 == 0));
  }
  for (uint64_t key = 0; key < 480; ++key) {
    now_ns += 1000;
    ASSERT_EQ(Put(*sessions[key % sessions.size()], key, 70'000), StatusCode::kOk) << key;
    ASSERT_TRUE(Holds(key, 70'000, key));
    ExpectAccountsAddUp();
  }
}

TEST_F(StoreTest, LeasedKeysOutliveReclaimUntilTheirTime) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  constexpr uint64_t kKeys = 60;  // three segments of survivors
  for (uint64_t key = 0; key < kKeys; ++key) {
    ASSERT_EQ(Put(session, key, kBytes), StatusCode::kOk);
    ASSERT_EQ(store->Lease(ns, KeyOf(key), now_ns + 1000 * kSecondNs), StatusCode::kOk);
  }
  EXPECT_EQ(store->Lease(ns, KeyOf(77), now_ns + kSecondNs), StatusCode::kNotFound);
  EXPECT_EQ(store->stats().leased_keys, kKeys);
  Churn(session, 100);
  for (uint64_t key = 0; key < kKeys; ++key) EXPECT_TRUE(Holds(key, kBytes, key)) << key;
  EXPECT_GE(store->stats().moved, kKeys);

  now_ns += 1001 * kSecondNs;
  store->Tick(now_ns);
  EXPECT_EQ(store->stats().leased_keys, 0u);
  Churn(session, 100);
  uint64_t left = 0;  // those in the survivors' open segment may stay
  for (uint64_t key = 0; key < kKeys; ++key) left += Has(key);
  EXPECT_LT(left, 20u);
  ExpectAccountsAddUp();
}

TEST_F(StoreTest, FewLeasesAmongManyRecordsAreAllKept) {
  // Reclaim appraises a sample of a segment's 2,048 records; leases are no matter of samples.
  ChunkStoreOptions options = SmallStore(0);
  options.segment_bytes = 16 * kMiB;
  options.dram_bytes = 8 * options.segment_bytes;
  Open(options);
  TestSession session(*store, 1, /*trusted=*/true);
  const uint64_t pool = options.dram_bytes / (2 * kPageBytes);
  for (uint64_t key = 0; key < pool / 2; ++key) {
    ASSERT_EQ(Put(session, key, kPageBytes), StatusCode::kOk);
    if (key % 64 == 1) {
      ASSERT_EQ(store->Lease(ns, KeyOf(key), now_ns + kSecondNs), StatusCode::kOk);
    }
  }
  for (uint64_t key = pool; key < 3 * pool; ++key) {
    ASSERT_EQ(Put(session, key, kPageBytes), StatusCode::kOk);
  }
  for (uint64_t key = 1; key < pool / 2; key += 64) EXPECT_TRUE(Has(key)) << key;
  EXPECT_FALSE(Has(0));
}

TEST_F(StoreTest, SparseTailsGoBeforeFullSegments) {
  for (const char* policy : {"lru", "gittins"}) {
    ChunkStoreOptions options = SmallStore(64);
    options.policy = policy;
    Open(options);
    TestSession writer(*store, 1);
    uint64_t key = 0;
    while (store->stats().segments.free > 2) {
      ASSERT_EQ(Put(writer, ++key, kBytes), StatusCode::kOk);
    }
    const uint64_t before = store->stats().evicted;
    // Each leaves a segment behind with one young chunk in it.
    for (SessionId id = 2; id < 102; ++id) {
      TestSession passing(*store, id);
      ASSERT_EQ(Put(passing, 1'000'000 + id, kPageBytes), StatusCode::kOk);
      store->SessionDied(id, now_ns);
      now_ns += 2 * kSecondNs;
      store->Tick(now_ns);
    }
    EXPECT_LE(store->stats().evicted - before, 3 * kTestSegmentBytes / kBytes) << policy;
    for (SessionId id = 2; id < 102; ++id) EXPECT_TRUE(Has(1'000'000 + id)) << policy;
  }
}

TEST_F(StoreTest, LeasesHoldAtMostHalfOfThePoolAndPutsGoOn) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  std::vector<uint64_t> leased;
  for (uint64_t key = 0; key < 400; ++key) {
    now_ns += 1000;
    ASSERT_EQ(Put(session, key, kBytes), StatusCode::kOk) << key;
    const StatusCode lease = store->Lease(ns, KeyOf(key), now_ns + 1000 * kSecondNs);
    ASSERT_TRUE(lease == StatusCode::kOk || lease == StatusCode::kBusy);
    if (lease == StatusCode::kOk) leased.push_back(key);
  }
  EXPECT_GT(leased.size() * shm::RecordBytes(kBytes), store->options().dram_bytes * 2 / 5);
  EXPECT_LE(leased.size() * shm::RecordBytes(kBytes), store->options().dram_bytes / 2);
  for (const uint64_t key : leased) EXPECT_TRUE(Holds(key, kBytes, key)) << key;
  ExpectAccountsAddUp();
}

TEST_F(StoreTest, DaemonFilledSegmentsAreNeverGivenWritable) {
  Open(SmallStore(16));
  TestSession client(*store, 1);
  TestSession trusted(*store, 2, true);
  ASSERT_EQ(Put(trusted, 1, kBytes), StatusCode::kOk);
  const shm::Location location = store->Find(ns, KeyOf(1))->location;
  for (const SegmentDescriptor& given : store->Descriptors(client.id())) {
    if (given.segment != location.segment) continue;
    EXPECT_FALSE(given.writable);
    SegmentDescriptor writable = given;
    writable.writable = true;
    EXPECT_EQ(store->OpenSegment(client.id(), writable).status().code(), StatusCode::kDenied);
  }
  const std::byte* seen = client.At(location);
  ASSERT_NE(seen, nullptr);
  EXPECT_TRUE(PayloadIs(seen + shm::kRecordHeaderBytes, kBytes, 1));
}

TEST_F(StoreTest, SegmentsChangeKindOnlyByAFreshMemfd) {
  Open(SmallStore(8));
  TestSession client(*store, 1);
  TestSession trusted(*store, 2, true);
  Churn(client, 8);
  const uint64_t before = store->stats().fresh_memfds;
  Churn(trusted, 16);
  EXPECT_GT(store->stats().fresh_memfds, before);
  uint64_t filled = 0;
  uint64_t cursor = 0;
  for (const ChunkInfo& info : store->List(&cursor, 1000, now_ns)) {
    if (info.key.words[0] < (uint64_t{1} << 40) + 16) continue;  // the client's
    for (const SegmentDescriptor& given : store->Descriptors(client.id())) {
      EXPECT_FALSE(given.segment == info.location.segment && given.writable);
    }
    ++filled;
  }
  EXPECT_GE(filled, 4u);
}

TEST_F(StoreTest, IdleTailsAreTakenBackEvenWithClaimsOpen) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  const PutGrant grant = Begin(session, 1, kBytes);
  EXPECT_EQ(store->stats().segments.open, 1u);
  now_ns += 11 * kSecondNs;
  EXPECT_GT(store->Tick(now_ns), now_ns);
  EXPECT_EQ(store->stats().segments.open, 0u);
  Fill(session, grant, 1, kBytes, 1);
  EXPECT_EQ(Commit(session, grant.claim), StatusCode::kOk);
  EXPECT_TRUE(Holds(1, kBytes, 1));
  ExpectAccountsAddUp();
}

TEST_F(StoreTest, IdleStoreAsksForNoTick) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  ASSERT_EQ(Put(session, 1, kBytes), StatusCode::kOk);
  now_ns += 20 * kSecondNs;
  EXPECT_EQ(store->Tick(now_ns), 0);
}

TEST_F(StoreTest, SizesThatMakeNoPoolAreRefusedNamingTheMend) {
  ChunkStoreOptions options = SmallStore(3);
  EXPECT_EQ(ChunkStore::Create(options).status().code(), StatusCode::kInvalid);
  options = SmallStore(16);
  options.segment_bytes = 3 * kMiB;
  EXPECT_EQ(ChunkStore::Create(options).status().code(), StatusCode::kInvalid);
  options = SmallStore(16);
  options.policy = "none";
  EXPECT_EQ(ChunkStore::Create(options).status().code(), StatusCode::kInvalid);
}

TEST_F(StoreTest, DefaultSegmentsLeaveAtLeastSixteen) {
  ChunkStoreOptions options = SmallStore(16);
  options.segment_bytes = 0;
  options.dram_bytes = 64 * kMiB;
  Open(options);
  EXPECT_EQ(store->options().segment_bytes, 4 * kMiB);
}

}  // namespace
}  // namespace terrace
