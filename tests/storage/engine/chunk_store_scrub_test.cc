// The scrubber: finds damage that nobody asked for yet, in the time that a pass may take.

#include <cstring>
#include <string>
#include <vector>

#include "tests/storage/engine/nvme_harness.h"

namespace terrace {
namespace {

constexpr uint32_t kBytes = 300 * 1000;
constexpr uint32_t kChunks = 40;
constexpr int64_t kPassNs = 3600 * kSecondNs;

class Scrub : public NvmeStoreTest {
 protected:
  void SetUp() override {
    OpenNvme(4, 24);
    ShutDown();
    options.nvme.scrub_pass_ns = kPassNs;
    Boot();
    for (uint64_t key = 0; key < kChunks; ++key) {
      ASSERT_EQ(PutKey(key, kBytes), StatusCode::kOk) << key;
      RunUntil([&] { return Durable(key); });
    }
  }
  // Damages the payload of the key's record on the disk.
  void Damage(uint64_t key) {
    std::vector<uint8_t> page(kPageBytes);
    const std::string name(reinterpret_cast<const char*>(KeyOf(key).bytes()),
                           KeyOf(key).byte_count());
    for (uint64_t at = 0; at < medium->bytes(); at += kPageBytes) {
      medium->Read(at, page.data(), page.size());
      const auto* header = reinterpret_cast<const shm::RecordHeader*>(page.data());
      if (header->magic != shm::kRecordMagic || header->log_sequence == 0) continue;
      if (std::memcmp(header->key, name.data(), name.size()) != 0) continue;
      medium->FlipBit(at + 2 * kPageBytes + 11, 3);
      return;
    }
    FAIL() << "no record of key " << key;
  }
  void Pass() {
    const uint64_t passes = nvme().scrub_passes;
    RunUntil([&] { return nvme().scrub_passes >= passes + 2; });  // a whole one, whatever began
    ASSERT_GE(nvme().scrub_passes, passes + 2);
  }
};

TEST_F(Scrub, ReadsEverythingThatIsSealedAndHarmsNothing) {
  Pass();
  const NvmeStats stats = nvme();
  EXPECT_GE(stats.scrubbed, kChunks - 6u);  // the open segment's are not read
  EXPECT_EQ(stats.scrub_damaged, 0u);
  for (uint64_t key = 0; key < kChunks; ++key) EXPECT_EQ(Get(key, kBytes), StatusCode::kOk) << key;
}

TEST_F(Scrub, APassTakesItsTime) {
  Pass();
  const int64_t began_ns = now_ns;
  Pass();
  // Two passes over a log that is half full: the pauses are those of the whole log's bytes.
  EXPECT_GT(now_ns - began_ns, kPassNs / 4);
  EXPECT_LT(now_ns - began_ns, 3 * kPassNs);
}

TEST_F(Scrub, DamageIsDroppedWhereItIsTheOnlyCopyAndHealedFromMemoryElsewhere) {
  constexpr uint64_t out = 0, both = 1;
  ASSERT_EQ(TierOf(out), "nvme");
  ASSERT_EQ(Get(both, kBytes), StatusCode::kOk);
  ASSERT_EQ(TierOf(both), "dram");
  ASSERT_TRUE(Durable(both));
  Damage(out);
  Damage(both);
  Pass();
  EXPECT_EQ(nvme().scrub_damaged, 2u);
  EXPECT_EQ(TierOf(out), "none");
  RunUntil([&] { return Durable(both); });
  EXPECT_TRUE(Durable(both));
  EXPECT_EQ(Get(both, kBytes), StatusCode::kOk);
  EXPECT_EQ(PutKey(out, kBytes), StatusCode::kOk);
  EXPECT_EQ(Get(out, kBytes), StatusCode::kOk);
}

TEST_F(Scrub, AnEmptyLogWakesNobody) {
  ShutDown();
  medium.emplace(SegmentOffset(24, kTestSegmentBytes), 3);
  Boot();
  Settle();
  RunUntil([&] { return store->NvmeWake() == 0; });
  EXPECT_EQ(store->NvmeWake(), 0);
}

}  // namespace
}  // namespace terrace
