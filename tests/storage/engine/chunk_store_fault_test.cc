// Clients that hang, die, hold on, or damage what they may write to.

#include <fcntl.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/storage/engine/store_harness.h"

namespace terrace {
namespace {

constexpr uint32_t kBytes = 100'000;

TEST_F(StoreTest, ClaimEndsWithItsDeadlineAndALateCommitIsStale) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  const PutGrant grant = Begin(session, 1, kBytes, now_ns + kSecondNs);
  Fill(session, grant, 1, kBytes, 1);
  EXPECT_EQ(store->Tick(now_ns), now_ns + kSecondNs);
  now_ns += kSecondNs;
  store->Tick(now_ns);
  EXPECT_FALSE(Has(1));
  EXPECT_EQ(store->stats().claims_ended, 1u);
  EXPECT_EQ(Commit(session, grant.claim), StatusCode::kStale);
  EXPECT_EQ(Put(session, 1, kBytes), StatusCode::kOk);
  ExpectAccountsAddUp();
}

TEST_F(StoreTest, CommitPastTheDeadlineIsStaleEvenBeforeTheTick) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  const PutGrant grant = Begin(session, 1, kBytes, now_ns + kSecondNs);
  Fill(session, grant, 1, kBytes, 1);
  now_ns += kSecondNs;
  EXPECT_EQ(Commit(session, grant.claim), StatusCode::kStale);
  EXPECT_FALSE(Has(1));
}

TEST_F(StoreTest, DefaultDeadlineIsThirtySeconds) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  const PutGrant grant = Begin(session, 1, kBytes);
  Fill(session, grant, 1, kBytes, 1);
  now_ns += 30 * kSecondNs - 1;
  store->Tick(now_ns);
  EXPECT_EQ(Commit(session, grant.claim), StatusCode::kOk);
}

// A writer stopped in its copy: whatever it writes after its claim ended changes no chunk.
TEST_F(StoreTest, LateWriterOfAnEndedClaimHitsNoOtherChunk) {
  Open(SmallStore(16));
  TestSession hung(*store, 1);
  TestSession other(*store, 2);
  const PutGrant grant = Begin(hung, 1, kBytes, now_ns + kSecondNs);
  std::byte* late = hung.At(grant.location);
  now_ns += 20 * kSecondNs;
  store->Tick(now_ns);
  Churn(other, 160);
  EXPECT_NE(store->Address(grant.location), late);
  EXPECT_EQ(store->Address(grant.location), nullptr);  // reclaimed by a fresh memfd
  std::memset(late, 0xab, shm::RecordBytes(kBytes));
  uint64_t cursor = 0;
  for (const ChunkInfo& info : store->List(&cursor, 1000, now_ns)) {
    EXPECT_TRUE(Holds(info.key.words[0], info.payload_bytes, info.key.words[0]));
  }
  EXPECT_EQ(Commit(hung, grant.claim), StatusCode::kStale);
  ExpectAccountsAddUp();
}

TEST_F(StoreTest, AcknowledgedEndNeedsNoFreshMemfd) {
  for (const bool acknowledged : {false, true}) {
    Open(SmallStore(16));
    TestSession session(*store, 1);
    const PutGrant grant = Begin(session, 1, kBytes, now_ns + kSecondNs);
    now_ns += 2 * kSecondNs;
    store->Tick(now_ns);
    if (acknowledged) store->Acknowledge(session.id(), {&grant.claim, 1});
    Churn(session, 160);
    EXPECT_EQ(store->Address(grant.location) != nullptr, acknowledged);
  }
}

TEST_F(StoreTest, EachEndedClaimOfASegmentNeedsItsOwnAcknowledgement) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  const PutGrant a = Begin(session, 1, kBytes, now_ns + kSecondNs);
  const PutGrant b = Begin(session, 2, kBytes, now_ns + kSecondNs);
  ASSERT_EQ(a.location.segment, b.location.segment);
  now_ns += 2 * kSecondNs;
  store->Tick(now_ns);
  store->Acknowledge(session.id(), {&a.claim, 1});
  store->Acknowledge(session.id(), {&a.claim, 1});
  Churn(session, 160);
  EXPECT_EQ(store->Address(a.location), nullptr);
}

