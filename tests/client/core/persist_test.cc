// What a durable put has acknowledged is there after kill -9, whenever that comes.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "tests/client/core/nvme_fixture.h"
#include "tests/support/soon.h"

namespace terrace {
namespace {

constexpr size_t kBytes = 200'000;
constexpr int64_t kTimeoutNs = 10'000'000'000;

class PersistTest : public NvmeDaemonTest {
 protected:
  PersistTest() : NvmeDaemonTest({"--nvme-bytes", "256MiB", "--nvme-admission", "second-hit"}) {}

  StatusCode PutDurable(uint32_t number) {
    const std::vector<std::byte> payload = Payload(number, kBytes);
    const PutItem item{.key = Key(number), .payload = payload};
    return ns_->PutDurable(std::span(&item, 1), kTimeoutNs)[0];
  }
  bool Holds(uint32_t number) {
    const shm::ChunkKey key = Key(number);
    const std::vector<GetResult> got = ns_->Get(std::span(&key, 1), {.timeout_ns = kTimeoutNs});
    return got[0].status == StatusCode::kOk && Equal(got[0].pin.bytes(), Payload(number, kBytes));
  }
};

TEST_F(PersistTest, AnAcknowledgedChunkIsDurableWhateverAdmissionSays) {
  EXPECT_EQ(PutDurable(1), StatusCode::kOk);
  EXPECT_TRUE(client_->Describe("test", Key(1))->durable);
  EXPECT_EQ(PutDurable(1), StatusCode::kExists);
  const shm::ChunkKey absent = Key(2);
  EXPECT_EQ(ns_->Persist(std::span(&absent, 1)), std::vector{StatusCode::kNotFound});
}

TEST_F(PersistTest, WithoutATierItSaysSoAndTheChunkIsInMemory) {
  daemon_ = std::make_unique<DaemonFixture>(std::vector<std::string>{"--dram", "64MiB"});
  Connect();
  EXPECT_EQ(PutDurable(1), StatusCode::kUnavailable);
  EXPECT_TRUE(Holds(1));
}

TEST_F(PersistTest, KillsAtAnyTimeLoseNothingThatWasAcknowledged) {
  std::minstd_rand random(11);
  uint32_t number = 0;
  for (int round = 0; round < 12; ++round) {
    std::atomic<bool> killed{false};
    std::thread killer([&, after_us = random() % 60'000] {
      std::this_thread::sleep_for(std::chrono::microseconds(after_us));  // when: by the seed
      daemon_->Kill();
      killed = true;
    });
    std::vector<uint32_t> acknowledged;
    while (!killed && acknowledged.size() < 200) {
      ++number;
      if (PutDurable(number) == StatusCode::kOk) acknowledged.push_back(number);
    }
    killer.join();
    daemon_->Start();
    Connect();
    for (const uint32_t held : acknowledged) EXPECT_TRUE(Holds(held)) << "round " << round;
  }
}

}  // namespace
}  // namespace terrace
