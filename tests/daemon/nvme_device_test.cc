// What a start finds at the settings' paths, and that what is not the tenant's stays as it is.

#include "daemon/app/nvme_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include "daemon/app/nvme_path.h"
#include "storage/engine/nvme_tier.h"
#include "tests/storage/io/io_testing.h"

namespace terrace {
namespace {

using testing::HasSubstr;

class NvmeDeviceTest : public testing::Test {
 protected:
  NvmeDevice Open(const std::string& tenant = "default") {
    return OpenNvmeDevice(config_, tenant, config_.nvme_bytes, clock_);
  }

  // Opens the tier's log on the device; how many segments it has, 0 where it is off.
  uint32_t Serve(NvmeDevice opened, const std::string& tenant = "default") {
    NvmeOptions options;
    options.device = opened.device.get();
    options.segment_bytes = opened.segment_bytes;
    options.note = opened.note;
    Result<std::unique_ptr<NvmeTier>> tier = NvmeTier::Create(options, tenant, "lru");
    TERRACE_CHECK(tier.ok());
    bool ended = false;
    (*tier)->Begin({.named = [](const std::vector<std::string>&) { return Status::Ok(); },
                    .recovered = [](const RecoveredRecord&) {},
                    .ended = [&] { ended = true; }});
    TERRACE_CHECK(AwaitEnds(*opened.device, [&] {
      (*tier)->Poll(MonotonicNs());
      return ended;
    }));
    status_device_ = (*tier)->stats().device;
    return (*tier)->ready() ? (*tier)->stats().log.segments.total : 0;
  }