TEST_F(StoreTest, UnendedClaimsHoldTheirSegment) {
  Open(SmallStore(16));
  TestSession slow(*store, 1);
  TestSession other(*store, 2);
  const PutGrant grant = Begin(slow, 1, kBytes, now_ns + 500 * kSecondNs);
  Fill(slow, grant, 1, kBytes, 1);
  Churn(other, 160);
  EXPECT_EQ(Commit(slow, grant.claim), StatusCode::kOk);
  EXPECT_TRUE(Holds(1, kBytes, 1));
}

TEST_F(StoreTest, DeadSessionIsSweptAfterTheGrace) {
  Open(SmallStore(16));
  TestSession dying(*store, 1);
  TestSession other(*store, 2);
  ASSERT_EQ(Put(dying, 1, kBytes), StatusCode::kOk);
  ASSERT_TRUE(store->FindAndPin(dying.id(), ns, KeyOf(1), dying.pin(0)).ok());
  const PutGrant grant = Begin(dying, 2, kBytes);
  EXPECT_EQ(store->UseOf(dying.id()).pins, 1u);
  EXPECT_EQ(store->UseOf(dying.id()).claims, 1u);

  store->SessionDied(dying.id(), now_ns);
  EXPECT_EQ(store->Find(ns, KeyOf(2)).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Commit(dying, grant.claim), StatusCode::kStale);
  EXPECT_EQ(Begin(dying, 3, kBytes).status, StatusCode::kUnavailable);
  EXPECT_FALSE(store->PinsReleased(dying.id()));
  EXPECT_NE(dying.pin(0)->load(), 0u);
  EXPECT_EQ(store->Tick(now_ns), now_ns + kSecondNs);
  now_ns += kSecondNs - 1;
  store->Tick(now_ns);
  EXPECT_FALSE(store->PinsReleased(dying.id()));  // late DMA may still read under its pins
  EXPECT_NE(dying.pin(0)->load(), 0u);

  now_ns += 1;
  store->Tick(now_ns);
  EXPECT_TRUE(store->PinsReleased(dying.id()));
  EXPECT_EQ(dying.pin(0)->load(), 0u);
  const uint64_t fresh = store->stats().fresh_memfds;
  Churn(other, 160);
  EXPECT_FALSE(Has(1));
  EXPECT_EQ(store->stats().fresh_memfds, fresh);  // its poison went with it
  ExpectAccountsAddUp();
}

TEST_F(StoreTest, ClosedSessionKeepsItsPinsAndItsPoisonUntilItsDeath) {
  Open(SmallStore(16));
  TestSession closed(*store, 1);
  TestSession other(*store, 2);
  ASSERT_EQ(Put(closed, 1, kBytes), StatusCode::kOk);
  ASSERT_TRUE(store->FindAndPin(closed.id(), ns, KeyOf(1), closed.pin(0)).ok());
  const shm::Location location = store->Find(ns, KeyOf(1))->location;
  const std::byte* seen = closed.At(location) + shm::kRecordHeaderBytes;
  store->SessionClosed(closed.id(), now_ns);
  EXPECT_FALSE(store->MayPin(closed.id()));
  now_ns += 5 * kSecondNs;
  store->Tick(now_ns);
  EXPECT_FALSE(store->PinsReleased(closed.id()));
  Churn(other, 160);
  EXPECT_TRUE(PayloadIs(seen, kBytes, 1));
  store->SessionDied(closed.id(), now_ns);
  now_ns += 2 * kSecondNs;
  store->Tick(now_ns);
  EXPECT_TRUE(store->PinsReleased(closed.id()));
}

// ------------------------------------------------------------------------------------ pins

