// Long payloads are written from the caller's memory, which somebody else may change or take away.

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <vector>

#include "storage/mem/guarded_copy.h"
#include "tests/storage/io/io_testing.h"
#include "tests/storage/tier/file_log.h"
#include "tests/storage/tier/log_machine.h"

namespace terrace {
namespace {

constexpr uint32_t kDirect = 16 * kKiB;

SegmentLogOptions DirectOptions() {
  SegmentLogOptions options = TestOptions();
  options.write.direct_bytes_min = kDirect;
  return options;
}

// A chunk and its payload in whole pages of memory.
struct Source {
  explicit Source(uint32_t number, uint32_t payload_bytes)
      : chunk(ChunkOf(number, payload_bytes)),
        memory((payload_bytes + kPageBytes - 1) / kPageBytes * kPageBytes) {
    std::memcpy(memory.data(), chunk.payload.data(), payload_bytes);
  }
  LogAppend append(bool verify = true) const {
    return {.header = &chunk.header,
            .stored = {memory.data(), chunk.payload.size()},
            .urgent = true,
            .verify = verify};
  }

  TestChunk chunk;
  AlignedBytes memory;
};

class LogDirect : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(InstallGuard().ok());
    Boot();
  }
  void Boot() {
    machine_.reset();
    machine_ = std::make_unique<LogMachine>(medium_, clock_, DirectOptions());
    ASSERT_TRUE(machine_->Start().ok());
  }
  SegmentLog& log() { return machine_->log(); }
  uint64_t writes() { return machine_->device().stats().of(IoKind::kWrite).requests; }

  Status Put(const Source& source, bool verify = true) {
    std::optional<Status> ended;
    const Status begun = log().Append(source.append(verify), Note(source, &ended), machine_->now());
    if (!begun.ok()) return begun;
    machine_->RunUntil([&] { return ended.has_value(); });
    return *ended;
  }
  LogAppendDone Note(const Source& source, std::optional<Status>* ended) {
    return [this, &source, ended](const LogPlace& place, const Status& status) {
      if (status.ok()) machine_->places[NumberOf(source.chunk.identity.key)] = place;
      *ended = status;
    };
  }

  SimClock clock_;
  SimMedium medium_{TestDiskBytes(8), 1};
  std::unique_ptr<LogMachine> machine_;
};