  TestFolder folder_;
  Config config_;
  SystemClock clock_;
  std::string status_device_;
};

TEST_F(NvmeDeviceTest, OtherDataIsRefusedAndLeftAsItIs) {
  const std::string path = folder_.path("vm.img");
  std::ofstream(path) << std::string(100'000, 'v');
  config_.nvme = {path};
  for (const uint64_t bytes : {32 * kMiB, 64 * kMiB}) {
    config_.nvme_bytes = bytes;
    const NvmeDevice opened = Open();
    EXPECT_EQ(opened.fault, NvmeFault::kOthers);
    EXPECT_THAT(opened.why.message(), HasSubstr("nvme of tenant 'default': " + path));
    EXPECT_EQ(std::filesystem::file_size(path), 100'000u);
  }
  std::ifstream file(path);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), std::string(100'000, 'v'));
}

TEST_F(NvmeDeviceTest, AnotherTenantsLogIsRefusedAndLeftAsItIs) {
  config_.nvme = {folder_.path("a.terrace")};
  config_.nvme_bytes = 64 * kMiB;
  EXPECT_GT(Serve(Open("a"), "a"), 0u);
  const uint64_t bytes = std::filesystem::file_size(config_.nvme[0]);
  config_.nvme_bytes = 32 * kMiB;
  const NvmeDevice opened = Open("b");
  EXPECT_EQ(opened.fault, NvmeFault::kOthers);
  EXPECT_THAT(opened.why.message(), HasSubstr("tenant is a, not b"));
  EXPECT_EQ(std::filesystem::file_size(config_.nvme[0]), bytes);
}

TEST_F(NvmeDeviceTest, ALogGrowsWithItsBytesAndKeepsItsSegments) {
  config_.nvme = {folder_.path("a.terrace")};
  config_.nvme_bytes = 256 * kMiB;  // auto: 4 MiB
  NvmeDevice opened = Open();
  EXPECT_EQ(opened.segment_bytes, 4 * kMiB);
  const uint32_t segments = Serve(std::move(opened));
  EXPECT_GE(segments, 60u);
  config_.nvme_bytes = 512 * kMiB;  // a new one would have 8 MiB
  opened = Open();
  ASSERT_EQ(opened.fault, NvmeFault::kNone) << opened.why.message();
  EXPECT_EQ(opened.segment_bytes, 4 * kMiB);
  EXPECT_GE(Serve(std::move(opened)), segments + 60);
}

TEST_F(NvmeDeviceTest, ALogNeverShrinksAndSaysSo) {
  config_.nvme = {folder_.path("a.terrace")};
  config_.nvme_bytes = 256 * kMiB;
  const uint32_t segments = Serve(Open());
  const uint64_t bytes = std::filesystem::file_size(config_.nvme[0]);
  config_.nvme_bytes = 64 * kMiB;
  EXPECT_EQ(Serve(Open()), segments);
  EXPECT_EQ(std::filesystem::file_size(config_.nvme[0]), bytes);
  EXPECT_THAT(status_device_, HasSubstr("nvme_bytes gives it 64 MiB"));
  EXPECT_THAT(status_device_, HasSubstr("remove it to start anew with less"));
}

TEST_F(NvmeDeviceTest, AnotherSegmentSizeIsRefusedWithTheOneToSet) {
  config_.nvme = {folder_.path("a.terrace")};
  config_.nvme_bytes = 256 * kMiB;
  EXPECT_GT(Serve(Open()), 0u);
  config_.nvme_segment_bytes = 8 * kMiB;
  const NvmeDevice opened = Open();
  EXPECT_EQ(opened.fault, NvmeFault::kSettings);
  EXPECT_THAT(opened.why.message(), HasSubstr("set nvme_segment = \"4MiB\""));
}

TEST_F(NvmeDeviceTest, PathsAreNeitherAddedNorTakenNorExchanged) {
  const std::string a = folder_.path("a.terrace"), b = folder_.path("b.terrace");
  config_.nvme = {a, b};
  config_.nvme_bytes = 128 * kMiB;
  const uint32_t segments = Serve(Open());
  EXPECT_GT(segments, 0u);
  EXPECT_EQ(Serve(Open()), segments);
  config_.nvme = {a};
  NvmeDevice opened = Open();
  EXPECT_EQ(opened.fault, NvmeFault::kSettings);
  EXPECT_THAT(opened.why.message(), HasSubstr("lies on 2 files, and nvme names 1"));
  config_.nvme = {a, b, folder_.path("c.terrace")};
  opened = Open();
  EXPECT_EQ(opened.fault, NvmeFault::kSettings);
  EXPECT_THAT(opened.why.message(), HasSubstr("lies on 2 files, and nvme names 3"));
  config_.nvme = {a, b};
  EXPECT_EQ(Serve(Open()), segments);
}

TEST_F(NvmeDeviceTest, WhatIsAwayOrLockedCostsTheTierAlone) {
  config_.nvme_bytes = 64 * kMiB;
  config_.nvme = {folder_.path("unmounted/")};
  EXPECT_EQ(Open().fault, NvmeFault::kDevice);
  config_.nvme = {"/dev/terrace-none"};
  EXPECT_EQ(Open().fault, NvmeFault::kDevice);
  EXPECT_FALSE(std::filesystem::exists("/dev/terrace-none"));
  config_.nvme = {folder_.path("a.terrace")};
  const NvmeDevice first = Open();
  ASSERT_EQ(first.fault, NvmeFault::kNone);
  const NvmeDevice second = Open();
  EXPECT_EQ(second.fault, NvmeFault::kDevice);
  EXPECT_THAT(second.why.message(), HasSubstr("in use by another process"));
  // As a full file system: not even a stripe.
  config_.nvme = {folder_.path("b.terrace")};
  config_.nvme_bytes = kMiB;
  EXPECT_EQ(Open().fault, NvmeFault::kDevice);
}

TEST_F(NvmeDeviceTest, AFolderThatOthersWriteInIsRefused) {
  config_.nvme = {folder_.path("")};
  config_.nvme_bytes = 64 * kMiB;
  ASSERT_EQ(chmod(folder_.path("").c_str(), 0777), 0);
  const NvmeDevice opened = Open();
  EXPECT_EQ(opened.fault, NvmeFault::kOthers);
  EXPECT_THAT(opened.why.message(), HasSubstr("chmod go-w"));
}

}  // namespace
}  // namespace terrace