TEST_F(StoreTest, PinnedSegmentHoldsBackOnlyItself) {
  Open(SmallStore(16));
  TestSession reader(*store, 1);
  TestSession writer(*store, 2);
  ASSERT_EQ(Put(writer, 1, kBytes), StatusCode::kOk);
  const Result<ReadyChunk> pinned = store->FindAndPin(reader.id(), ns, KeyOf(1), reader.pin(0));
  ASSERT_TRUE(pinned.ok());
  const std::byte* seen = reader.At(pinned->location) + shm::kRecordHeaderBytes;
  const uint64_t busy = store->stats().busy;
  Churn(writer, 160);
  EXPECT_EQ(store->stats().busy, busy);
  EXPECT_TRUE(PayloadIs(seen, kBytes, 1));
  EXPECT_NE(store->Address(pinned->location), nullptr);
  ExpectAccountsAddUp();

  reader.pin(0)->store(0);
  Churn(writer, 160);
  EXPECT_FALSE(Has(1));
  EXPECT_EQ(store->stats().segments.draining, 0u);
}

TEST_F(StoreTest, PinsOnEverySegmentEmptyNoMoreThanAShareOfThePool) {
  Open(SmallStore(16));
  TestSession reader(*store, 1);
  TestSession writer(*store, 2);
  Churn(writer, 32);
  uint64_t cursor = 0;
  size_t pins = 0;
  for (const ChunkInfo& info : store->List(&cursor, 1000, now_ns)) {
    (void)store->FindAndPin(reader.id(), ns, info.key, reader.pin(pins++));
  }
  const uint64_t chunks = store->stats().chunk_count;
  for (uint64_t key = 0; key < 100; ++key) (void)Put(writer, key, store->chunk_bytes_max());
  EXPECT_GT(store->stats().busy, 0u);
  EXPECT_LE(store->stats().segments.draining, 2u);
  EXPECT_GE(store->stats().chunk_count + 6, chunks);

  for (size_t pin = 0; pin < pins; ++pin) reader.pin(pin)->store(0);
  now_ns += kSecondNs;
  EXPECT_EQ(Put(writer, 1000, store->chunk_bytes_max()), StatusCode::kOk);
  ExpectAccountsAddUp();
}

struct Held {
  const std::byte* payload;
  uint32_t bytes;
  uint64_t seed;
};

// Three clients, one after the other, pin all that they find and stop.  Each strands its eighth;
// together they strand no more than a quarter of the pool, and puts go on.
TEST_F(StoreTest, FruitlessSearchIsNotRepeatedForAMillisecond) {
  Open(SmallStore(16));
  TestSession writer(*store, 1), reader(*store, 2);
  for (uint64_t key = 0; key < 1000; ++key) Put(writer, key, 256 * kKiB);
  std::set<uint32_t> pinned;  // a chunk of each segment
  for (uint64_t key = 0; key < 1000; ++key) {
    const Result<ReadyChunk> found = store->Find(ns, KeyOf(key));
    if (!found.ok() || !pinned.insert(found->location.segment).second) continue;
    ASSERT_TRUE(store->FindAndPin(reader.id(), ns, KeyOf(key), reader.pin(pinned.size())).ok());
  }
  uint64_t key = 1000;
  while (key < 2000 && Put(writer, key, 256 * kKiB) == StatusCode::kOk) ++key;
  ASSERT_LT(key, 2000u);
  const uint64_t reclaims = store->stats().reclaims;
  for (size_t pin = 0; pin <= pinned.size(); ++pin) *reader.pin(pin) = 0;
  EXPECT_EQ(Put(writer, key, 256 * kKiB), StatusCode::kBusy);
  EXPECT_EQ(store->stats().reclaims, reclaims);
  now_ns += kSecondNs / 1000;
  EXPECT_EQ(Put(writer, key, 256 * kKiB), StatusCode::kOk);
}

