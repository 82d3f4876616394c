// What is found on files before they become a log's, and that looking changes nothing.

#include "storage/tier/log_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/storage/io/io_testing.h"

namespace terrace {
namespace {

using testing::HasSubstr;

constexpr uint64_t kSegment = 8 * kMiB;

class LogProbeTest : public testing::Test {
 protected:
  LogIdentity Identity() const {
    LogIdentity identity;
    identity.set_id = set_id_;
    identity.tenant = "research";
    identity.segment_count = 3;
    identity.segment_bytes = kSegment;
    identity.log_id = 7;
    return identity;
  }

  void WriteBlock(const std::string& name, uint64_t offset, const void* block) {
    const std::string path = folder_.path(name);
    if (!std::filesystem::exists(path)) std::ofstream(path).close();
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(offset));
    file.write(static_cast<const char*>(block), kLogBlockBytes);
  }
  void WriteLog(const std::string& name, const LogIdentity& identity) {
    LogSuperblock block;
    BuildSuperblock(identity, &block);
    for (uint64_t copy = 0; copy < kLogCopyCount; ++copy) {
      WriteBlock(name, copy * kLogCopyStride, &block);
    }
  }
  void WriteSegment(const std::string& name, const LogIdentity& identity) {
    SegmentHead head;
    BuildSegmentHead(identity, 0, 9, &head);
    WriteBlock(name, 0, &head);
  }

  // Looks, and sees that every file is as it was.
  LogProbe Probe(const std::vector<std::string>& names) {
    std::vector<std::string> paths;
    std::vector<uint64_t> bytes;
    for (const std::string& name : names) {
      paths.push_back(folder_.path(name));
      std::error_code error;
      const auto size = std::filesystem::file_size(paths.back(), error);
      bytes.push_back(error ? 0 : size);
    }
    const Result<DeviceFiles> files = DeviceFiles::OpenPaths(paths);
    TERRACE_CHECK(files.ok());
    LogProbe probe = ProbeLog(*files, set_id_, "research");
    for (size_t i = 0; i < paths.size(); ++i) {
      EXPECT_EQ(std::filesystem::file_size(paths[i]), bytes[i]);
    }
    return probe;
  }

  TestFolder folder_;
  const LogSetId set_id_{1, 2, 3};
};

TEST_F(LogProbeTest, EmptyFilesHoldNothing) {
  EXPECT_EQ(Probe({"a", "b"}).found, LogFound::kNothing);
  std::filesystem::resize_file(folder_.path("a"), 20 * kMiB);
  EXPECT_EQ(Probe({"a", "b"}).found, LogFound::kNothing);
}

TEST_F(LogProbeTest, OtherDataIsNamed) {
  std::ofstream(folder_.path("vm.img")) << "boot";
  const LogProbe probe = Probe({"vm.img"});
  EXPECT_EQ(probe.found, LogFound::kOthers);
  EXPECT_THAT(probe.why.message(), HasSubstr("vm.img holds other data"));
  EXPECT_EQ(Probe({"new", "vm.img"}).found, LogFound::kOthers);
  // Behind the superblocks' places.
  const std::string block(kLogBlockBytes, 'x');
  WriteBlock("late", 5 * kMiB, block.data());
  EXPECT_EQ(Probe({"late"}).found, LogFound::kOthers);
}

TEST_F(LogProbeTest, TheTenantsLogIsFoundByEitherSuperblock) {
  WriteLog("a", Identity());
  EXPECT_EQ(Probe({"a"}).found, LogFound::kLog);
  LogSuperblock damaged;
  BuildSuperblock(Identity(), &damaged);
  ++damaged.segment_count;
  WriteBlock("a", 0, &damaged);
  const LogProbe probe = Probe({"a"});
  EXPECT_EQ(probe.found, LogFound::kLog);
  EXPECT_EQ(probe.identity, Identity());
  WriteBlock("a", kLogCopyStride, &damaged);
  EXPECT_EQ(Probe({"a"}).found, LogFound::kDamaged);
  const std::string zeros(kLogBlockBytes, 0);
  WriteBlock("a", kLogCopyStride, zeros.data());
  EXPECT_EQ(Probe({"a"}).found, LogFound::kDamaged);
}

TEST_F(LogProbeTest, AnotherTenantsAndVersionsLogsAreOthers) {
  LogIdentity identity = Identity();
  identity.tenant = "search";
  WriteLog("a", identity);
  LogProbe probe = Probe({"a"});
  EXPECT_EQ(probe.found, LogFound::kOthers);
  EXPECT_THAT(probe.why.message(), HasSubstr("tenant is search, not research"));
  LogSuperblock block;
  BuildSuperblock(Identity(), &block);
  block.version = 1;
  block.checksum = 0;
  block.checksum = HashBytes(&block, sizeof(block));
  WriteBlock("b", 0, &block);
  probe = Probe({"b"});
  EXPECT_EQ(probe.found, LogFound::kOthers);
  EXPECT_THAT(probe.why.message(), HasSubstr("version 1, this build reads 2"));
}

TEST_F(LogProbeTest, MoreOrFewerFilesAreNamedBoth) {
  WriteLog("a", Identity());
  LogProbe probe = Probe({"a", "b"});
  EXPECT_EQ(probe.found, LogFound::kOtherFiles);
  EXPECT_THAT(probe.why.message(), HasSubstr("lies on 1 file, and nvme names 2"));
  EXPECT_EQ(Probe({"b", "a"}).found, LogFound::kOthers);

  LogIdentity identity = Identity();
  identity.file_count = 2;
  identity.stripe_bytes = kSegment;
  WriteLog("c", identity);
  WriteSegment("d", identity);
  EXPECT_EQ(Probe({"c", "d"}).found, LogFound::kLog);
  EXPECT_EQ(Probe({"c", "fresh"}).found, LogFound::kLog);  // no segment there yet
  EXPECT_EQ(Probe({"d", "c"}).found, LogFound::kOthers);
  EXPECT_EQ(Probe({"c"}).found, LogFound::kOtherFiles);
  std::ofstream(folder_.path("theirs")) << "theirs";
  probe = Probe({"c", "theirs"});
  EXPECT_EQ(probe.found, LogFound::kOthers);
  EXPECT_THAT(probe.why.message(), HasSubstr("theirs holds other data"));
}

}  // namespace
}  // namespace terrace
