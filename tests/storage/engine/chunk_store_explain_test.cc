// Each answer to why a chunk is not to be had, out of the flow that gives it.

#include "tests/storage/engine/nvme_harness.h"

namespace terrace {
namespace {

constexpr uint32_t kBytes = 300 * 1000;  // six in a segment of 2 MiB
constexpr int64_t kWallMs = 1'700'000'000'000;

class ChunkStoreExplain : public NvmeStoreTest {
 protected:
  void With(ChunkStoreOptions* to) {
    to->wall_ms = [this] { return kWallMs + now_ns / kNsPerMs; };
    to->listener = [this](const ChunkEvent& event) { told.push_back(event); };
  }
  void OpenDram(uint32_t segments) {
    options = SmallStore(segments);
    With(&options);
    Open(options);
    session = std::make_unique<TestSession>(*store, kSession);
  }
  void OpenBoth(uint32_t dram_segments, uint32_t log_segments, NvmeAdmission admission) {
    OpenNvme(dram_segments, log_segments);
    ShutDown();
    With(&options);
    options.nvme.admission = admission;
    Boot();
  }

  ChunkExplanation Ask(uint64_t key) { return store->Explain("ns", KeyOf(key)); }
  // The key is away, for this and for the listener too.
  void ExpectGone(uint64_t key, ChunkCause cause) {
    const ChunkExplanation answer = Ask(key);
    EXPECT_EQ(answer.answer, ChunkAnswer::kGone);
    EXPECT_EQ(answer.cause, cause);
    EXPECT_EQ(answer.payload_bytes, kBytes);
    EXPECT_GE(answer.when_ms, kWallMs);
    const auto of_key = [&](const ChunkEvent& event) { return event.key == KeyOf(key); };
    const auto last = std::find_if(told.rbegin(), told.rend(), of_key);
    ASSERT_NE(last, told.rend());
    EXPECT_EQ(last->cause, cause);
    EXPECT_EQ(last->label_tag, LabelTag("ns"));
    EXPECT_EQ(last->payload_bytes, kBytes);
  }
  // Puts keys from `from` on until one of them is away; that one.
  uint64_t PutUntilOneIsAway(uint64_t from, bool settle) {
    for (uint64_t key = from; key < from + 200; ++key) {
      EXPECT_EQ(PutKey(key, kBytes), StatusCode::kOk) << key;
      if (settle) Settle();
      for (uint64_t earlier = from; earlier < key; ++earlier) {
        if (TierOf(earlier) == "none") return earlier;
      }
    }
    ADD_FAILURE() << "nothing left";
    return from;
  }
  // On NVMe alone.
  uint64_t PutUntilOneIsOut() {
    for (uint64_t key = 0; key < 200; ++key) {
      EXPECT_EQ(PutKey(key, kBytes), StatusCode::kOk) << key;
      Settle();
      if (TierOf(0) == "nvme") return 0;
    }
    ADD_FAILURE() << "nothing left DRAM";
    return 0;
  }

