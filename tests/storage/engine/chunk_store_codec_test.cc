// Chunks that go to NVMe as frames of the codec and come back: the same bytes or a miss, whatever
// happens to the disk, the pool or the chunk meanwhile.

#include <cstring>
#include <vector>

#include "storage/codec/frame_layout.h"
#include "tests/storage/engine/nvme_harness.h"

namespace terrace {
namespace {

constexpr uint32_t kBytes = 300 * 1000;

class ChunkStoreCodec : public NvmeStoreTest {
 protected:
  ChunkStoreCodec() { dtype = "bf16"; }

  void OpenEncoding(uint32_t dram_segments, uint32_t log_segments) {
    OpenNvme(dram_segments, log_segments);
    ShutDown();
    options.nvme.encode = true;
    Boot();
  }
  void BootWith(bool encode) {
    ShutDown();
    options.nvme.encode = encode;
    Boot();
  }
  void FillKeys(uint64_t from, uint64_t to, uint64_t seed_bits = 0) {
    for (uint64_t key = from; key < to; ++key) {
      ASSERT_EQ(Put(*session, key, kBytes, key | seed_bits), StatusCode::kOk) << key;
      store->Tick(now_ns);
      Settle();
    }
  }
  void ExpectAll(uint64_t from, uint64_t to, uint64_t seed_bits = 0) {
    for (uint64_t key = from; key < to; ++key) {
      EXPECT_EQ(Get(key, kBytes, key | seed_bits), StatusCode::kOk) << key;
    }
  }
  StatusCode PersistKey(uint64_t key) {
    const auto ask = [&] { return store->Persist(ns, KeyOf(key), now_ns); };
    RunUntil([&] { return ask() != StatusCode::kBusy; });
    return ask();
  }
  // Where the key's last record lies on the disk, by its header.
  uint64_t RecordOf(uint64_t key, shm::RecordHeader* header) {
    const shm::ChunkKey name = KeyOf(key);
    uint64_t found = 0, number = 0;
    std::vector<uint8_t> page(kPageBytes);
    for (uint64_t at = 0; at < medium->bytes(); at += kPageBytes) {
      medium->Read(at, page.data(), page.size());
      shm::RecordHeader here;
      std::memcpy(&here, page.data(), sizeof here);
      if (here.magic != shm::kRecordMagic || here.log_sequence == 0) continue;
      if (std::memcmp(here.key, name.bytes(), shm::kKeyBytes) != 0) continue;
      if (found != 0 && here.append_number < number) continue;
      number = here.append_number;
      found = at;
      *header = here;
    }
    EXPECT_NE(found, 0u) << "no record of key " << key;
    return found;
  }
};

TEST_F(ChunkStoreCodec, WhatLeavesDramEncodedComesBackWithItsBytes) {
  OpenEncoding(4, 24);
  FillKeys(0, 60);
  uint32_t out = 0;
  for (uint64_t key = 0; key < 60; ++key) out += TierOf(key) == "nvme";
  EXPECT_GE(out, 30u);
  EXPECT_EQ(nvme().encodes, 60u);
  EXPECT_EQ(nvme().encoded_chunks, 60u);
  EXPECT_EQ(nvme().encoded_payload_bytes, 60u * kBytes);
  EXPECT_LT(nvme().encoded_bytes, 60u * kBytes * 10 / 11);
  // What lies there takes no more than was counted.
  EXPECT_LT(nvme().log.segments.live_bytes, nvme().encoded_bytes + 60 * 2 * kPageBytes);
  ExpectAll(0, 60);
  EXPECT_GE(nvme().decodes, out);
  EXPECT_EQ(nvme().decodes, nvme().loads);
  EXPECT_EQ(nvme().decodes_failed, 0u);
  shm::RecordHeader header;
  RecordOf(7, &header);
  EXPECT_EQ(header.codec, shm::kCodecFrames);
  EXPECT_NE(header.seal, 0u);
  ExpectAccountsAddUp();
}

TEST_F(ChunkStoreCodec, AStoreThatIsToldNothingEncodesNothing) {
  OpenNvme(4, 24);
  FillKeys(0, 20);
  EXPECT_EQ(nvme().encodes + nvme().encodes_ungainful + nvme().encoded_chunks, 0u);
  EXPECT_TRUE(Durable(19));
}

TEST_F(ChunkStoreCodec, ElementsThatAreNotKnownAreWrittenAsTheyAre) {
  dtype = "fp8";
  OpenEncoding(4, 24);
  FillKeys(0, 10);
  EXPECT_EQ(nvme().encodes + nvme().encodes_ungainful, 0u);
  EXPECT_TRUE(Durable(9));
}

TEST_F(ChunkStoreCodec, ARestartFindsThemAndACrashToo) {
  OpenEncoding(4, 24);
  FillKeys(0, 40);
  const uint64_t bytes = nvme().encoded_bytes;
  Restart();
  EXPECT_EQ(nvme().recovered, 40u);
  EXPECT_EQ(nvme().encoded_chunks, 40u);
  EXPECT_EQ(nvme().encoded_bytes, bytes);
  ExpectAll(0, 40);
  FillKeys(40, 50);
  Crash();  // the open segment is walked, and its frames are judged
  EXPECT_EQ(nvme().recovered, 50u);
  EXPECT_GT(nvme().log.recovery.walked, 0u);
  EXPECT_EQ(nvme().log.recovery.torn_records, 0u);
  ExpectAll(0, 50);
}

TEST_F(ChunkStoreCodec, ATornFrameIsDroppedByTheWalk) {
  OpenEncoding(4, 24);
  FillKeys(0, 6);
  shm::RecordHeader header;
  const uint64_t at = RecordOf(3, &header);
  medium->FlipBit(at + sizeof header + header.stored_bytes - 7, 2);
  Crash();
  EXPECT_EQ(nvme().log.recovery.torn_records, 1u);
  EXPECT_EQ(nvme().recovered, 5u);
  EXPECT_EQ(Get(3, kBytes), StatusCode::kNotFound);
  ExpectAll(0, 3);
  ExpectAll(4, 6);
}

// Header, seal, table, first and last frame.
TEST_F(ChunkStoreCodec, AFlippedBitAnywhereIsAMissThatThePutHeals) {
  OpenEncoding(4, 24);
  FillKeys(0, 40);
  Restart();
  ShutDown();
  const SimMedium filled = *medium;
  shm::RecordHeader header;
  const uint64_t at = RecordOf(7, &header);
  constexpr uint64_t kFrames = sizeof header;
  const std::vector<uint64_t> places = {3,
                                        14,
                                        57,
                                        81,
                                        100,
                                        2145,
                                        kFrames,
                                        kFrames + 9,
                                        kFrames + 20,
                                        kFrames + 32,
                                        kFrames + 5000,
                                        kFrames + header.stored_bytes - 1};
  for (size_t i = 0; i < places.size(); ++i) {
    SCOPED_TRACE("byte " + std::to_string(places[i]));
    medium.emplace(filled);
    Boot();
    medium->FlipBit(at + places[i], i % 8);
    EXPECT_EQ(Get(7, kBytes), StatusCode::kNotFound);
    EXPECT_EQ(nvme().load_corrupt, 1u);
    EXPECT_EQ(nvme().decodes_failed, 1u);
    EXPECT_EQ(store->Explain("ns", KeyOf(7)).cause, ChunkCause::kDamagedNvme);
    EXPECT_EQ(PutKey(7, kBytes), StatusCode::kOk);
    EXPECT_EQ(Get(7, kBytes), StatusCode::kOk);
    ExpectAll(0, 12);
    ExpectAccountsAddUp();
    ShutDown();
  }
}

// Both are right in themselves: only the seal tells them apart.
TEST_F(ChunkStoreCodec, AnotherRecordsFramesUnderTheHeaderAreAMiss) {
  OpenEncoding(4, 24);
  FillKeys(0, 40);
  shm::RecordHeader a, b;
  const uint64_t at = RecordOf(1, &a), other = RecordOf(2, &b);
  ASSERT_EQ(a.stored_bytes, b.stored_bytes);
  std::vector<uint8_t> bytes(shm::RecordBytes(b.stored_bytes) - sizeof b);
  medium->Read(other + sizeof b, bytes.data(), bytes.size());
  medium->Write(at + sizeof a, bytes.data(), bytes.size());
  ASSERT_EQ(TierOf(1), "nvme");
  EXPECT_EQ(Get(1, kBytes), StatusCode::kNotFound);
  EXPECT_EQ(nvme().decodes_failed, 1u);
  EXPECT_EQ(Get(2, kBytes), StatusCode::kOk);
}

TEST_F(ChunkStoreCodec, CarriedOverTheyStayAsTheyAre) {
  OpenEncoding(4, 6);
  constexpr uint64_t kLeased = 4;
  for (uint64_t key = 0; key < kLeased; ++key) {
    FillKeys(key, key + 1);
    ASSERT_EQ(store->Lease(ns, KeyOf(key), now_ns + 3600 * kSecondNs), StatusCode::kOk);
  }
  FillKeys(kLeased, 160);
  EXPECT_GE(nvme().moved, kLeased);
  EXPECT_GT(nvme().evicted, 0u);
  EXPECT_EQ(nvme().encodes, 160u);  // none was encoded twice
  EXPECT_EQ(nvme().encoded_chunks, nvme().chunk_count);
  ExpectAll(0, kLeased);
  Restart();  // which leases do not outlive
  EXPECT_GT(nvme().recovered, 10u);
  uint64_t found = 0;
  for (uint64_t key = 0; key < 160; ++key) found += Get(key, kBytes) == StatusCode::kOk ? 1 : 0;
  EXPECT_GT(found, 10u);
  EXPECT_EQ(nvme().load_corrupt, 0u);
  ExpectAccountsAddUp();
}

TEST_F(ChunkStoreCodec, MoreFitThanWouldAsTheyAre) {
  OpenEncoding(4, 12);
  FillKeys(0, 120);
  const uint64_t encoded = nvme().chunk_count;
  ShutDown();
  OpenNvme(4, 12);
  FillKeys(0, 120);
  EXPECT_GE(encoded * 10, nvme().chunk_count * 13);
}

TEST_F(ChunkStoreCodec, WhatDoesNotGainIsStoredAsItIsAndSoonNotTried) {
  OpenEncoding(4, 24);
  FillKeys(0, 60, kNoiseSeed);
  EXPECT_EQ(nvme().encodes, 0u);
  EXPECT_EQ(nvme().encodes_ungainful, CodecTrial::kMissesMax);
  EXPECT_EQ(nvme().encoded_chunks, 0u);
  EXPECT_EQ(nvme().demoted, 60u);
  shm::RecordHeader header;
  RecordOf(2, &header);
  EXPECT_EQ(header.codec, shm::kCodecPlain);
  EXPECT_EQ(header.stored_bytes, kBytes);
  ExpectAll(0, 60, kNoiseSeed);
  EXPECT_EQ(nvme().decodes, 0u);
  // One in so many is tried again, and opens the door.
  FillKeys(100, 100 + CodecTrial::kTryOneIn);
  EXPECT_GE(nvme().encodes, 1u);
  FillKeys(200, 210);
  EXPECT_GE(nvme().encodes, 11u);
}

TEST_F(ChunkStoreCodec, LogsOfBothKindsAreReadWhateverTheSetting) {
  OpenNvme(4, 24);
  FillKeys(0, 20);
  Restart();
  BootWith(true);
  ExpectAll(0, 20);
  FillKeys(20, 40);
  EXPECT_EQ(nvme().encodes, 20u);
  Restart();
  BootWith(false);
  EXPECT_EQ(nvme().encoded_chunks, 20u);
  ExpectAll(0, 40);
  FillKeys(40, 60);
  EXPECT_EQ(nvme().encodes, 0u);
  ExpectAll(0, 60);
}

TEST_F(ChunkStoreCodec, AChunkThatAClientChangedIsNeverOnNvme) {
  OpenEncoding(4, 24);
  const PutGrant grant = Begin(*session, 1, kBytes);
  Fill(*session, grant, 1, kBytes, 1);
  ASSERT_EQ(Commit(*session, grant.claim), StatusCode::kOk);
  session->At(grant.location)[shm::kRecordHeaderBytes + 200'000] ^= std::byte{1};
  Settle();
  EXPECT_EQ(nvme().encodes, 0u);
  EXPECT_EQ(nvme().demoted, 0u);
  EXPECT_EQ(TierOf(1), "none");
  EXPECT_EQ(store->Explain("ns", KeyOf(1)).cause, ChunkCause::kDamagedDram);
  EXPECT_EQ(PutKey(1, kBytes), StatusCode::kOk);
  EXPECT_EQ(Get(1, kBytes), StatusCode::kOk);
  Settle();
  EXPECT_TRUE(Durable(1));
}

TEST_F(ChunkStoreCodec, WhatIsRemovedWhileItIsEncodedIsNotWritten) {
  OpenEncoding(8, 24);
  FillKeys(0, 1);
  ASSERT_EQ(Put(*session, 1, kBytes), StatusCode::kOk);
  ASSERT_EQ(Put(*session, 2, kBytes, 2 | kNoiseSeed), StatusCode::kOk);
  store->PollNvme(now_ns);
  ASSERT_EQ(pool.waiting(), 2u);
  EXPECT_EQ(nvme().demoting, 2u);
  for (const uint64_t key : {uint64_t{1}, uint64_t{2}})
    EXPECT_EQ(store->Remove(ns, KeyOf(key)), StatusCode::kOk);
  Settle();
  EXPECT_EQ(nvme().demoting, 0u);
  EXPECT_EQ(nvme().demoted, 1u);
  EXPECT_EQ(nvme().chunk_count, 1u);
  EXPECT_EQ(nvme().log.writes.records, 1u);
}

TEST_F(ChunkStoreCodec, PersistWaitsForNoCodecThatIsFull) {
  OpenEncoding(4, 24);
  pool.jobs_max = 0;
  ASSERT_EQ(Put(*session, 1, kBytes), StatusCode::kOk);
  EXPECT_EQ(PersistKey(1), StatusCode::kOk);
  EXPECT_EQ(nvme().encodes_skipped, 1u);
  EXPECT_TRUE(Durable(1));
  EXPECT_EQ(nvme().encoded_chunks, 0u);
}

TEST_F(ChunkStoreCodec, AFullPoolDelaysAndBeyondAShareOfDramIsPassedBy) {
  OpenEncoding(8, 24);
  pool.jobs_max = 0;
  ASSERT_EQ(Put(*session, 1, kBytes), StatusCode::kOk);
  for (int i = 0; i < 100; ++i) Step();
  EXPECT_FALSE(Durable(1));
  EXPECT_EQ(nvme().demote_queue, 1u);
  for (uint64_t key = 2; key < 20; ++key) ASSERT_EQ(Put(*session, key, kBytes), StatusCode::kOk);
  for (int i = 0; i < 200; ++i) Step();
  EXPECT_GT(nvme().encodes_skipped, 10u);
  pool.jobs_max = kCodecJobsMax;
  Settle();
  EXPECT_GT(nvme().encodes, 3u);
  ExpectAll(1, 20);
}

TEST_F(ChunkStoreCodec, ADecodingWaitsForAFullPool) {
  OpenEncoding(4, 24);
  FillKeys(0, 40);
  ASSERT_EQ(TierOf(0), "nvme");
  pool.jobs_max = 0;
  EXPECT_TRUE(Look(0).loading);
  for (int i = 0; i < 50; ++i) Step();
  EXPECT_EQ(nvme().loading, 1u);
  EXPECT_EQ(TierOf(0), "nvme");
  pool.jobs_max = 1;
  EXPECT_EQ(Get(0, kBytes), StatusCode::kOk);
}

TEST_F(ChunkStoreCodec, ManyLoadsShareTheMemoryThatThereIs) {
  constexpr uint32_t kLarge = 900'000;
  OpenEncoding(32, 40);
  for (uint64_t key = 0; key < 12; ++key) {
    ASSERT_EQ(PutKey(key, kLarge), StatusCode::kOk);
    Settle();
  }
  Restart();
  // Some 4 MiB of memory: these are more.
  uint64_t begun = 0;
  for (uint64_t key = 0; key < 12; ++key) begun += Look(key, key).loading ? 1 : 0;
  EXPECT_EQ(begun, 12u);
  EXPECT_GT(nvme().loading, 4u);
  EXPECT_LT(nvme().loading, 10u);
  for (uint64_t key = 0; key < 12; ++key) EXPECT_EQ(Get(key, kLarge), StatusCode::kOk) << key;
}

TEST_F(ChunkStoreCodec, RoomInDramIsHeldWhileItIsEncoded) {
  OpenEncoding(6, 24);
  FillKeys(0, 1);
  pool.paused = true;
  ASSERT_EQ(Put(*session, 1, kBytes), StatusCode::kOk);
  store->PollNvme(now_ns);
  ASSERT_EQ(pool.waiting(), 1u);
  // Several times what DRAM holds.
  uint64_t put = 0;
  for (uint64_t key = 10; key < 100; ++key) {
    now_ns += kSecondNs / 100;
    put += Put(*session, key, kBytes) == StatusCode::kOk ? 1 : 0;
    store->PollNvme(now_ns);
    store->Tick(now_ns);
  }
  EXPECT_GT(put, 60u);
  EXPECT_EQ(TierOf(1), "dram");
  pool.paused = false;
  Settle();
  EXPECT_TRUE(Durable(1));
  EXPECT_EQ(nvme().demote_failed, 0u);
  EXPECT_EQ(Get(1, kBytes), StatusCode::kOk);
}

TEST_F(ChunkStoreCodec, EndsWithJobsInFlight) {
  OpenEncoding(4, 24);
  FillKeys(0, 40);
  ASSERT_EQ(TierOf(0), "nvme");
  pool.paused = true;
  ASSERT_TRUE(Look(0).loading);
  RunUntil([&] { return pool.waiting() == 1; });
  ASSERT_EQ(Put(*session, 100, kBytes), StatusCode::kOk);
  store->PollNvme(now_ns);
  EXPECT_EQ(pool.waiting(), 2u);
  ShutDown();
  EXPECT_EQ(pool.waiting(), 0u);
  pool.paused = false;
  Boot();
  ExpectAll(0, 40);
}

TEST_F(ChunkStoreCodec, ADrainWritesWhatWaits) {
  OpenEncoding(8, 24);
  for (uint64_t key = 0; key < 12; ++key) ASSERT_EQ(Put(*session, key, kBytes), StatusCode::kOk);
  store->PollNvme(now_ns);
  Restart();
  EXPECT_EQ(nvme().recovered, 12u);
  ExpectAll(0, 12);
}

TEST_F(ChunkStoreCodec, TheScrubberJudgesFrames) {
  OpenEncoding(4, 24);
  FillKeys(0, 40);
  Restart();
  ShutDown();
  options.nvme.scrub_pass_ns = 3600 * kSecondNs;
  Boot();
  const auto pass = [&] {
    const uint64_t passes = nvme().scrub_passes;
    RunUntil([&] { return nvme().scrub_passes >= passes + 2; });
  };
  pass();
  EXPECT_GE(nvme().scrubbed, 40u);
  EXPECT_EQ(nvme().scrub_damaged, 0u);
  shm::RecordHeader header;
  const uint64_t at = RecordOf(5, &header);
  medium->FlipBit(at + sizeof header + header.stored_bytes / 2, 1);
  pass();
  EXPECT_EQ(nvme().scrub_damaged, 1u);
  EXPECT_EQ(TierOf(5), "none");
}

// Without anybody to decode them they are of no use, and cost nothing but their room.
TEST_F(ChunkStoreCodec, WithoutAPoolEncodedRecordsAreMisses) {
  OpenEncoding(4, 24);
  FillKeys(0, 10);
  Restart();
  ShutDown();
  device = std::make_unique<SimDevice>(*medium, clock, SimDevice::Options{.faults = faults});
  options.nvme.device = device.get();
  options.nvme.codec_pool = nullptr;
  options.nvme.sequence_floor = ++boots;
  store = *ChunkStore::Create(options);
  RunUntil([&] { return store->NvmeStarted(); });
  EXPECT_TRUE(store->nvme_why_off().ok());
  EXPECT_EQ(nvme().refused, 10u);
  EXPECT_EQ(nvme().recovered, 0u);
}

}  // namespace
}  // namespace terrace
