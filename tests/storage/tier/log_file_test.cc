// The log on a real file, through each way that a device moves bytes.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <optional>

#include "storage/io/open_device.h"
#include "storage/tier/segment_log.h"
#include "tests/storage/io/io_testing.h"
#include "tests/storage/tier/file_log.h"

namespace terrace {
namespace {

class LogFile : public testing::TestWithParam<DeviceMode> {};

INSTANTIATE_TEST_SUITE_P(Modes, LogFile,
                         testing::Values(DeviceMode::kUringFixed, DeviceMode::kUringPlain,
                                         DeviceMode::kThreads));

TEST_P(LogFile, RecordsComeBackInTheNextLife) {
  TestFolder folder;
  const std::string path = folder.path("log");
  SegmentLogOptions options = TestOptions();
  options.segment_bytes = 64 * kMiB;
  options.write = LogWriteOptions();
  const uint64_t bytes = SegmentOffset(4, options.segment_bytes);
  std::vector<TestChunk> chunks;
  for (uint32_t number = 0; number < 24; ++number) {
    chunks.push_back(
        ChunkOf(number, number == 5 ? kChunkBytesMax : 1 + number * 333'333 % 3'000'000));
  }
  {
    FileLog life(path, bytes, GetParam(), options);
    ASSERT_TRUE(life.Start().ok());
    size_t done = 0, failed = 0;
    for (const TestChunk& chunk : chunks) {
      const LogAppend append{.header = &chunk.header,
                             .stored = chunk.payload,
                             .reuse_class = NumberOf(chunk.identity.key) % 3};
      ASSERT_TRUE(life.log()
                      .Append(
                          append,
                          [&](const LogPlace&, const Status& status) {
                            ++done;
                            failed += !status.ok();
                          },
                          life.now())
                      .ok());
    }
    life.RunUntil([&] { return done == chunks.size(); });
    EXPECT_EQ(failed, 0u);
    life.log().Seal(0);
    life.RunUntil([&] { return life.log().idle(); });
  }
  FileLog life(path, bytes, GetParam(), options);
  ASSERT_TRUE(life.Start().ok());
  EXPECT_EQ(life.log().stats().recovery.from_footers, 1u);
  EXPECT_EQ(life.log().stats().recovery.walked, 2u);
  ASSERT_EQ(life.recovered.size(), chunks.size());
  for (const RecoveredRecord& record : life.recovered) {
    EXPECT_TRUE(life.Get(chunks[NumberOf(record.identity.key)], record.place).ok());
  }
}

TEST(LogFileSet, AnotherSetsFileIsRefused) {
  TestFolder folder;
  const std::string path = folder.path("log");
  const uint64_t bytes = TestDiskBytes(2);
  {
    FileLog life(path, bytes, DeviceMode::kThreads);
    ASSERT_TRUE(life.Start().ok());
  }
  SegmentLogOptions options = TestOptions();
  options.set_id[3] = 77;
  FileLog life(path, bytes, DeviceMode::kThreads, options);
  EXPECT_EQ(life.Start().code(), StatusCode::kDenied);
}

// A million records in footers of 4,096 segments, as a log of 1 TiB in 256 MiB segments has them;
// here in small segments, so that the file is 8 GiB, of which only heads and tails are written.
//     log_file_test --gtest_also_run_disabled_tests --gtest_filter=*MillionRecords*
TEST(LogFileSpeed, DISABLED_MillionRecordsAreRecoveredFromFooters) {
  constexpr uint32_t kSegments = 4096, kEach = 250;
  TestFolder folder;
  const std::string path = folder.path("log");
  const uint64_t bytes = TestDiskBytes(kSegments + 1);  // the file system takes a little
  LogIdentity identity;
  {
    FileLog life(path, bytes, DeviceMode::kUringFixed);
    ASSERT_TRUE(life.Start().ok());
    identity = life.log().stats().identity;
    ASSERT_GE(identity.segment_count, kSegments);
  }
  {
    UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
    std::vector<FooterEntry> entries(FooterBytes(kEach) / sizeof(FooterEntry));
    for (uint32_t segment = 0; segment < kSegments; ++segment) {
      const uint64_t at = SegmentOffset(segment, kTestSegmentBytes);
      SegmentHead head;
      BuildSegmentHead(identity, segment, identity.log_id + segment, &head);
      ASSERT_EQ(pwrite(file.get(), &head, sizeof(head), static_cast<off_t>(at)), 4096);
      for (uint32_t i = 0; i < kEach; ++i) {
        FooterEntry& entry = entries[i];
        const uint32_t number = segment * kEach + i;
        std::memcpy(entry.key, &number, sizeof(number));
        entry.key_length = 32;
        entry.offset_units = 1 + 2 * i;
        entry.payload_bytes = entry.stored_bytes = 4096;
        entry.namespace_id = 1;
        entry.header_checksum = number;
      }
      SegmentTrailer trailer;
      BuildTrailer(identity, segment, identity.log_id + segment, kEach, 1 + 2 * kEach,
                   HashBytes(entries.data(), FooterBytes(kEach)), &trailer);
      const uint64_t tail = at + kTestSegmentBytes - TailBytes(kEach);
      ASSERT_EQ(pwrite(file.get(), entries.data(), FooterBytes(kEach), static_cast<off_t>(tail)),
                static_cast<ssize_t>(FooterBytes(kEach)));
      ASSERT_EQ(pwrite(file.get(), &trailer, sizeof(trailer),
                       static_cast<off_t>(tail + FooterBytes(kEach))),
                4096);
    }
    ASSERT_EQ(fsync(file.get()), 0);
    ASSERT_EQ(posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  }
  std::vector<double> seconds;
  for (int round = 0; round < 5; ++round) {
    FileLog life(path, bytes, DeviceMode::kUringFixed);
    life.recovered.reserve(kSegments * kEach);
    const int64_t begun = MonotonicNs();
    ASSERT_TRUE(life.Start().ok());
    seconds.push_back(static_cast<double>(MonotonicNs() - begun) / 1e9);
    EXPECT_EQ(life.recovered.size(), size_t{kSegments} * kEach);
    std::printf("%zu records of %u segments in %.3f s (%s)\n", life.recovered.size(), kSegments,
                seconds.back(), life.device().Describe().c_str());
  }
  std::sort(seconds.begin(), seconds.end());
  EXPECT_LE(seconds[2], 1.0);
}

}  // namespace
}  // namespace terrace
