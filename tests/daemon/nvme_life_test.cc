// Devices that hang: a start and an end that are bounded all the same, for all tenants together.

#include "daemon/session/nvme_life.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "daemon/session/shard.h"
#include "storage/mem/guarded_copy.h"
#include "tests/storage/io/child.h"
#include "tests/storage/io/scripted_device.h"

namespace terrace {
namespace {

constexpr uint64_t kSegment = 2 * kMiB;
constexpr int64_t kBoundNs = 400 * kNsPerMs;

// Takes what is asked of it, and never answers before EndAll.
std::unique_ptr<ScriptedDevice> Hung(const Clock& clock) {
  return std::make_unique<ScriptedDevice>(
      QueuedDevice::Geometry{.capacity_bytes = 64 * kMiB, .stripe_bytes = kSegment}, 2, clock);
}

ChunkStoreOptions Options(const std::string& tenant, BlockDevice* device) {
  ChunkStoreOptions options;
  options.tenant = tenant;
  options.dram_bytes = 16 * kMiB;
  options.segment_bytes = kSegment;
  options.index_slots = 1024;
  options.memory.best = PageRung::kSmall;
  options.boot_epoch = 1;
  options.nvme.device = device;
  options.nvme.segment_bytes = kSegment;
  return options;
}

class NvmeLifeTest : public testing::Test {
 protected:
  NvmeLifeTest() {
    TERRACE_CHECK(InstallGuard().ok());
    for (const char* tenant : {"a", "b", "c"}) {
      devices_.push_back(Hung(clock_));
      Result<std::unique_ptr<ChunkStore>> store =
          ChunkStore::Create(Options(tenant, devices_.back().get()));
      TERRACE_CHECK(store.ok());
      stores_.push_back(*std::move(store));
      tiers_.push_back({.device = devices_.back().get(), .store = stores_.back().get()});
    }
  }
  ~NvmeLifeTest() override {
    for (const auto& device : devices_) device->EndAll();
    stores_.clear();
  }

  const SystemClock clock_;
  std::vector<std::unique_ptr<ScriptedDevice>> devices_;
  std::vector<std::unique_ptr<ChunkStore>> stores_;
  std::vector<NvmeLife> tiers_;
};

TEST_F(NvmeLifeTest, OneBoundHoldsForTheStartsOfAllTenants) {
  const int64_t begun_ns = MonotonicNs();
  EXPECT_TRUE(StartNvme(tiers_, begun_ns + kBoundNs, nullptr).ok());
  EXPECT_GE(MonotonicNs() - begun_ns, kBoundNs);
  EXPECT_LT(MonotonicNs() - begun_ns, 3 * kBoundNs);
  for (const auto& store : stores_) {
    EXPECT_EQ(store->nvme_why_off().code(), StatusCode::kDeadline);
    EXPECT_EQ(store->stats().nvme.state, NvmeState::kOff);
  }
}

TEST_F(NvmeLifeTest, AStartIsBrokenOffWhenAsked) {
  int asked = 0;
  const Status started =
      StartNvme(tiers_, MonotonicNs() + 600 * kNsPerSecond, [&asked] { return ++asked < 3; });
  EXPECT_EQ(started.code(), StatusCode::kCancelled);
  EXPECT_EQ(asked, 3);
}

TEST_F(NvmeLifeTest, OneBoundHoldsForTheEndsOfAllTenants) {
  EXPECT_TRUE(StartNvme(tiers_, MonotonicNs(), nullptr).ok());
  const int64_t begun_ns = MonotonicNs();
  DrainNvme(tiers_, begun_ns + kBoundNs);
  EXPECT_FALSE(QuietNvme(tiers_, begun_ns + kBoundNs));
  EXPECT_LT(MonotonicNs() - begun_ns, 3 * kBoundNs);
  for (const auto& device : devices_) device->EndAll();
  EXPECT_TRUE(QuietNvme(tiers_, MonotonicNs()));
}

// What the device holds is read at some later start: an ended epoch must not pass for stored.
TEST(NvmeAway, IsNamedInStatusAndKeepsNothing) {
  ASSERT_TRUE(InstallGuard().ok());
  ChunkStoreOptions options = Options("a", nullptr);
  options.nvme.unavailable = Status(StatusCode::kBusy, "locked by another daemon");
  const Result<std::unique_ptr<ChunkStore>> made = ChunkStore::Create(options);
  ASSERT_TRUE(made.ok()) << made.status().ToString();
  ChunkStore& store = **made;
  EXPECT_TRUE(store.stats().nvme.configured);
  EXPECT_EQ(store.stats().nvme.state, NvmeState::kOff);
  EXPECT_EQ(store.stats().nvme.why_off, "busy: locked by another daemon");
  NamespaceSpec spec;
  spec.label = "ns";
  ASSERT_TRUE(store.RegisterNamespace(spec).ok());
  const Status stored = store.NamespacesStored(store.namespaces_version());
  EXPECT_EQ(stored.code(), StatusCode::kIoError);
  EXPECT_NE(stored.message().find("locked by another daemon"), std::string::npos);
}

// Never answers at all.
class SilentDevice final : public QueuedDevice {
 public:
  explicit SilentDevice(const Clock& clock)
      : QueuedDevice({.capacity_bytes = 64 * kMiB, .stripe_bytes = kSegment},
                     UniqueFd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), 2, clock) {}
  DeviceMode mode() const override { return DeviceMode::kSimulated; }
  std::string Describe() const override { return "hung"; }
  Status CheckMedium() const override { return Status::Ok(); }
  uint64_t AllocatedBytes() const override { return capacity_bytes(); }

 private:
  void Start(const Operation&) override {}
  bool Kick() override { return true; }
  void StartCancel(uint64_t) override {}
  void Reap() override {}
  bool AdoptBuffer(uint32_t, uint8_t*, uint64_t) override { return true; }
  bool ReleaseBuffer(uint32_t) override { return true; }
};

ShardOptions HungShard(const Clock& clock) {
  ShardOptions options;
  options.tenants.push_back(Options("a", nullptr));
  options.nvme["a"] = std::make_unique<SilentDevice>(clock);
  options.nvme_start_ns = options.nvme_drain_ns = options.nvme_quiet_ns = kBoundNs;
  return options;
}

// In children: what a shard leaves behind lasts as long as its process.
TEST(HungShard, ServesAndEndsWithoutItsDevice) {
  EXPECT_EQ(InChild([] {
              const SystemClock clock;
              Result<std::unique_ptr<Shard>> shard = Shard::Create(HungShard(clock));
              if (!shard.ok()) return 1;
              if ((*shard)->store("a")->stats().nvme.state != NvmeState::kOff) return 2;
              (*shard)->Start();
              (*shard)->Stop();
              if (!(*shard)->hung()) return 3;
              shard->reset();
              return 0;
            }),
            0);
}

TEST(HungShard, EndsUnserved) {
  EXPECT_EQ(InChild([] {
              const SystemClock clock;
              return Shard::Create(HungShard(clock)).ok() ? 0 : 1;
            }),
            0);
}

TEST(HungShard, IsBrokenOffWhenAsked) {
  EXPECT_EQ(InChild([] {
              const SystemClock clock;
              ShardOptions options = HungShard(clock);
              options.nvme_start_ns = 600 * kNsPerSecond;
              options.go_on = [] { return false; };
              const Status made = Shard::Create(std::move(options)).status();
              return made.code() == StatusCode::kCancelled ? 0 : 1;
            }),
            0);
}

}  // namespace
}  // namespace terrace