TEST_F(StoreTest, RefusedPutsDoNotPutTheNextSearchOff) {
  Open(SmallStore(16));
  TestSession writer(*store, 1), reader(*store, 2);
  std::set<uint32_t> pinned;
  uint64_t key = 0;
  const auto put = [&] { return Put(writer, ++key, 256 * kKiB); };
  while (store->stats().segments.free > 1) ASSERT_EQ(put(), StatusCode::kOk);
  for (uint64_t at = 1; at <= key; ++at) {
    const Result<ReadyChunk> found = store->Find(ns, KeyOf(at));
    if (!found.ok() || !pinned.insert(found->location.segment).second) continue;
    ASSERT_TRUE(store->FindAndPin(reader.id(), ns, KeyOf(at), reader.pin(pinned.size())).ok());
  }
  while (key < 1000 && put() == StatusCode::kOk) {
  }
  ASSERT_LT(key, 1000u);
  for (size_t pin = 0; pin <= pinned.size(); ++pin) *reader.pin(pin) = 0;
  // A client that tries again ten times a millisecond.
  int refused = 0;
  for (; refused < 100 && put() == StatusCode::kBusy; ++refused) now_ns += kSecondNs / 10'000;
  EXPECT_GT(refused, 1);
  EXPECT_LE(refused, 11);
}

TEST_F(StoreTest, SegmentPinnedPastTheLeaseIsStrandedAndItsSessionGetsNoNewPins) {
  Open(SmallStore(16));
  TestSession writer(*store, 9);
  Churn(writer, 32);
  std::vector<std::unique_ptr<TestSession>> stopped;
  std::vector<Held> held;
  for (SessionId id = 1; id <= 3; ++id) {
    TestSession& session = *stopped.emplace_back(std::make_unique<TestSession>(*store, id));
    uint64_t cursor = 0;
    size_t pins = 0;
    for (const ChunkInfo& info : store->List(&cursor, 1000, now_ns)) {
      const auto found = store->FindAndPin(session.id(), ns, info.key, session.pin(pins++));
      ASSERT_TRUE(found.ok());
      held.push_back({session.At(found->location) + shm::kRecordHeaderBytes, found->payload_bytes,
                      info.key.words[0]});
    }
    ASSERT_GT(pins, 15u);
    for (int round = 0; round < 4; ++round) {
      Churn(writer, 4);
      now_ns += 31 * kSecondNs;
      store->Tick(now_ns);
      ExpectAccountsAddUp();
    }
    EXPECT_EQ(store->MayPin(session.id()), id == 3);
    EXPECT_EQ(store->UseOf(session.id()).stranded_bytes, id == 3 ? 0u : 2 * kTestSegmentBytes);
    EXPECT_EQ(store->stats().segments.stranded, std::min<uint64_t>(2 * id, 4));
    const StatusCode put = Put(writer, id, kBytes);
    EXPECT_TRUE(put == StatusCode::kOk || (id == 3 && put == StatusCode::kBusy));
  }
  EXPECT_EQ(store->stats().stranded_bytes, 4 * kTestSegmentBytes);
  std::atomic<uint64_t> word{0};
  EXPECT_EQ(store->FindAndPin(1, ns, KeyOf(1), &word).status().code(), StatusCode::kBusy);
  EXPECT_EQ(word.load(), 0u);
  for (const Held& at : held) EXPECT_TRUE(PayloadIs(at.payload, at.bytes, at.seed));

  for (const auto& session : stopped) {
    for (size_t pin = 0; pin < 64; ++pin) session->pin(pin)->store(0);
  }
  now_ns += kSecondNs;
  store->Tick(now_ns);
  EXPECT_EQ(store->stats().segments.stranded, 0u);
  EXPECT_TRUE(store->MayPin(1));
}

TEST_F(StoreTest, WhatTheDaemonItselfReadsIsNotStranded) {
  Open(SmallStore(16));
  TestSession trusted(*store, 1, true);
  TestSession writer(*store, 2);
  Churn(writer, 32);
  uint64_t cursor = 0;
  size_t pins = 0;
  std::vector<shm::Location> held;
  for (const ChunkInfo& info : store->List(&cursor, 1000, now_ns)) {
    held.push_back(store->FindAndPin(1, ns, info.key, trusted.pin(pins++))->location);
  }
  for (int round = 0; round < 4; ++round) {
    Churn(writer, 4);
    now_ns += 31 * kSecondNs;
    store->Tick(now_ns);
  }
  EXPECT_GT(store->stats().segments.draining, 0u);
  EXPECT_EQ(store->stats().segments.stranded, 0u);
  for (const shm::Location& at : held) EXPECT_NE(store->Address(at), nullptr);
}

