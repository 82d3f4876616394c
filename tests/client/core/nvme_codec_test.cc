// A daemon whose NVMe tier encodes: what leaves memory comes back with its bytes, whoever wrote it.

#include <gtest/gtest.h>

#include <cstdio>

#include "storage/base/clock.h"
#include "tests/client/core/nvme_fixture.h"
#include "tests/support/daemon_status.h"
#include "tests/support/soon.h"

namespace terrace {
namespace {

constexpr uint32_t kChunks = 200;
constexpr size_t kBytes = 900'000;

// Elements of bf16 as KV has them: few exponents, all else noise.
std::vector<std::byte> KvPayload(uint32_t number) {
  std::vector<std::byte> payload = Payload(number, kBytes);
  for (size_t at = 0; at + 2 <= kBytes; at += 2) {
    uint16_t word = 0;
    std::memcpy(&word, payload.data() + at, sizeof word);
    word = static_cast<uint16_t>((word & 0x807F) | (120 + (word >> 7) % 8) << 7);
    std::memcpy(payload.data() + at, &word, sizeof word);
  }
  return payload;
}

class NvmeCodecTest : public NvmeDaemonTest {
 protected:
  NvmeCodecTest() : NvmeDaemonTest({"--nvme-bytes", "512MiB", "--nvme-codec", "auto"}) {
    RegisterKv();
  }
  ~NvmeCodecTest() override { kv_.reset(); }

  void RegisterKv(const std::string& label = "kv", const std::string& dtype = "bfloat16") {
    label_ = label;
    NamespaceIdentity identity = Identity(label);
    identity.dtype = dtype;
    kv_ = *client_->Register(identity);
  }
  void Reconnect() {
    kv_.reset();
    Connect();
    RegisterKv();
  }
  bool Durable(uint32_t number) {
    const Result<ListedChunk> chunk = client_->Describe(label_, Key(number));
    return chunk.ok() && chunk->durable;
  }
  void Fill() {
    for (uint32_t number = 0; number < kChunks; ++number) {
      const std::vector<std::byte> payload = KvPayload(number);
      const PutItem item{.key = Key(number), .payload = payload};
      ASSERT_EQ(kv_->Put(std::span(&item, 1))[0], StatusCode::kOk) << number;
      // Not faster than the device: what is dropped before it was written is a miss.
      const bool look = number % 16 == 15;
      ASSERT_TRUE(!look || Soon([&] { return Durable(number); })) << number;
    }
    for (uint32_t number = 0; number < kChunks; ++number) {
      ASSERT_TRUE(Soon([&] { return Durable(number); })) << number;
    }
  }
  // The bytes a second that came.
  double ExpectAll() {
    int64_t took_ns = 0;
    for (uint32_t from = 0; from < kChunks; from += 8) {
      std::vector<shm::ChunkKey> keys;
      for (uint32_t number = from; number < from + 8; ++number) keys.push_back(Key(number));
      const int64_t began_ns = MonotonicNs();
      const std::vector<GetResult> got = kv_->Get(keys, {.timeout_ns = 10'000'000'000});
      took_ns += MonotonicNs() - began_ns;
      for (uint32_t i = 0; i < got.size(); ++i) {
        EXPECT_EQ(got[i].status, StatusCode::kOk) << from + i;
        if (got[i].status != StatusCode::kOk) return 0;
        EXPECT_TRUE(Equal(got[i].pin.bytes(), KvPayload(from + i))) << from + i;
      }
    }
    return double{kChunks} * kBytes / (static_cast<double>(took_ns) * 1e-9);
  }

  std::shared_ptr<Namespace> kv_;
  std::string label_;
};

TEST_F(NvmeCodecTest, SeveralTimesWhatMemoryHoldsComesBackAlsoAfterAKill) {
  ASSERT_NO_FATAL_FAILURE(Fill());
  ExpectAll();
  const CodecStatus before = ReadStatus(*client_).codec;
  EXPECT_GT(before.encodes, kChunks / 2);
  EXPECT_GT(before.saved_bytes, kChunks / 2 * kBytes / 5);
  EXPECT_GT(before.decodes, kChunks / 4);
  EXPECT_EQ(before.decodes_failed, 0u);
  EXPECT_LT(client_->Describe("kv", Key(3))->log_bytes, kBytes);
  daemon_->Kill();
  daemon_->Start();
  Reconnect();
  ExpectAll();
  const CodecStatus after = ReadStatus(*client_).codec;
  EXPECT_EQ(after.encoded_chunks, before.encoded_chunks);
}

// The numbers are for whoever weighs the setting.
TEST_F(NvmeCodecTest, ElementsThatAreNotKnownGoThereAsTheyAre) {
  ASSERT_NO_FATAL_FAILURE(Fill());
  const double encoded = ExpectAll();
  const uint64_t encodes = ReadStatus(*client_).codec.encodes;
  RegisterKv("opaque", "");
  ASSERT_NO_FATAL_FAILURE(Fill());
  const double plain = ExpectAll();
  EXPECT_EQ(ReadStatus(*client_).codec.encodes, encodes);
  std::printf("gets, 8 a call: %.2f GB/s encoded, %.2f as they are\n", encoded * 1e-9,
              plain * 1e-9);
}

}  // namespace
}  // namespace terrace
