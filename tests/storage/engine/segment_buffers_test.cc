// Segments of a real pool, which a thread populates, and a device on a real file: what the kernel
// thinks of sealed memory, nothing else would tell.

#include "storage/engine/segment_buffers.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>

#include "storage/io/open_device.h"
#include "tests/storage/io/io_testing.h"
#include "tests/support/soon.h"

namespace terrace {
namespace {

constexpr uint64_t kSegment = 2 * kMiB;

class SegmentBuffersTest : public testing::Test {
 protected:
  void SetUp() override {
    OpenOptions options;
    options.files.paths = {folder_.path("log")};
    options.files.capacity_bytes = 4 * kMiB;
    options.files.stripe_bytes = kSegment;
    Result<OpenedDevice> opened = OpenDevice(options, clock_);
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    device_ = std::move(opened->device);
    Result<std::unique_ptr<SegmentPool>> pool =
        SegmentPool::Create({.name = "terrace-test",
                             .segment_bytes = kSegment,
                             .segment_count = 4,
                             .memory = {.best = PageRung::kSmall, .root = ""}});
    ASSERT_TRUE(pool.ok()) << pool.status().ToString();
    pool_ = *std::move(pool);
    buffers_.emplace(*device_, *pool_);
  }
  void TearDown() override {
    if (device_ != nullptr) device_->Drain();
  }

  uint32_t OpenDaemonFilled() {
    const Result<uint32_t> segment = pool_->Open(SegmentKind::kDaemonFilled);
    TERRACE_CHECK(segment.ok());
    EXPECT_TRUE(Soon([&] { return pool_->IsPopulated(*segment); }));
    return *segment;
  }
  uint8_t* At(uint32_t segment) { return pool_->at(segment).memory.mapping().writable_data(); }

  TestFolder folder_;
  SystemClock clock_;
  std::unique_ptr<BlockDevice> device_;
  std::unique_ptr<SegmentPool> pool_;
  std::optional<SegmentBuffers> buffers_;
};

TEST_F(SegmentBuffersTest, ReadsGoIntoSealedMemoryByItsRegistration) {
  PageMemory out(kMiB);
  out.Fill(1);
  Ask write, read;
  ASSERT_TRUE(Carry(*device_, write.Write(0, out.data(), kMiB)).ok());

  const uint32_t segment = OpenDaemonFilled();
  const BufferId buffer = buffers_->Of(segment);
  ASSERT_NE(buffer, kNoBuffer);
  EXPECT_EQ(buffers_->Of(segment), buffer);
  EXPECT_EQ(device_->stats().buffers, 1u);
  // Plain where the limit of locked memory leaves nothing else.
  EXPECT_EQ(device_->stats().plain_buffers == 0, device_->mode() != DeviceMode::kUringPlain);
  ASSERT_TRUE(Carry(*device_, read.Read(0, At(segment), kMiB, IoClass::kDeadline, buffer)).ok());
  EXPECT_EQ(std::memcmp(At(segment), out.data(), kMiB), 0);
}

TEST_F(SegmentBuffersTest, AFreshMemfdHasARegistrationOfItsOwn) {
  const uint32_t segment = OpenDaemonFilled();
  const BufferId before = buffers_->Of(segment);
  pool_->Seal(segment);
  pool_->Replace(segment);
  EXPECT_EQ(device_->stats().buffers, 0u);
  Ask stale, read;
  stale.Read(0, At(segment), kPageBytes, IoClass::kDeadline, before);
  EXPECT_EQ(device_->Submit(stale).code(), StatusCode::kInvalid);

  EXPECT_TRUE(Soon([&] { return pool_->IsPopulated(segment); }));
  const BufferId after = buffers_->Of(segment);
  EXPECT_NE(after, before);
  EXPECT_TRUE(Carry(*device_, read.Read(0, At(segment), kMiB, IoClass::kDeadline, after)).ok());
}

TEST_F(SegmentBuffersTest, NothingStaysRegistered) {
  for (int i = 0; i < 3; ++i) EXPECT_NE(buffers_->Of(OpenDaemonFilled()), kNoBuffer);
  EXPECT_EQ(device_->stats().buffers, 3u);
  buffers_.reset();
  EXPECT_EQ(device_->stats().buffers, 0u);
  const uint32_t segment = OpenDaemonFilled();
  pool_->Seal(segment);
  pool_->Replace(segment);  // nobody is told any more
}

}  // namespace
}  // namespace terrace