  std::vector<ChunkEvent> told;
};

TEST_F(ChunkStoreExplain, ReadyFillingAndNeverPut) {
  OpenDram(8);
  EXPECT_EQ(Ask(1).answer, ChunkAnswer::kNeverPut);
  EXPECT_EQ(Ask(1).history_since_ms, kWallMs + 1000);  // since the store began
  EXPECT_TRUE(Ask(1).namespace_known);
  EXPECT_FALSE(store->Explain("other", KeyOf(1)).namespace_known);
  const PutGrant grant = Begin(*session, 1, kBytes);
  EXPECT_EQ(Ask(1).answer, ChunkAnswer::kFilling);
  now_ns += 5 * kSecondNs;
  Fill(*session, grant, 1, kBytes, 1);
  ASSERT_EQ(Commit(*session, grant.claim), StatusCode::kOk);
  const ChunkExplanation ready = Ask(1);
  EXPECT_EQ(ready.answer, ChunkAnswer::kReady);
  EXPECT_TRUE(ready.in_dram);
  EXPECT_FALSE(ready.on_nvme);
  EXPECT_EQ(ready.put_ms, kWallMs + 6000);
  EXPECT_EQ(ready.cause, ChunkCause::kNone);
  EXPECT_TRUE(told.empty());
}

TEST_F(ChunkStoreExplain, RemovedClearedFoundDamagedAndBumped) {
  OpenDram(8);
  for (const uint64_t key : {1u, 2u, 3u, 4u})
    ASSERT_EQ(Put(*session, key, kBytes), StatusCode::kOk);
  ASSERT_EQ(store->Remove(ns, KeyOf(1)), StatusCode::kOk);
  ExpectGone(1, ChunkCause::kRemoved);
  ASSERT_EQ(store->Remove(ns, KeyOf(2), ChunkCause::kDamagedForClient), StatusCode::kOk);
  ExpectGone(2, ChunkCause::kDamagedForClient);
  EXPECT_EQ(Clear("ns"), 2u);
  ExpectGone(3, ChunkCause::kCleared);
  ASSERT_EQ(Put(*session, 4, kBytes), StatusCode::kOk);
  EXPECT_EQ(Ask(4).answer, ChunkAnswer::kReady);
  ns = store->BumpEpoch("ns")->ref.id;
  // Before the sweep has met it, and after.
  EXPECT_EQ(Ask(4).answer, ChunkAnswer::kGone);
  EXPECT_EQ(Ask(4).cause, ChunkCause::kEpochEnded);
  while (store->Tick(now_ns) == now_ns) {
  }
  ExpectGone(4, ChunkCause::kEpochEnded);
  ASSERT_TRUE(store->BumpEpoch("ns").ok());  // one epoch more
  ExpectGone(4, ChunkCause::kEpochEnded);
}

TEST_F(ChunkStoreExplain, PutsThatDidNotEndWell) {
  OpenDram(8);
  ASSERT_EQ(Begin(*session, 1, kBytes, now_ns + kSecondNs).status, StatusCode::kOk);
  now_ns += 2 * kSecondNs;
  store->Tick(now_ns);
  ExpectGone(1, ChunkCause::kAbandoned);
  const PutGrant aborted = Begin(*session, 2, kBytes);
  store->Abort(session->id(), {&aborted.claim, 1});
  ExpectGone(2, ChunkCause::kAborted);
  const PutGrant empty = Begin(*session, 3, kBytes);
  EXPECT_EQ(Commit(*session, empty.claim), StatusCode::kCorrupt);  // nothing was written
  ExpectGone(3, ChunkCause::kHeaderDiffers);
}

TEST_F(ChunkStoreExplain, RefusedForWantOfRoomOnceASecond) {
  OpenDram(4);
  for (uint64_t key = 0; key < 40; ++key) static_cast<void>(Begin(*session, key, kBytes));
  const PutGrant refused = Begin(*session, 99, kBytes);
  ASSERT_EQ(refused.status, StatusCode::kBusy);
  EXPECT_EQ(Ask(99).answer, ChunkAnswer::kRefused);
  EXPECT_EQ(Ask(99).cause, ChunkCause::kNoRoom);
  const size_t before = told.size();
  for (int i = 0; i < 100; ++i) static_cast<void>(Begin(*session, 99, kBytes));
  EXPECT_EQ(told.size(), before);
  now_ns += 2 * kSecondNs;
  static_cast<void>(Begin(*session, 99, kBytes));
  EXPECT_EQ(told.size(), before + 1);
  EXPECT_EQ(Ask(99).when_ms, kWallMs + now_ns / kNsPerMs);
}

TEST_F(ChunkStoreExplain, ReclaimedFromDramWithoutADevice) {
  OpenDram(4);
  ExpectGone(PutUntilOneIsAway(0, false), ChunkCause::kEvictedDram);
}

TEST_F(ChunkStoreExplain, OtherNamespaceNamesTheFieldThatDiffers) {
  OpenDram(8);
  ASSERT_EQ(Put(*session, 1, kBytes), StatusCode::kOk);
  NamespaceSpec spec;
  spec.label = "same";
  ASSERT_TRUE(store->RegisterNamespace(spec).ok());
  spec.label = "bf16";
  spec.dtype = "bf16";
  spec.salt = "s";
  ASSERT_TRUE(store->RegisterNamespace(spec).ok());
  const ChunkExplanation differs = store->Explain("bf16", KeyOf(1));
  EXPECT_EQ(differs.answer, ChunkAnswer::kOtherNamespace);
  EXPECT_EQ(differs.other_label, "ns");
  EXPECT_EQ(differs.other_field, "dtype");
  EXPECT_EQ(store->Explain("same", KeyOf(1)).other_field, "label");
  EXPECT_EQ(store->Explain("none", KeyOf(1)).other_field, "label");
  EXPECT_EQ(store->Explain("bf16", KeyOf(2)).answer, ChunkAnswer::kNeverPut);
}

TEST_F(ChunkStoreExplain, OnNvmeAndBeingLoaded) {
  OpenBoth(4, 24, NvmeAdmission::kAlways);
  const uint64_t key = PutUntilOneIsOut();
  ChunkExplanation answer = Ask(key);
  EXPECT_EQ(answer.answer, ChunkAnswer::kReady);
  EXPECT_FALSE(answer.in_dram);
  EXPECT_TRUE(answer.on_nvme);
  ASSERT_TRUE(Look(key).loading);
  EXPECT_EQ(Ask(key).answer, ChunkAnswer::kLoading);
  Settle();
  answer = Ask(key);
  EXPECT_EQ(answer.answer, ChunkAnswer::kReady);
  EXPECT_TRUE(answer.in_dram && answer.on_nvme);
  Restart();
  answer = Ask(key);
  EXPECT_EQ(answer.answer, ChunkAnswer::kReady);
  EXPECT_EQ(answer.put_ms, 0);  // in an earlier life
}

TEST_F(ChunkStoreExplain, ReclaimedFromNvme) {
  OpenBoth(4, 6, NvmeAdmission::kAlways);
  const uint64_t key = PutUntilOneIsAway(0, true);
  ExpectGone(key, ChunkCause::kEvictedNvme);
}

TEST_F(ChunkStoreExplain, ReclaimedFromDramBeforeItWasWritten) {
  OpenBoth(4, 24, NvmeAdmission::kAlways);
  device->faults().write_error = 1000;  // all of them
  ExpectGone(PutUntilOneIsAway(0, false), ChunkCause::kEvictedUnwritten);
}

TEST_F(ChunkStoreExplain, ReclaimedFromDramUnadmitted) {
  OpenBoth(4, 24, NvmeAdmission::kSecondHit);
  ExpectGone(PutUntilOneIsAway(0, true), ChunkCause::kEvictedNotAdmitted);
}

TEST_F(ChunkStoreExplain, DamagedOrUnreadableOnNvme) {
  OpenBoth(4, 24, NvmeAdmission::kAlways);
  const uint64_t key = PutUntilOneIsOut();
  device->faults().read_error = 1000;
  EXPECT_NE(Get(key, kBytes), StatusCode::kOk);
  ExpectGone(key, ChunkCause::kReadFailed);
  device->faults().read_error = 0;
  AdvanceTo(now_ns + 120 * kSecondNs);  // the log pauses after errors
  uint64_t other = 1;
  while (other < 100 && TierOf(other) != "nvme") ++other;
  device->faults().rot = 1000;
  EXPECT_NE(Get(other, kBytes), StatusCode::kOk);
  ExpectGone(other, ChunkCause::kDamagedNvme);
}

TEST_F(ChunkStoreExplain, DamagedInDram) {
  OpenBoth(4, 24, NvmeAdmission::kAlways);
  ASSERT_EQ(Put(*session, 1, kBytes), StatusCode::kOk);
  // A client that writes after its commit.
  std::byte* const record = session->At(store->Find(ns, KeyOf(1))->location);
  record[shm::kRecordHeaderBytes + 1000] ^= std::byte{1};
  Settle();
  ExpectGone(1, ChunkCause::kDamagedDram);
}

}  // namespace
}  // namespace terrace
