// A client, a daemon and a file: what leaves memory comes back, also after the daemon was killed.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "tests/client/core/nvme_fixture.h"
#include "tests/support/soon.h"

namespace terrace {
namespace {

constexpr uint32_t kChunks = 200;
constexpr size_t kBytes = 1'000'000;
constexpr uint64_t kCap = uint64_t{512} << 20;

class NvmeTest : public NvmeDaemonTest {
 protected:
  NvmeTest() : NvmeDaemonTest({"--nvme-bytes", "512MiB"}) {}

  uint64_t Allocated() const {
    uint64_t bytes = 0;
    for (const auto& file : std::filesystem::directory_iterator(folder_)) {
      struct stat info {};
      if (stat(file.path().c_str(), &info) == 0)
        bytes += static_cast<uint64_t>(info.st_blocks) * 512;
    }
    return bytes;
  }

  StatusCode Put(uint32_t number) { return Put(*ns_, number); }
  StatusCode Put(Namespace& ns, uint32_t number) {
    const std::vector<std::byte> payload = Payload(number, kBytes);
    const PutItem item{.key = Key(number), .payload = payload};
    return ns.Put(std::span(&item, 1))[0];
  }
  bool Durable(uint32_t number, const std::string& label = "test") {
    const Result<ListedChunk> chunk = client_->Describe(label, Key(number));
    return chunk.ok() && chunk->durable;
  }
  void Fill() {
    for (uint32_t number = 0; number < kChunks; ++number) {
      ASSERT_EQ(Put(number), StatusCode::kOk) << number;
      // Not faster than the device: what is dropped before it was written is a miss.
      const bool look = number % 16 == 15;
      ASSERT_TRUE(!look || Soon([&] { return Durable(number); })) << number;
    }
    ASSERT_TRUE(Soon([&] { return Durable(kChunks - 1); }));
  }
  // All of them, some a call.
  void ExpectAll() {
    for (uint32_t from = 0; from < kChunks; from += 8) {
      std::vector<shm::ChunkKey> keys;
      for (uint32_t number = from; number < std::min(from + 8, kChunks); ++number) {
        keys.push_back(Key(number));
      }
      const std::vector<GetResult> got = ns_->Get(keys, {.timeout_ns = 10'000'000'000});
      for (uint32_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(got[i].status, StatusCode::kOk) << from + i;
        ASSERT_TRUE(Equal(got[i].pin.bytes(), Payload(from + i, kBytes))) << from + i;
      }
    }
  }
};

TEST_F(NvmeTest, SeveralTimesWhatMemoryHoldsComesBack) {
  ASSERT_NO_FATAL_FAILURE(Fill());
  EXPECT_LE(Allocated(), kCap);
  std::vector<shm::ChunkKey> keys;
  for (uint32_t number = 0; number < kChunks; ++number) keys.push_back(Key(number));
  const MatchResult matched = ns_->Match(keys);
  EXPECT_EQ(matched.prefix, kChunks);
  EXPECT_GT(std::count(matched.states.begin(), matched.states.end(), KeyState::kNvme), 100);
  ASSERT_NO_FATAL_FAILURE(ExpectAll());
  EXPECT_LE(Allocated(), kCap);
}

TEST_F(NvmeTest, AKilledDaemonComesBackWarm) {
  ASSERT_NO_FATAL_FAILURE(Fill());
  daemon_->Kill();
  daemon_->Start();
  Connect();
  std::vector<shm::ChunkKey> keys;
  for (uint32_t number = 0; number < kChunks; ++number) keys.push_back(Key(number));
  EXPECT_EQ(ns_->Match(keys).prefix, kChunks);
  ASSERT_NO_FATAL_FAILURE(ExpectAll());
  EXPECT_LE(Allocated(), kCap);
}

TEST_F(NvmeTest, WhatWaitsIsWrittenBeforeTheDaemonEnds) {
  for (uint32_t number = 0; number < 20; ++number) ASSERT_EQ(Put(number), StatusCode::kOk);
  daemon_->Terminate();
  daemon_->Start();
  Connect();
  for (uint32_t number = 0; number < 20; ++number) {
    Pin pin;
    ASSERT_EQ(ns_->GetOne(Key(number), &pin), StatusCode::kOk) << number;
    EXPECT_TRUE(Equal(pin.bytes(), Payload(number, kBytes)));
  }
}

TEST_F(NvmeTest, PrefetchBringsItIntoMemory) {
  ASSERT_NO_FATAL_FAILURE(Fill());
  std::vector<shm::ChunkKey> out;
  for (uint32_t number = 0; number < kChunks && out.size() < 8; ++number) {
    const shm::ChunkKey key = Key(number);
    if (ns_->Match(std::span(&key, 1)).states[0] == KeyState::kNvme) out.push_back(key);
  }
  ASSERT_EQ(out.size(), 8u);
  for (const StatusCode code : ns_->Prefetch(out)) EXPECT_EQ(code, StatusCode::kOk);
  for (const KeyState state : ns_->Match(out).states) EXPECT_EQ(state, KeyState::kReady);
}

TEST_F(NvmeTest, MessagesFetchFromTheDeviceToo) {
  ASSERT_NO_FATAL_FAILURE(Fill());
  const std::unique_ptr<Client> remote =
      *Client::Connect({.socket = daemon_->socket(), .shared_memory = false});
  const std::shared_ptr<Namespace> ns = *remote->Register(Identity());
  uint32_t fetched = 0;
  for (uint32_t number = 0; number < kChunks && fetched < 8; ++number) {
    const shm::ChunkKey key = Key(number);
    if (ns_->Match(std::span(&key, 1)).states[0] != KeyState::kNvme) continue;
    Pin pin;
    ASSERT_EQ(ns->GetOne(key, &pin), StatusCode::kOk) << number;
    EXPECT_TRUE(Equal(pin.bytes(), Payload(number, kBytes)));
    ++fetched;
  }
  EXPECT_EQ(fetched, 8u);
}

TEST_F(NvmeTest, AnEpochThatWasBumpedStaysGone) {
  ASSERT_NO_FATAL_FAILURE(Fill());
  NamespaceIdentity other = Identity();
  other.label = "other";
  std::shared_ptr<Namespace> others = *client_->Register(other);
  for (uint32_t number = 0; number < 4; ++number) {
    ASSERT_EQ(Put(*others, number), StatusCode::kOk);
    ASSERT_TRUE(Soon([&] { return Durable(number, "other"); }));
  }
  const Result<EpochBump> bumped = client_->BumpEpoch("test");
  ASSERT_TRUE(bumped.ok() && bumped->stored.ok());
  others.reset();
  daemon_->Kill();
  daemon_->Start();
  Connect();
  // The others' come back: the tier is on, and knows what it held.
  others = *client_->Register(other);
  for (uint32_t number = 0; number < 4; ++number) {
    Pin pin;
    ASSERT_EQ(others->GetOne(Key(number), &pin), StatusCode::kOk) << number;
    EXPECT_TRUE(Equal(pin.bytes(), Payload(number, kBytes)));
  }
  std::vector<shm::ChunkKey> keys;
  for (uint32_t number = 0; number < kChunks; ++number) keys.push_back(Key(number));
  const MatchResult matched = ns_->Match(keys);
  EXPECT_EQ(std::count(matched.states.begin(), matched.states.end(), KeyState::kAbsent), kChunks);
}

}  // namespace
}  // namespace terrace
