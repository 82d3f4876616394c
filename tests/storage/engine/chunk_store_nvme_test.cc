// Chunks between DRAM and NVMe: out, back, and what becomes of them when things happen meanwhile.

#include "tests/storage/engine/nvme_harness.h"

namespace terrace {
namespace {

constexpr uint32_t kBytes = 300 * 1000;  // six in a segment of 2 MiB

class ChunkStoreNvme : public NvmeStoreTest {
 protected:
  // Puts keys [from, to) and lets each be written.
  void Fill(uint64_t from, uint64_t to) {
    for (uint64_t key = from; key < to; ++key) {
      ASSERT_EQ(PutKey(key, kBytes), StatusCode::kOk) << key;
      Settle();
    }
  }
  // The first key that has left DRAM.
  uint64_t FirstOut(uint64_t to) {
    for (uint64_t key = 0; key < to; ++key) {
      if (TierOf(key) == "nvme") return key;
    }
    ADD_FAILURE() << "nothing left DRAM";
    return to;
  }
};

TEST_F(ChunkStoreNvme, WhatLeavesDramComesBackWithItsBytes) {
  OpenNvme(4, 24);
  Fill(0, 60);
  uint32_t out = 0;
  for (uint64_t key = 0; key < 60; ++key) out += TierOf(key) == "nvme";
  EXPECT_GE(out, 30u);
  for (uint64_t key = 0; key < 60; ++key) {
    EXPECT_TRUE(Durable(key)) << key;
    EXPECT_EQ(Get(key, kBytes), StatusCode::kOk) << key;
    EXPECT_EQ(TierOf(key), "dram");
  }
  EXPECT_EQ(store->stats().chunk_count, 60u);
  EXPECT_GE(nvme().loads, out);
  ExpectAccountsAddUp();
}

TEST_F(ChunkStoreNvme, AFreshPutIsInDramUntilItIsWritten) {
  OpenNvme(4, 24);
  ASSERT_EQ(Put(*session, 1, kBytes), StatusCode::kOk);
  EXPECT_EQ(TierOf(1), "dram");
  EXPECT_FALSE(Durable(1));
  Settle();
  EXPECT_TRUE(Durable(1));
  EXPECT_EQ(TierOf(1), "dram");
}

TEST_F(ChunkStoreNvme, ManyWhoWaitShareOneRead) {
  OpenNvme(4, 24);
  Fill(0, 40);
  const uint64_t key = FirstOut(40);
  const uint64_t reads = nvme().log.reads.reads;
  for (size_t pin = 0; pin < 8; ++pin) {
    const Sought sought = Look(key, pin);
    EXPECT_EQ(sought.status, StatusCode::kBusy);
    EXPECT_TRUE(sought.loading);
    EXPECT_EQ(session->pin(pin)->load(), 0u);
  }
  EXPECT_EQ(nvme().loading, 1u);
  Settle();
  for (size_t pin = 0; pin < 8; ++pin) {
    EXPECT_EQ(Look(key, pin).status, StatusCode::kOk);
    EXPECT_NE(session->pin(pin)->load(), 0u);
  }
  EXPECT_EQ(nvme().log.reads.reads, reads + 1);
}

TEST_F(ChunkStoreNvme, AMatchCountsWhatIsElsewhere) {
  OpenNvme(4, 24);
  Fill(0, 40);
  const uint64_t key = FirstOut(40);
  shm::Found found;
  const shm::ChunkKey wanted = KeyOf(key);
  EXPECT_EQ(shm::Find(store->index().view(), wanted, ns, store->index().Hash(wanted, ns), &found),
            shm::Look::kElsewhere);
  EXPECT_EQ(found.length, kBytes);
  EXPECT_FALSE(store->Find(ns, wanted).ok());
  EXPECT_EQ(PutKey(key, kBytes), StatusCode::kExists);
}

TEST_F(ChunkStoreNvme, DamageOnTheDeviceIsAMissThatTheNextPutHeals) {
  OpenNvme(4, 24);
  Fill(0, 40);
  const uint64_t key = FirstOut(40);
  for (uint64_t at = 0; at < medium->bytes(); at += 128 * kKiB) medium->FlipBit(at + 5000, 3);
  EXPECT_EQ(Get(key, kBytes), StatusCode::kNotFound);
  EXPECT_EQ(TierOf(key), "none");
  EXPECT_EQ(nvme().load_corrupt, 1u);
  EXPECT_EQ(PutKey(key, kBytes), StatusCode::kOk);
  EXPECT_EQ(Get(key, kBytes), StatusCode::kOk);
  ExpectAccountsAddUp();
}

TEST_F(ChunkStoreNvme, WhatHealedDamageIsFoundByTheNextLife) {
  OpenNvme(4, 24);
  ASSERT_EQ(PutKey(1, kBytes), StatusCode::kOk);
  Restart();
  const uint64_t payload =
      SegmentOffset(0, kTestSegmentBytes) + sizeof(SegmentHead) + shm::kRecordHeaderBytes;
  medium->FlipBit(payload + 100, 3);
  EXPECT_EQ(Get(1, kBytes), StatusCode::kNotFound);
  ASSERT_EQ(PutKey(1, kBytes), StatusCode::kOk);
  Restart();
  EXPECT_EQ(Get(1, kBytes), StatusCode::kOk);
  EXPECT_EQ(nvme().load_corrupt, 0u);
  EXPECT_EQ(nvme().recovered, 1u);
  EXPECT_EQ(nvme().refused, 1u);
}

TEST_F(ChunkStoreNvme, AReadErrorIsAMissThatTheNextPutHeals) {
  OpenNvme(4, 24);
  Fill(0, 40);
  const uint64_t key = FirstOut(40);
  device->faults().read_error = 1000;
  EXPECT_NE(Get(key, kBytes), StatusCode::kOk);
  EXPECT_EQ(TierOf(key), "none");
  device->faults().read_error = 0;
  EXPECT_EQ(PutKey(key, kBytes), StatusCode::kOk);
  EXPECT_EQ(Get(key, kBytes), StatusCode::kOk);
}

TEST_F(ChunkStoreNvme, ADeviceThatCannotBeWrittenStillServes) {
  OpenNvme(4, 24);
  Fill(0, 40);
  device->faults().write_error = 1000;
  for (uint64_t key = 100; key < 140; ++key) {
    ASSERT_EQ(PutKey(key, kBytes), StatusCode::kOk) << key;
    RunUntil([&] { return store->stats().nvme.demoting == 0; });
  }
  EXPECT_TRUE(nvme().log.writes.breaker_open);
  EXPECT_LE(nvme().log.segments.quarantined, 1u);
  uint32_t found = 0;
  for (uint64_t key = 0; key < 40; ++key) found += Get(key, kBytes) == StatusCode::kOk;
  EXPECT_EQ(found, 40u);
  device->faults().write_error = 0;
  AdvanceTo(now_ns + 120 * kSecondNs);
  ASSERT_EQ(PutKey(500, kBytes), StatusCode::kOk);
  Settle();
  EXPECT_TRUE(Durable(500));
}

TEST_F(ChunkStoreNvme, AWriteThatFailedIsTriedAgain) {
  OpenNvme(4, 24);
  device->faults().write_error = 1000;
  ASSERT_EQ(PutKey(1, kBytes), StatusCode::kOk);
  RunUntil([&] { return nvme().demote_failed > 0; });
  EXPECT_FALSE(Durable(1));
  device->faults().write_error = 0;
  Settle();
  EXPECT_TRUE(Durable(1));
}

TEST_F(ChunkStoreNvme, ADrainEndsThoughTheDeviceCannotBeWritten) {
  OpenNvme(4, 24);
  Fill(0, 4);
  device->faults().write_error = 1000;
  for (uint64_t key = 10; key < 14; ++key) ASSERT_EQ(PutKey(key, kBytes), StatusCode::kOk);
  const int64_t began_ns = now_ns;
  bool drained = false;
  RunUntil([&] { return drained = store->DrainNvme(now_ns); });
  EXPECT_TRUE(drained);
  EXPECT_LT(now_ns - began_ns, 2 * kSecondNs);
}

TEST_F(ChunkStoreNvme, AWishThatIsTooLateBeginsNoRead) {
  OpenNvme(4, 24);
  Fill(0, 40);
  const uint64_t key = FirstOut(40);
  const LoadWish late{.deadline_ns = now_ns};
  const Sought sought = store->FindOrLoad(kSession, ns, KeyOf(key), session->pin(0), late, now_ns);
  EXPECT_EQ(sought.status, StatusCode::kBusy);
  EXPECT_FALSE(sought.loading);
  EXPECT_EQ(nvme().loading, 0u);
  EXPECT_EQ(TierOf(key), "nvme");
}

// A get joins a prefetch: the read takes the get's place in the queue, and its deadline.
TEST_F(ChunkStoreNvme, AReadIsAsUrgentAsWhoeverWantsItMost) {
  OpenNvme(8, 24);
  Fill(0, 80);
  IoBudgets one_at_a_time = device->budgets();
  one_at_a_time.read_bytes = kPageBytes;
  device->SetBudgets(one_at_a_time);
  const auto prefetch = [&](uint64_t key, int64_t deadline_ns) {
    const LoadWish wish{.io_class = IoClass::kPrefetch, .deadline_ns = deadline_ns};
    return store->FindOrLoad(kSession, ns, KeyOf(key), nullptr, wish, now_ns).loading;
  };
  const uint64_t first = FirstOut(80);
  ASSERT_TRUE(prefetch(first, INT64_MAX));
  store->PollNvme(now_ns);  // on its way
  ASSERT_TRUE(prefetch(first + 1, now_ns + 1) && prefetch(first + 2, now_ns + 1));
  ASSERT_TRUE(Look(first + 2).loading);
  Settle();
  EXPECT_EQ(TierOf(first), "dram");
  EXPECT_EQ(TierOf(first + 1), "nvme") << "nobody waited for it any more";
  EXPECT_EQ(TierOf(first + 2), "dram");
}

TEST_F(ChunkStoreNvme, WhatIsPersistedGoesBeforeTheRestAndSurvivesTheLossOfPower) {
  OpenNvme(16, 24);
  for (uint64_t key = 0; key < 60; ++key) {
    ASSERT_EQ(Put(*session, key, kBytes), StatusCode::kOk) << key;
  }
  EXPECT_EQ(store->Persist(ns, KeyOf(59), now_ns), StatusCode::kBusy);
  EXPECT_EQ(store->Persist(ns, KeyOf(59), now_ns), StatusCode::kBusy);  // no second time
  uint64_t settled = store->settled_count();
  RunUntil([&] { return store->settled_count() != settled && Durable(59); });
  EXPECT_EQ(store->Persist(ns, KeyOf(59), now_ns), StatusCode::kOk);
  EXPECT_FALSE(Durable(50)) << "all was written";
  // One that is being written already only becomes one that somebody waits for.
  RunUntil([&] { return nvme().demoting > 0; });
  EXPECT_EQ(store->Persist(ns, KeyOf(100), now_ns), StatusCode::kNotFound);
  Crash();
  EXPECT_TRUE(Durable(59));
  EXPECT_EQ(Get(59, kBytes), StatusCode::kOk);
}

TEST_F(ChunkStoreNvme, PersistIsNotBoundByAdmission) {
  OpenNvme(4, 24);
  ShutDown();
  options.nvme.admission = NvmeAdmission::kSecondHit;
  Boot();
  ASSERT_EQ(PutKey(1, kBytes), StatusCode::kOk);
  Settle();
  EXPECT_FALSE(Durable(1));
  EXPECT_EQ(store->Persist(ns, KeyOf(1), now_ns), StatusCode::kBusy);
  Settle();
  EXPECT_EQ(store->Persist(ns, KeyOf(1), now_ns), StatusCode::kOk);
}

// Admission alone would not have it written: it waits for that all the same.
TEST_F(ChunkStoreNvme, WhatIsBeingPersistedLeavesDramLast) {
  OpenNvme(4, 24);
  ShutDown();
  options.nvme.admission = NvmeAdmission::kSecondHit;
  options.policy = "lru";
  Boot();
  for (uint64_t key = 0; key < 12; ++key) ASSERT_EQ(PutKey(key, kBytes), StatusCode::kOk);
  ASSERT_EQ(store->Persist(ns, KeyOf(0), now_ns), StatusCode::kBusy);
  for (uint64_t key = 12; key < 20; ++key) {  // nothing is polled: it is not written yet
    ASSERT_EQ(Put(*session, key, kBytes), StatusCode::kOk);
  }
  EXPECT_EQ(TierOf(0), "dram");
  EXPECT_EQ(TierOf(7), "none");
}

TEST_F(ChunkStoreNvme, PersistSaysThatTheDeviceCannotBeWritten) {
  OpenNvme(4, 24);
  Fill(0, 1);
  device->faults().write_error = 1000;
  ASSERT_EQ(Put(*session, 1, kBytes), StatusCode::kOk);
  EXPECT_EQ(store->Persist(ns, KeyOf(1), now_ns), StatusCode::kBusy);
  const uint64_t settled = store->settled_count();
  RunUntil([&] { return store->settled_count() != settled && nvme().demote_failed > 0; });
  EXPECT_EQ(store->Persist(ns, KeyOf(1), now_ns), StatusCode::kIoError);
  device->faults().write_error = 0;
  AdvanceTo(now_ns + 120 * kSecondNs);
  Settle();
  EXPECT_EQ(store->Persist(ns, KeyOf(1), now_ns), StatusCode::kOk);
}

TEST_F(ChunkStoreNvme, PersistSaysThatTheNamespaceCannotBeStored) {
  OpenNvme(4, 24);
  device->faults().write_error = 1000;
  ASSERT_EQ(Put(*session, 1, kBytes), StatusCode::kOk);
  EXPECT_EQ(store->Persist(ns, KeyOf(1), now_ns), StatusCode::kBusy);
  const uint64_t settled = store->settled_count();
  RunUntil([&] { return store->settled_count() != settled; });
  EXPECT_EQ(store->Persist(ns, KeyOf(1), now_ns), StatusCode::kIoError);
}

TEST_F(ChunkStoreNvme, AFullLogMakesRoomAndKeepsWhatIsUsed) {
  OpenNvme(4, 8);
  for (uint64_t key = 0; key < 200; ++key) {
    ASSERT_EQ(PutKey(key, kBytes), StatusCode::kOk) << key;
    Settle();
    // Two that are used over and over outlive what nobody asks for.
    if (key >= 2) {
      EXPECT_EQ(Get(0, kBytes), StatusCode::kOk) << key;
      EXPECT_EQ(Get(1, kBytes), StatusCode::kOk) << key;
    }
    const NvmeStats stats = nvme();
    ASSERT_LE(stats.log.segments.live_bytes, stats.bytes);
  }
  EXPECT_GT(nvme().reclaims, 10u);
  EXPECT_GT(nvme().evicted, 100u);
  // What the index promises can be had.
  uint32_t found = 0;
  for (uint64_t key = 0; key < 200; ++key) {
    if (TierOf(key) == "none") continue;
    EXPECT_EQ(Get(key, kBytes), StatusCode::kOk) << key;
    ++found;
  }
  EXPECT_GE(found, 25u);
  ExpectAccountsAddUp();
}

TEST_F(ChunkStoreNvme, LeasedChunksOutliveReclaimOnBothTiers) {
  OpenNvme(4, 8);
  Fill(0, 4);
  const int64_t until = now_ns + 1'000'000 * kSecondNs;
  for (uint64_t key = 0; key < 4; ++key) {
    ASSERT_EQ(store->Lease(ns, KeyOf(key), until), StatusCode::kOk);
  }
  Fill(10, 150);
  for (uint64_t key = 0; key < 4; ++key) EXPECT_EQ(Get(key, kBytes), StatusCode::kOk) << key;
}

// Leased once nothing but the log has them: it is the log's reclaim that carries them over.
TEST_F(ChunkStoreNvme, LeasedChunksOfTheLogAreCarriedOver) {
  OpenNvme(6, 12);
  Fill(0, 50);
  for (uint64_t key = 0; key < 4; ++key) {
    ASSERT_EQ(TierOf(key), "nvme") << key;
    ASSERT_EQ(store->Lease(ns, KeyOf(key), now_ns + 1'000'000 * kSecondNs), StatusCode::kOk);
  }
  Fill(100, 300);
  EXPECT_GT(nvme().reclaims, 10u);
  EXPECT_GE(nvme().moved, 4u);
  for (uint64_t key = 0; key < 4; ++key) {
    EXPECT_EQ(TierOf(key), "nvme") << key;
    EXPECT_TRUE(Durable(key));
    EXPECT_EQ(Get(key, kBytes), StatusCode::kOk) << key;
  }
  ExpectAccountsAddUp();
}

// Those in DRAM too: at every step there is a durable record.
TEST_F(ChunkStoreNvme, LeasedChunksStayDurableWhileTheirSegmentIsReclaimed) {
  OpenNvme(4, 8);
  Fill(0, 4);
  for (uint64_t key = 0; key < 4; ++key) {
    ASSERT_EQ(store->Lease(ns, KeyOf(key), now_ns + 1'000'000 * kSecondNs), StatusCode::kOk);
  }
  for (uint64_t key = 100; key < 300; ++key) {
    ASSERT_EQ(PutKey(key, kBytes), StatusCode::kOk);
    RunUntil([&] {
      for (uint64_t leased = 0; leased < 4; ++leased) {
        EXPECT_TRUE(Durable(leased)) << leased << " while " << key << " is written";
      }
      return nvme().demote_queue == 0 && nvme().demoting == 0;
    });
    if (HasFailure()) return;
  }
  EXPECT_GE(nvme().moved, 4u);
  for (uint64_t key = 0; key < 4; ++key) EXPECT_EQ(TierOf(key), "dram") << key;
  Crash();
  for (uint64_t key = 0; key < 4; ++key) EXPECT_EQ(Get(key, kBytes), StatusCode::kOk) << key;
}

// A segment of nothing but leases gains nothing: it is left alone, and others make room.
TEST_F(ChunkStoreNvme, ReclaimOfTheLogGoesOnBesideASegmentOfLeases) {
  OpenNvme(6, 12);
  Fill(0, 50);
  uint32_t leased = 0;
  for (uint64_t key = 0; key < 12; ++key) {
    if (TierOf(key) != "nvme") continue;
    leased += store->Lease(ns, KeyOf(key), now_ns + 1'000'000 * kSecondNs) == StatusCode::kOk;
  }
  ASSERT_GE(leased, 6u);
  Fill(100, 200);
  const uint64_t moved = nvme().moved;
  Fill(200, 300);
  EXPECT_TRUE(Durable(299));
  EXPECT_LE(nvme().moved - moved, 200u) << "the same chunks are carried again and again";
}

// What leaves DRAM and is worth more than the rest of the log stays in it.
TEST_F(ChunkStoreNvme, WhatIsUsedIsCarriedOver) {
  OpenNvme(6, 12);
  Fill(0, 50);
  // One in each segment that lies there is used over and over.
  for (uint64_t key = 50; key < 250; ++key) {
    ASSERT_EQ(PutKey(key, kBytes), StatusCode::kOk);
    Settle();
    for (uint64_t used = 0; used < 50; used += 6) {
      EXPECT_EQ(Get(used, kBytes), StatusCode::kOk) << used << " at " << key;
    }
  }
  EXPECT_GT(nvme().moved, 8u);
}

TEST_F(ChunkStoreNvme, NamespacesThatTheDeviceCannotHoldAreRefused) {
  OpenNvme(4, 24);
  NamespaceSpec spec;
  spec.salt = std::string(60'000, 's');
  StatusCode last = StatusCode::kOk;
  int registered = 0;
  for (int number = 0; number < 200 && last == StatusCode::kOk; ++number) {
    spec.label = "large-" + std::to_string(number);
    const Result<NamespaceInfo> info = store->RegisterNamespace(spec);
    last = info.status().code();
    if (!info.ok()) break;
    ++registered;
    // With a chunk in it, it is not forgotten.
    ns = info->ref.id;
    ASSERT_EQ(Put(*session, 1, 5000), StatusCode::kOk);
  }
  EXPECT_EQ(last, StatusCode::kBusy);
  EXPECT_GT(registered, 40);
  const uint64_t version = store->namespaces_version();
  RunUntil([&] { return store->NamespacesStored(version).ok(); });
  EXPECT_TRUE(store->NamespacesStored(version).ok());
}

TEST_F(ChunkStoreNvme, RemovedWhileItIsWritten) {
  OpenNvme(4, 24);
  ASSERT_EQ(Put(*session, 1, kBytes), StatusCode::kOk);
  RunUntil([&] { return store->stats().nvme.demoting == 1; });
  ASSERT_EQ(nvme().demoting, 1u);
  EXPECT_EQ(store->Remove(ns, KeyOf(1)), StatusCode::kOk);
  ASSERT_EQ(PutKey(2, kBytes), StatusCode::kOk);  // may take the chunk's place in the table
  Settle();
  EXPECT_EQ(TierOf(1), "none");
  EXPECT_EQ(nvme().chunk_count, 1u);
  EXPECT_EQ(nvme().log.segments.live_bytes, shm::RecordBytes(kBytes));
  EXPECT_EQ(Get(2, kBytes), StatusCode::kOk);
}

TEST_F(ChunkStoreNvme, RemovedOrClearedWhileItIsLoaded) {
  OpenNvme(4, 24);
  Fill(0, 40);
  const uint64_t key = FirstOut(40);
  ASSERT_TRUE(Look(key).loading);
  EXPECT_EQ(store->Remove(ns, KeyOf(key)), StatusCode::kOk);
  Settle();
  EXPECT_EQ(Look(key).status, StatusCode::kNotFound);
  const uint64_t other = FirstOut(40);
  ASSERT_TRUE(Look(other).loading);
  Clear("ns");
  Settle();
  EXPECT_EQ(Look(other).status, StatusCode::kNotFound);
  EXPECT_EQ(store->stats().chunk_count, 0u);
  EXPECT_EQ(nvme().chunk_count, 0u);
  EXPECT_EQ(nvme().log.segments.live_bytes, 0u);
  ExpectAccountsAddUp();
}

TEST_F(ChunkStoreNvme, AnEpochThatEndsWhileChunksMoveIsGoneForGood) {
  OpenNvme(4, 24);
  Fill(0, 40);
  ASSERT_TRUE(Look(FirstOut(40)).loading);
  ASSERT_EQ(Put(*session, 77, kBytes), StatusCode::kOk);
  store->PollNvme(now_ns);
  const uint32_t old = ns;
  const uint64_t before = store->namespaces_version();
  const Result<NamespaceInfo> bumped = store->BumpEpoch("ns");
  ASSERT_TRUE(bumped.ok());
  ns = bumped->ref.id;
  const uint64_t version = store->namespaces_version();
  EXPECT_GT(version, before);
  EXPECT_EQ(store->NamespacesStored(version).code(), StatusCode::kBusy);
  RunUntil([&] { return store->NamespacesStored(version).ok(); });
  ASSERT_TRUE(store->NamespacesStored(version).ok());
  Crash();
  EXPECT_NE(ns, old);
  EXPECT_EQ(ns, bumped->ref.id);
  EXPECT_EQ(store->FindNamespace("ns")->epoch, 1u);
  EXPECT_EQ(store->stats().chunk_count, 0u);
  for (uint64_t key = 0; key < 40; ++key) EXPECT_EQ(Look(key).status, StatusCode::kNotFound);
}

TEST_F(ChunkStoreNvme, ABumpThatCannotBeStoredSaysSo) {
  OpenNvme(4, 24);
  Fill(0, 4);
  device->faults().write_error = 1000;
  ASSERT_TRUE(store->BumpEpoch("ns").ok());
  const uint64_t version = store->namespaces_version();
  RunUntil([&] { return store->NamespacesStored(version).code() == StatusCode::kIoError; });
  EXPECT_EQ(store->NamespacesStored(version).code(), StatusCode::kIoError);
  device->faults().write_error = 0;
  RunUntil([&] { return store->NamespacesStored(version).ok(); });
  EXPECT_TRUE(store->NamespacesStored(version).ok());
}

TEST_F(ChunkStoreNvme, AllOfItSurvivesARestart) {
  OpenNvme(4, 24);
  for (uint64_t key = 0; key < 60; ++key) {
    ASSERT_EQ(PutKey(key, kBytes), StatusCode::kOk);
    Settle();
  }
  ASSERT_EQ(Put(*session, 60, kBytes), StatusCode::kOk);  // written by the drain
  const uint32_t id = ns;
  Restart();
  EXPECT_EQ(ns, id);
  EXPECT_EQ(store->FindNamespace("ns")->chunk_count, 61u);
  EXPECT_EQ(nvme().recovered, 61u);
  for (uint64_t key = 0; key <= 60; ++key) EXPECT_EQ(Get(key, kBytes), StatusCode::kOk) << key;
  ExpectAccountsAddUp();
}

// What was dropped lies in the log until its segment is reclaimed, beside what came after it.
TEST_F(ChunkStoreNvme, OfSeveralRecordsOfAKeyTheLastIsFoundAgain) {
  OpenNvme(4, 24);
  Fill(0, 20);
  constexpr uint64_t kTimes = 4;
  for (uint64_t time = 1; time <= kTimes; ++time) {
    for (uint64_t key = 0; key < 20; ++key) {
      ASSERT_EQ(store->Remove(ns, KeyOf(key)), StatusCode::kOk);
      const uint32_t bytes = kBytes + static_cast<uint32_t>(time);
      ASSERT_EQ(Put(*session, key, bytes, 1000 * time + key), StatusCode::kOk);
      Settle();
      ASSERT_TRUE(Durable(key));
    }
    if (time % 2 == 0) {
      Restart();
    } else {
      Crash();
    }
    for (uint64_t key = 0; key < 20; ++key) {
      const uint32_t bytes = kBytes + static_cast<uint32_t>(time);
      ASSERT_EQ(Get(key, bytes, 1000 * time + key), StatusCode::kOk) << key << ", time " << time;
    }
    ExpectAccountsAddUp();
  }
}

TEST_F(ChunkStoreNvme, WhatIsDurableSurvivesTheLossOfPower) {
  OpenNvme(4, 24);
  std::vector<uint64_t> durable;
  for (uint64_t key = 0; key < 90; ++key) {
    ASSERT_EQ(PutKey(key, kBytes), StatusCode::kOk);
    for (int steps = 0; steps < 40; ++steps) Step();
    if (key % 30 != 29) continue;
    durable.clear();
    for (uint64_t at = 0; at <= key; ++at) {
      if (Durable(at)) durable.push_back(at);
    }
    Crash();
    for (const uint64_t at : durable) EXPECT_EQ(Get(at, kBytes), StatusCode::kOk) << at;
  }
  EXPECT_GT(durable.size(), 20u);
}

TEST_F(ChunkStoreNvme, IdsOfForgottenNamespacesAreNeverGivenAgain) {
  OpenNvme(4, 24);
  NamespaceSpec spec;
  spec.label = "gone";
  const uint32_t gone = store->RegisterNamespace(spec)->ref.id;
  Fill(0, 4);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(store->BumpEpoch("gone").ok());
  const uint64_t version = store->namespaces_version();
  RunUntil([&] { return store->NamespacesStored(version).ok(); });
  Restart();
  spec.label = "new";
  EXPECT_GT(store->RegisterNamespace(spec)->ref.id, gone + 3);
}

TEST_F(ChunkStoreNvme, ANamespaceThatDiffersIsRefusedAfterARestartToo) {
  OpenNvme(4, 24);
  NamespaceSpec spec;
  spec.label = "other";
  spec.model = "a";
  spec.layer_bytes = {1, 2, 3};
  spec.groups = {GroupRule{}, GroupRule{.trailing = 4}};
  ASSERT_TRUE(store->RegisterNamespace(spec).ok());
  Restart();
  EXPECT_TRUE(store->RegisterNamespace(spec).ok());
  spec.layer_bytes[1] = 5;
  EXPECT_EQ(store->RegisterNamespace(spec).status().code(), StatusCode::kInvalid);
}

TEST_F(ChunkStoreNvme, AnothersDeviceTurnsTheTierOffAndIsLeftAlone) {
  OpenNvme(4, 24);
  Fill(0, 10);
  Restart();
  ShutDown();
  options.tenant = "other";
  Boot();
  EXPECT_EQ(store->nvme_why_off().code(), StatusCode::kDenied);
  ASSERT_EQ(PutKey(1, kBytes), StatusCode::kOk);
  EXPECT_EQ(Get(1, kBytes), StatusCode::kOk);
  ASSERT_TRUE(store->BumpEpoch("ns").ok());
  EXPECT_EQ(store->NamespacesStored(store->namespaces_version()).code(), StatusCode::kIoError);
  ShutDown();
  options.tenant = "test";
  Boot();
  EXPECT_EQ(Get(1, kBytes), StatusCode::kOk);
  EXPECT_EQ(nvme().recovered, 10u);
}

TEST_F(ChunkStoreNvme, OnTheSecondHitOnlyWhatWasUsedIsWritten) {
  OpenNvme(4, 24);
  ShutDown();
  options.nvme.admission = NvmeAdmission::kSecondHit;
  Boot();
  ASSERT_EQ(PutKey(1, kBytes), StatusCode::kOk);
  ASSERT_EQ(PutKey(2, kBytes), StatusCode::kOk);
  EXPECT_EQ(Get(2, kBytes), StatusCode::kOk);
  Settle();
  EXPECT_FALSE(Durable(1));
  EXPECT_TRUE(Durable(2));
}

TEST_F(ChunkStoreNvme, ADaysBytesAreNotExceeded) {
  OpenNvme(8, 24);
  ShutDown();
  options.nvme.admission = NvmeAdmission::kBytesADay;
  options.nvme.bytes_a_day = 48 * kMiB;  // 16 MiB at once
  Boot();
  const auto put = [&](uint64_t from, uint64_t to) {
    for (uint64_t key = from; key < to; ++key) {
      ASSERT_EQ(PutKey(key, kBytes), StatusCode::kOk);
      Settle();
    }
  };
  put(0, 100);
  EXPECT_LE(nvme().demoted_bytes, 16 * kMiB);
  EXPECT_GE(nvme().demoted_bytes, 15 * kMiB);
  AdvanceTo(now_ns + 86'400 * kSecondNs / 24);  // 2 MiB more
  put(100, 120);
  EXPECT_LE(nvme().demoted_bytes, 18 * kMiB + 1);
  EXPECT_GE(nvme().demoted_bytes, 17 * kMiB);
}

TEST_F(ChunkStoreNvme, ALogThatCannotBeReadForAMomentIsOpenedAgain) {
  OpenNvme(8, 24);
  ASSERT_EQ(PutKey(1, kBytes), StatusCode::kOk);
  Settle();
  ASSERT_TRUE(Durable(1));
  ShutDown();
  sick_once = {0, kLogCopyStride};
  const int64_t before_ns = now_ns;
  Boot();
  EXPECT_TRUE(store->nvme_why_off().ok()) << store->nvme_why_off().ToString();
  EXPECT_GE(now_ns - before_ns, kNvmeReopenNs);
  EXPECT_TRUE(Durable(1));
}

TEST_F(ChunkStoreNvme, ARestartIsNoLicenceForAnotherDaysBytes) {
  OpenNvme(8, 24);
  ShutDown();
  options.nvme.admission = NvmeAdmission::kBytesADay;
  options.nvme.bytes_a_day = 48 * kMiB;
  options.nvme.overdrawn_bytes = 17 * kMiB;  // an hour's savings of 16 MiB, and more
  Boot();
  ASSERT_EQ(PutKey(1, kBytes), StatusCode::kOk);
  Settle();
  EXPECT_EQ(nvme().demoted_bytes, 0u);
  AdvanceTo(now_ns + 86'400 * kSecondNs / 24);  // 2 MiB
  ASSERT_EQ(PutKey(2, kBytes), StatusCode::kOk);
  Settle();
  EXPECT_EQ(nvme().demoted_bytes, kBytes);
}

// A client that writes to its leased segment after the commit.
TEST_F(ChunkStoreNvme, ChangedBytesAreNotWrittenOut) {
  OpenNvme(4, 24);
  const PutGrant grant = Begin(*session, 1, kBytes);
  ASSERT_EQ(grant.status, StatusCode::kOk);
  StoreTest::Fill(*session, grant, 1, kBytes, 1);
  ASSERT_EQ(Commit(*session, grant.claim), StatusCode::kOk);
  session->At(grant.location)[shm::kRecordHeaderBytes + 100] ^= std::byte{1};
  Settle();
  EXPECT_EQ(TierOf(1), "none");
  EXPECT_EQ(nvme().demoted, 0u);
  EXPECT_EQ(store->stats().corrupt_moves, 1u);
}

}  // namespace
}  // namespace terrace
