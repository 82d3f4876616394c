// Gets and prefetches by message of what is on NVMe, and what the daemon says of a tier that fails.

#include <gmock/gmock.h>

#include "storage/tier/log_layout.h"
#include "tests/daemon/control_harness.h"
#include "tests/daemon/held_device.h"
#include "tests/support/soon.h"

namespace terrace {
namespace {

using testing::Each;
using testing::HasSubstr;
using testing::Not;

class ControlNvmeTest : public ControlServerTest {
 protected:
  static constexpr uint32_t kDramSegments = 8;  // a quarter of them may be loading: 4 chunks
  static constexpr uint32_t kChunks = 40;

  ~ControlNvmeTest() noexcept override {
    device_->hold_reads = device_->hold_writes = false;
    server_->Stop();
    shard_->Stop();
    server_.reset();
    shard_.reset();  // before the medium
  }

  void ServeNvme(bool writable = true) {
    auto device = std::make_unique<HeldDevice>(medium_, clock_, writable);
    device_ = device.get();
    nvme_ = std::move(device);
    Serve(kDramSegments);
    client_ = Connect();
    session_.emplace(Open(*client_, 0));
    id_ = Register(*session_);
  }

  std::string Status() {
    return client_->terrace.statusRequest().send().wait(io_.waitScope).getJson().cStr();
  }

  // Many times what memory holds; then those that are in memory no more.
  void Fill() {
    for (uint32_t n = 0; n < kChunks; ++n) {
      ASSERT_EQ(ControlServerTest::Put(*session_, id_, n, 1, kChunk), rpc::Code::OK) << n;
      // Not faster than the device: what is dropped before it was written is a miss.
      ASSERT_TRUE(n % 4 != 3 || Soon([&] { return Describe(n).durable; })) << n;
    }
    for (uint32_t n = 0; n < kChunks; ++n) {
      if (Describe(n).tier == shm::SlotTier::kNvme) out_.push_back(n);
    }
    ASSERT_GE(out_.size(), 20u);
    device_->reads = 0;
  }
  ChunkInfo Describe(uint32_t n) {
    return On<ChunkInfo>([&] {
      const auto found =
          store().Describe(id_, shm::ChunkKey::FromBytes(&n, sizeof n, 0), MonotonicNs());
      return found.ok() ? *found : ChunkInfo{};
    });
  }
  ChunkStore& store() { return *shard_->store("default"); }
  ChunkStoreStats Stats() {
    return On<ChunkStoreStats>([&] { return store().stats(); });
  }

  template <typename Request>
  Request Named(Request request, std::span<const uint32_t> numbers, uint32_t deadline_ms) {
    request.setNamespaceId(id_);
    request.setDeadlineMs(deadline_ms);
    auto keys = request.initKeys(static_cast<uint32_t>(numbers.size()));
    for (uint32_t i = 0; i < keys.size(); ++i) SetKey(keys[i], numbers[i]);
    return request;
  }
  auto Get(std::span<const uint32_t> numbers, uint32_t deadline_ms = 60'000) {
    return Named(session_->getRequest(), numbers, deadline_ms).send();
  }
  auto Prefetch(std::span<const uint32_t> numbers, uint32_t deadline_ms = 60'000) {
    return Named(session_->prefetchRequest(), numbers, deadline_ms).send();
  }
  template <typename Promise>
  std::vector<rpc::Code> Codes(Promise&& promise) {
    auto answer = promise.wait(io_.waitScope);
    std::vector<rpc::Code> codes;
    for (const rpc::Code code : answer.getCodes()) codes.push_back(code);
    return codes;
  }
  // Lets the loop send what was asked.
  void Send() { client_->terrace.statusRequest().send().wait(io_.waitScope); }
  std::span<const uint32_t> Out(size_t from, size_t count) {
    return std::span(out_).subspan(from, count);
  }

  // Makes the shard look at its waits again.
  void Settle(uint32_t n) {
    EXPECT_EQ(ControlServerTest::Put(*session_, id_, 1000 + n, 1, 4096), rpc::Code::OK);
  }