TEST_F(StoreTest, ClaimOfTheDaemonItselfOutlastsItsCopy) {
  Open(SmallStore(16));
  TestSession trusted(*store, 1, true);
  const PutGrant grant = Begin(trusted, 1, kBytes, now_ns + 1);
  now_ns += 29 * kSecondNs;
  store->Tick(now_ns);
  Fill(trusted, grant, 1, kBytes, 1);
  EXPECT_EQ(Commit(trusted, grant.claim), StatusCode::kOk);
}

TEST_F(StoreTest, HeaderNamesTheMemfdThatIsThere) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  const PutGrant grant = Begin(session, 1, kBytes, now_ns + kSecondNs);
  now_ns += 2 * kSecondNs;
  store->Tick(now_ns);
  const uint64_t epoch = store->descriptor_epoch();
  Churn(session, 160);
  ASSERT_EQ(store->Address(grant.location), nullptr);
  EXPECT_NE(store->descriptor_epoch(), epoch);
  for (const SegmentDescriptor& given : store->Descriptors(session.id())) {
    const shm::SegmentEntry& entry = store->index().view().header->segments[given.segment];
    EXPECT_EQ(entry.generation.load(), given.generation);
    EXPECT_EQ(entry.bytes.load(), given.bytes);
  }
  const SegmentDescriptor gone{
      .segment = grant.location.segment, .generation = grant.location.generation, .bytes = 0};
  EXPECT_EQ(store->OpenSegment(session.id(), gone).status().code(), StatusCode::kStale);
}

// --------------------------------------------------------------------------------- damage

TEST_F(StoreTest, DamagedRecordIsNeverCarriedOver) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  for (uint64_t key = 0; key < 2; ++key) {
    ASSERT_EQ(Put(session, key, kBytes), StatusCode::kOk);
    ASSERT_EQ(store->Lease(ns, KeyOf(key), now_ns + 1000 * kSecondNs), StatusCode::kOk);
  }
  std::byte* record = session.At(store->Find(ns, KeyOf(0))->location);
  record[shm::kRecordHeaderBytes + 70'000] ^= std::byte{1};
  Churn(session, 160);
  EXPECT_FALSE(Has(0));
  EXPECT_TRUE(Holds(1, kBytes, 1));
  EXPECT_EQ(store->stats().corrupt_moves, 1u);
  EXPECT_EQ(store->stats().leased_keys, 1u);
  ExpectAccountsAddUp();
}

// Neither the header in the segment nor a table recomputed from it can bless other bytes.
TEST_F(StoreTest, RecordRewrittenWithItsHeaderIsNeverCarriedOver) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  const PutGrant grant = Begin(session, 1, kBytes);
  Fill(session, grant, 1, kBytes, 1);
  ASSERT_EQ(Commit(session, grant.claim), StatusCode::kOk);
  ASSERT_EQ(store->Lease(ns, KeyOf(1), now_ns + 1000 * kSecondNs), StatusCode::kOk);
  Fill(session, grant, 1, kBytes, 2);
  Churn(session, 160);
  EXPECT_FALSE(Has(1));
  EXPECT_EQ(store->stats().corrupt_moves, 1u);
}

TEST_F(StoreTest, PunchedHoleIsCorruptAndNoCrash) {
  Open(SmallStore(16));
  TestSession session(*store, 1);
  const PutGrant grant = Begin(session, 1, kBytes);
  Fill(session, grant, 1, kBytes, 1);
  const Result<UniqueFd> fd =
      store->OpenSegment(session.id(), {.segment = grant.location.segment,
                                        .generation = grant.location.generation,
                                        .bytes = kTestSegmentBytes,
                                        .writable = true});
  ASSERT_TRUE(fd.ok());
  ASSERT_EQ(fallocate(fd->get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kTestSegmentBytes),
            0);
  EXPECT_EQ(Commit(session, grant.claim), StatusCode::kCorrupt);
  EXPECT_FALSE(Has(1));
  ExpectAccountsAddUp();
}

}  // namespace
}  // namespace terrace