TEST_F(LogDirect, EachLengthComesBackNowAndInTheNextLife) {
  const uint32_t lengths[] = {
      kDirect - 1, kDirect,   kDirect + 1, kDirect + kPageBytes, shm::kLeafBytes + 5,
      300'000,     1'000'000, 100,         3 * shm::kLeafBytes,  4 * kDirect - 1};
  std::vector<std::unique_ptr<Source>> sources;
  for (const uint32_t length : lengths) {
    sources.push_back(std::make_unique<Source>(static_cast<uint32_t>(sources.size()), length));
    ASSERT_TRUE(Put(*sources.back(), sources.size() % 2 == 0).ok()) << length;
  }
  for (const auto& source : sources) EXPECT_TRUE(machine_->Get(source->chunk).ok());
  Boot();
  EXPECT_EQ(machine_->recovered.size(), sources.size());
  for (const RecoveredRecord& record : machine_->recovered) {
    EXPECT_TRUE(machine_->Get(sources[NumberOf(record.identity.key)]->chunk, record.place).ok());
  }
}

TEST_F(LogDirect, NoByteOfTheirWholePagesIsCopied) {
  // Its bytes go to the device when that takes them, not before.
  const Source source(1, 100 * kPageBytes);
  std::optional<Status> ended;
  ASSERT_TRUE(log().Append(source.append(false), Note(source, &ended), machine_->now()).ok());
  log().Poll(machine_->now());
  std::memset(source.memory.data(), 0, source.memory.size());
  machine_->RunUntil([&] { return ended.has_value(); });
  EXPECT_TRUE(ended->ok());
  EXPECT_EQ(machine_->Get(source.chunk).code(), StatusCode::kCorrupt);
}

TEST_F(LogDirect, ChangedPayloadEndsCorruptAndCostsNothingElse) {
  const Source before(1, 200'000), after(3, 200'000);
  Source changed(2, 200'000);
  for (const uint32_t at : {0u, 100'000u, 199'999u}) {
    changed.memory.data()[at] ^= 1;
    EXPECT_EQ(Put(changed).code(), StatusCode::kCorrupt) << at;
    changed.memory.data()[at] ^= 1;
  }
  EXPECT_TRUE(Put(before).ok());
  EXPECT_TRUE(Put(after).ok());
  EXPECT_TRUE(machine_->Get(before.chunk).ok());
  EXPECT_TRUE(machine_->Get(after.chunk).ok());
  EXPECT_EQ(log().stats().writes.unreadable_sources, 3u);
  EXPECT_EQ(log().stats().writes.failed_segments, 0u);
  EXPECT_FALSE(log().stats().writes.breaker_open);
  Boot();
  EXPECT_EQ(machine_->recovered.size(), 2u);
}

TEST_F(LogDirect, FailedWriteOfGoodBytesIsTheDevices) {
  const Source source(1, 200'000);
  machine_->device().faults().write_error = 1000;
  EXPECT_EQ(Put(source).code(), StatusCode::kIoError);
  EXPECT_TRUE(log().stats().writes.breaker_open);
  machine_->device().faults().write_error = 0;
  clock_.Advance(60 * kNsPerSecond);
  EXPECT_TRUE(Put(source).ok());
  EXPECT_TRUE(machine_->Get(source.chunk).ok());
}

// Its memory is the writer's until the device has let go of it, whatever became of the segment.
TEST_F(LogDirect, NoneEndsWhileTheDeviceReadsIt) {
  std::vector<std::unique_ptr<Source>> sources;
  std::vector<bool> ended(6, false);
  for (uint32_t number = 0; number < ended.size(); ++number) {
    sources.push_back(std::make_unique<Source>(number, 300'000));
    const auto done = [&, number](const LogPlace&, const Status& status) {
      EXPECT_FALSE(status.ok());
      ended[number] = true;
      sources[number].reset();  // a write that still reads it is a use after free
    };
    ASSERT_TRUE(log().Append(sources[number]->append(), done, machine_->now()).ok());
  }
  SimFaults& faults = machine_->device().faults();
  faults.write_error = 300;
  faults.latency_ns_max = 50 * faults.latency_ns_min;
  faults.sync_error = 1000;
  machine_->RunUntilIdle();
  for (const bool each : ended) EXPECT_TRUE(each);
}

TEST_F(LogDirect, SegmentsSealBehindThem) {
  // Seven of 290,000 bytes fill a segment of 2 MiB.
  std::vector<std::unique_ptr<Source>> sources;
  std::vector<std::optional<Status>> ended(20);
  for (uint32_t number = 0; number < ended.size(); ++number) {
    sources.push_back(std::make_unique<Source>(number, 290'000));
    ASSERT_TRUE(log()
                    .Append(sources[number]->append(), Note(*sources[number], &ended[number]),
                            clock_.NowNs())
                    .ok());
  }
  machine_->RunUntilIdle();
  for (const auto& each : ended) EXPECT_TRUE(each.has_value() && each->ok());
  EXPECT_EQ(log().stats().writes.sealed, 2u);
  for (const auto& source : sources) EXPECT_TRUE(machine_->Get(source->chunk).ok());
}

class LogDirectFile : public testing::TestWithParam<DeviceMode> {};

INSTANTIATE_TEST_SUITE_P(Modes, LogDirectFile,
                         testing::Values(DeviceMode::kUringFixed, DeviceMode::kUringPlain,
                                         DeviceMode::kThreads));

// A client has taken the memory away: the write fails, and only that record is lost.
TEST_P(LogDirectFile, HoleCostsItsRecordOnly) {
  ASSERT_TRUE(InstallGuard().ok());
  TestFolder folder;
  FileLog life(folder.path("log"), TestDiskBytes(8), GetParam(), DirectOptions());
  ASSERT_TRUE(life.Start().ok());
  const Source before(1, 300'000), after(2, 300'000);
  const TestChunk holed = ChunkOf(3, 300'000);
  const uint64_t bytes = 75 * kPageBytes;
  UniqueFd file(memfd_create("holed", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(file.get(), static_cast<off_t>(bytes)), 0);
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  ASSERT_NE(memory, MAP_FAILED);
  std::memcpy(memory, holed.payload.data(), holed.payload.size());
  // Past its end nothing can be read any more.
  ASSERT_EQ(ftruncate(file.get(), static_cast<off_t>(20 * kPageBytes)), 0);

  const auto put = [&](const LogAppend& append, LogPlace* at) {
    std::optional<Status> ended;
    const auto done = [&](const LogPlace& place, const Status& status) {
      *at = place;
      ended = status;
    };
    EXPECT_TRUE(life.log().Append(append, done, life.now()).ok());
    life.RunUntil([&] { return ended.has_value(); });
    return ended->code();
  };
  LogPlace first, hole, last;
  EXPECT_EQ(put(before.append(), &first), StatusCode::kOk);
  const LogAppend append{.header = &holed.header,
                         .stored = {static_cast<const uint8_t*>(memory), holed.payload.size()},
                         .urgent = true,
                         .verify = true};
  EXPECT_EQ(put(append, &hole), StatusCode::kCorrupt);
  EXPECT_EQ(put(after.append(), &last), StatusCode::kOk);
  EXPECT_TRUE(life.Get(before.chunk, first).ok());
  EXPECT_TRUE(life.Get(after.chunk, last).ok());
  EXPECT_EQ(life.log().stats().writes.failed_segments, 0u);
  EXPECT_EQ(life.log().stats().segments.quarantined, 0u);
  EXPECT_FALSE(life.log().stats().writes.breaker_open);
  munmap(memory, bytes);
}

}  // namespace
}  // namespace terrace