  std::vector<uint8_t> medium_ = std::vector<uint8_t>(SegmentOffset(48, kSegment));
  SystemClock clock_;
  HeldDevice* device_ = nullptr;
  std::unique_ptr<Client> client_;
  std::optional<rpc::Session::Client> session_;
  uint32_t id_ = 0;
  std::vector<uint32_t> out_;  // of memory
};

TEST_F(ControlNvmeTest, WhatIsStillLoadingAtTheDeadlineIsDeadline) {
  ServeNvme();
  ASSERT_NO_FATAL_FAILURE(Fill());
  device_->hold_reads = true;
  EXPECT_THAT(Codes(Get(Out(0, 2), 50)), Each(rpc::Code::DEADLINE));
  EXPECT_THAT(Codes(Prefetch(Out(0, 2), 50)), Each(rpc::Code::DEADLINE));
  device_->hold_reads = false;
  EXPECT_THAT(Codes(Get(Out(0, 2))), Each(rpc::Code::OK));
}

// What a load just failed to give is promised to nobody any more, so that a put heals it.
TEST_F(ControlNvmeTest, WhatADeviceThatPausesCannotGiveIsAbsent) {
  ServeNvme();
  ASSERT_NO_FATAL_FAILURE(Fill());
  device_->fail_reads = true;
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_THAT(Codes(Get(Out(i, 1))), Each(rpc::Code::NOT_FOUND));  // it cannot be read: it went
  }
  EXPECT_EQ(Describe(out_[8]).tier, shm::SlotTier::kNvme);
  EXPECT_THAT(Codes(Get(Out(8, 1))), Each(rpc::Code::NOT_FOUND));
  EXPECT_THAT(Codes(Prefetch(Out(9, 1))), Each(rpc::Code::NOT_FOUND));
  EXPECT_EQ(ControlServerTest::Put(*session_, id_, out_[8], 1, 4096), rpc::Code::OK);
}

TEST_F(ControlNvmeTest, WithoutRoomItIsBusy) {
  ServeNvme();
  ASSERT_NO_FATAL_FAILURE(Fill());
  On<bool>([&] {
    const SessionId writer = shard_->OpenTrustedSession("default", &writers_pin_, 1);
    for (uint32_t n = 2000;; ++n) {  // claims hold all of the pool
      const PutWant want{.key = shm::ChunkKey::FromBytes(&n, sizeof n, 0), .payload_bytes = kChunk};
      PutGrant grant;
      store().BeginPut(writer, id_, std::span(&want, 1), 0, MonotonicNs(), std::span(&grant, 1));
      if (grant.status != StatusCode::kOk) return true;
    }
  });
  const std::vector<uint32_t> some(out_.begin(), out_.begin() + 2);
  EXPECT_THAT(Codes(Get(some)), Each(rpc::Code::BUSY));
  EXPECT_THAT(Codes(Prefetch(some)), Each(rpc::Code::BUSY));
}

TEST_F(ControlNvmeTest, TooMuchForAMessageIsRefusedBeforeItIsLoaded) {
  ServeNvme();
  ASSERT_NO_FATAL_FAILURE(Fill());
  std::vector<uint32_t> all;
  for (uint32_t n = 0; n < kChunks; ++n) all.push_back(n);
  EXPECT_THAT(Refusal(Get(all)), HasSubstr("at most 32 MiB"));
  EXPECT_EQ(device_->reads, 0u);
}

TEST_F(ControlNvmeTest, KeysThatDriveEachOtherOutAreLoadedOnce) {
  ServeNvme();
  ASSERT_NO_FATAL_FAILURE(Fill());
  const std::vector<rpc::Code> got = Codes(Get(Out(0, 20)));
  EXPECT_LE(device_->reads, 20u);
  EXPECT_GT(std::count(got.begin(), got.end(), rpc::Code::OK), 0);
  EXPECT_THAT(got, Each(testing::AnyOf(rpc::Code::OK, rpc::Code::BUSY)));
  EXPECT_THAT(Codes(Prefetch(Out(0, 20))), Each(testing::AnyOf(rpc::Code::OK, rpc::Code::BUSY)));
  EXPECT_LE(device_->reads, 40u);
}

TEST_F(ControlNvmeTest, APrefetchThatWasCancelledLoadsNoMore) {
  ServeNvme();
  ASSERT_NO_FATAL_FAILURE(Fill());
  device_->hold_reads = true;
  {
    auto prefetch = Prefetch(Out(0, 12));
    ASSERT_TRUE(Soon([&] {
      Send();
      return device_->reads == 2u;
    }));
  }
  Send();
  device_->hold_reads = false;
  ASSERT_TRUE(Soon([&] { return Stats().nvme.loading == 0; }));
  Settle(0);
  EXPECT_EQ(Stats().nvme.loading, 0u);
  EXPECT_EQ(device_->reads, 2u);
}

TEST_F(ControlNvmeTest, AKeyCountsOnceHoweverOftenItIsLookedAt) {
  ServeNvme();
  ASSERT_NO_FATAL_FAILURE(Fill());
  EXPECT_THAT(Codes(Prefetch(Out(0, 2))), Each(rpc::Code::OK));
  const uint64_t gets = Stats().gets;
  device_->hold_reads = true;
  auto prefetch = Prefetch(Out(0, 3));
  ASSERT_TRUE(Soon([&] {
    Send();
    return device_->reads == 3u;
  }));
  for (uint32_t n = 0; n < 5; ++n) Settle(n);
  device_->hold_reads = false;
  EXPECT_THAT(Codes(prefetch), Each(rpc::Code::OK));
  EXPECT_EQ(Stats().gets, gets + 3);
}

TEST_F(ControlNvmeTest, KeysThatAConnectionWaitsForAreBounded) {
  ServeNvme();
  ASSERT_NO_FATAL_FAILURE(Fill());
  device_->hold_reads = true;
  const std::vector<uint32_t> keys(256, out_[0]);
  using Waiting = decltype(Prefetch(keys));
  std::vector<Waiting> waiting;
  for (int i = 0; i < 64; ++i) waiting.push_back(Prefetch(keys));
  EXPECT_THAT(Refusal(Get(Out(0, 1))), HasSubstr("at most 16384 keys"));
  waiting.clear();  // those that are dropped count no more
  device_->hold_reads = false;
  EXPECT_TRUE(Soon([&] { return Refusal(Get(Out(0, 1))) == "it was served"; }));
}

TEST_F(ControlNvmeTest, AWaitThatExpiredStartsNoLoad) {
  ServeNvme();
  ASSERT_NO_FATAL_FAILURE(Fill());
  device_->hold_reads = true;
  auto first = Prefetch(Out(0, 2));
  ASSERT_TRUE(Soon([&] {
    Send();
    return device_->reads == 2u;
  }));
  auto last = Prefetch(Out(4, 1), 100);
  Send();  // it waits for room among the loads
  // The shard sleeps through the deadline; then the loads end in the turn in which it passes.
  std::promise<void> asleep, awake;
  shard_->Post([&] {
    asleep.set_value();
    awake.get_future().wait();
  });
  asleep.get_future().wait();
  device_->hold_reads = false;
  std::this_thread::sleep_for(std::chrono::milliseconds(120));
  awake.set_value();
  EXPECT_THAT(Codes(last), Each(rpc::Code::DEADLINE));
  EXPECT_THAT(Codes(first), Each(rpc::Code::OK));
  EXPECT_EQ(device_->reads, 2u);
}

TEST_F(ControlNvmeTest, AnEpochThatCannotBeStoredInTimeHasBegunAllTheSame) {
  ServeNvme();
  rpc::Admin::Client admin = client_->terrace.adminRequest().send().wait(io_.waitScope).getAdmin();
  const auto bump = [&] {
    auto request = admin.bumpEpochRequest();
    request.setLabel("n");
    return request.send().wait(io_.waitScope);
  };
  device_->hold_writes = true;
  const int64_t begun_ns = MonotonicNs();
  auto late = bump();
  EXPECT_LT(MonotonicNs() - begun_ns, 5 * kNsPerSecond);  // a client gives up then
  EXPECT_EQ(late.getStatus().getCode(), rpc::Code::OK);
  EXPECT_NE(late.getInfo().getId(), id_);
  EXPECT_EQ(late.getStored().getCode(), rpc::Code::BUSY);

  device_->hold_writes = false;
  auto stored = bump();
  EXPECT_EQ(stored.getStatus().getCode(), rpc::Code::OK);
  EXPECT_EQ(stored.getStored().getCode(), rpc::Code::OK);

  device_->fail_writes = true;
  auto failed = bump();
  EXPECT_EQ(failed.getStatus().getCode(), rpc::Code::OK);
  EXPECT_EQ(failed.getInfo().getEpoch(), stored.getInfo().getEpoch() + 1);
  EXPECT_EQ(failed.getStored().getCode(), rpc::Code::IO_ERROR);
}

TEST_F(ControlNvmeTest, StatusWarnsOfReadsThatPause) {
  ServeNvme();
  ASSERT_NO_FATAL_FAILURE(Fill());
  EXPECT_THAT(Status(), HasSubstr("\"writable\":true"));
  EXPECT_THAT(Status(), Not(HasSubstr("pauses its reads")));
  device_->fail_reads = true;
  for (size_t i = 0; i < 8; ++i) Codes(Get(Out(i, 1)));
  EXPECT_THAT(Status(), HasSubstr("\"warnings\":[\"it pauses its reads after errors"));
  EXPECT_THAT(Status(), HasSubstr("the NVMe tier of tenant 'default' pauses its reads"));
}

TEST_F(ControlNvmeTest, StatusWarnsOfNamespacesThatAreNotStored) {
  ServeNvme();
  ASSERT_NO_FATAL_FAILURE(Fill());
  device_->fail_writes = true;
  auto request = session_->registerNamespaceRequest();
  request.initSpec().setLabel("another");
  request.send().wait(io_.waitScope);
  EXPECT_TRUE(Soon([&] {
    return Status().find("it does not know the latest namespaces and epochs: ") !=
           std::string::npos;
  }));
}

TEST_F(ControlNvmeTest, ATierThatIsReadOnlyServesAndSaysSo) {
  ServeNvme();
  ASSERT_NO_FATAL_FAILURE(Fill());
  session_.reset();
  client_.reset();
  server_->Stop();
  shard_->Stop();
  ServeNvme(false);
  EXPECT_THAT(Codes(Get(Out(0, 1))), Each(rpc::Code::OK));
  EXPECT_THAT(Status(), HasSubstr("\"writable\":false"));
  EXPECT_THAT(Status(), HasSubstr("the NVMe tier of tenant 'default' is read-only"));
}

TEST_F(ControlNvmeTest, AChunkIsDescribedByWhereItLies) {
  ServeNvme();
  ASSERT_NO_FATAL_FAILURE(Fill());
  rpc::Admin::Client admin = client_->terrace.adminRequest().send().wait(io_.waitScope).getAdmin();
  const auto describe = [&](uint32_t n) {
    auto request = admin.describeRequest();
    request.setLabel("n");
    SetKey(request.initKey(), n);
    return request.send().wait(io_.waitScope);
  };
  const auto first = describe(out_[0]), second = describe(out_[1]);
  EXPECT_STREQ(first.getInfo().getTier().cStr(), "nvme");
  EXPECT_GT(first.getInfo().getLogOffset(), 0u);
  EXPECT_TRUE(first.getInfo().getLogSegment() != second.getInfo().getLogSegment() ||
              first.getInfo().getLogOffset() != second.getInfo().getLogOffset());
}

}  // namespace
}  // namespace terrace
