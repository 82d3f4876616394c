// A start on a log of many chunks reads footers, and none of what they list.  Synthetic footers on
// a real file; TERRACE_RECOVER_CHUNKS says how many chunks (default 100,000), and what it took is
// printed.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/engine/nvme_tier.h"
#include "storage/io/open_device.h"
#include "storage/mem/guarded_copy.h"
#include "storage/tier/log_format.h"
#include "tests/storage/engine/store_harness.h"
#include "tests/storage/io/io_testing.h"

namespace terrace {
namespace {

constexpr uint64_t kLogSegmentBytes = 64 * kMiB;
constexpr uint32_t kPayloadBytes = 1000;
constexpr int64_t kStartNs = 60 * kNsPerSecond;

uint64_t ChunksWanted() {
  const char* const wanted = std::getenv("TERRACE_RECOVER_CHUNKS");
  return wanted == nullptr ? 100'000 : std::strtoull(wanted, nullptr, 10);
}

uint32_t RecordsInSegment() {
  const auto room = static_cast<uint32_t>((kLogSegmentBytes - sizeof(SegmentHead)) /
                                          (shm::RecordBytes(kPayloadBytes) + sizeof(FooterEntry)));
  return room - 64;  // the tail is padded
}

void WriteAt(int file, uint64_t offset, std::span<const uint8_t> bytes) {
  ASSERT_EQ(pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset)),
            static_cast<ssize_t>(bytes.size()));
}

class ChunkStoreRecover : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(InstallGuard().ok()); }
  ~ChunkStoreRecover() override { ShutDown(); }

  void Boot(uint32_t log_segments, uint64_t index_slots, int64_t* took_ns) {
    OpenOptions open;
    open.files.paths = {folder_.path("log")};
    open.files.capacity_bytes = SegmentOffset(log_segments, kLogSegmentBytes);
    open.files.stripe_bytes = kLogSegmentBytes;
    Result<OpenedDevice> opened = OpenDevice(open, clock_);
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    device_ = std::move(opened->device);
    ChunkStoreOptions options = SmallStore(4);
    options.index_slots = index_slots;
    options.nvme.device = device_.get();
    options.nvme.segment_bytes = kLogSegmentBytes;
    options.nvme.new_log_id = 1000;
    options.nvme.sequence_floor = ++boots_ * 1'000'000;
    Result<std::unique_ptr<ChunkStore>> made = ChunkStore::Create(options);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    store_ = *std::move(made);
    const int64_t began_ns = MonotonicNs();
    while (!store_->NvmeStarted() && MonotonicNs() < began_ns + kStartNs) Step();
    *took_ns = MonotonicNs() - began_ns;
    ASSERT_TRUE(store_->NvmeStarted() && store_->nvme_why_off().ok())
        << store_->nvme_why_off().ToString();
  }
  void Step() {
    pollfd event{.fd = device_->event_fd(), .events = POLLIN, .revents = 0};
    const int64_t wake_ns = store_->NvmeWake();
    if (wake_ns == 0 || wake_ns > MonotonicNs()) poll(&event, 1, 10);
    store_->PollNvme(MonotonicNs());
  }
  void ShutDown() {
    store_.reset();
    if (device_ != nullptr) device_->Drain();
    device_.reset();
  }

  // Footers of `chunks` records that were never written.
  void WriteFooters(uint64_t chunks, uint32_t namespace_id) {
    const UniqueFd file(open(folder_.path("log").c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(file.valid());
    LogSuperblock block;
    ASSERT_EQ(pread(file.get(), &block, sizeof block, 0), static_cast<ssize_t>(sizeof block));
    const Result<LogIdentity> identity = ReadSuperblock(block);
    ASSERT_TRUE(identity.ok()) << identity.status().ToString();
    const std::vector<uint64_t> leaves(shm::LeafCount(kPayloadBytes), 1);
    shm::RecordHeader header;
    uint64_t number = 0;
    for (uint32_t segment = 0; number < chunks; ++segment) {
      const uint64_t sequence = identity->log_id + 10 + segment;
      uint64_t at = sizeof(SegmentHead);
      std::vector<FooterEntry> entries;
      for (; entries.size() < RecordsInSegment() && number < chunks; ++number) {
        const LogPlace place{.sequence = sequence,
                             .segment = segment,
                             .offset_units = static_cast<uint32_t>(at / kLogBlockBytes)};
        BuildHeader(
            {.key = KeyOf(number), .namespace_id = namespace_id, .payload_bytes = kPayloadBytes},
            leaves.data(), &header);
        PlaceHeader(place, number + 1, &header);
        entries.push_back(EntryOf(header, place.offset_units));
        at += shm::RecordBytes(kPayloadBytes);
      }
      SegmentHead head;
      BuildSegmentHead(*identity, segment, sequence, &head);
      std::vector<uint8_t> tail(TailBytes(entries.size()));
      BuildTail(*identity, segment, sequence, entries, at, tail);
      const uint64_t from = SegmentOffset(segment, kLogSegmentBytes);
      WriteAt(file.get(), from, {reinterpret_cast<const uint8_t*>(&head), sizeof head});
      WriteAt(file.get(), from + kLogSegmentBytes - tail.size(), tail);
    }
    ASSERT_EQ(fsync(file.get()), 0);
  }

  TestFolder folder_;
  SystemClock clock_;
  std::unique_ptr<BlockDevice> device_;
  std::unique_ptr<ChunkStore> store_;
  uint64_t boots_ = 0;
};

TEST_F(ChunkStoreRecover, AllThatFootersListIsFound) {
  const uint64_t chunks = ChunksWanted();
  const auto segments = static_cast<uint32_t>(chunks / RecordsInSegment() + 1 + kNvmeSegmentsMin);
  uint64_t slots = 1 << 16;
  while (slots < chunks / 2 * 3) slots *= 2;
  int64_t took_ns = 0;
  ASSERT_NO_FATAL_FAILURE(Boot(segments, slots, &took_ns));
  NamespaceSpec spec;
  spec.label = "ns";
  const Result<NamespaceInfo> info = store_->RegisterNamespace(spec);
  ASSERT_TRUE(info.ok());
  const int64_t until_ns = MonotonicNs() + kStartNs;
  while (!store_->DrainNvme(MonotonicNs()) && MonotonicNs() < until_ns) Step();
  ASSERT_NO_FATAL_FAILURE(ShutDown());
  ASSERT_NO_FATAL_FAILURE(WriteFooters(chunks, info->ref.id));

  ASSERT_NO_FATAL_FAILURE(Boot(segments, slots, &took_ns));
  std::printf("%lu chunks recovered from footers in %.0f ms\n", chunks,
              static_cast<double>(took_ns) / kNsPerMs);
  const NvmeStats nvme = store_->stats().nvme;
  EXPECT_EQ(nvme.recovered, chunks);
  EXPECT_EQ(nvme.refused, 0u);
  for (uint64_t number = 0; number < chunks; number += 1 + chunks / 1000) {
    const Sought found = store_->FindOrLoad(1, info->ref.id, KeyOf(number), nullptr,
                                            {.deadline_ns = MonotonicNs() - 1}, MonotonicNs());
    EXPECT_EQ(found.status, StatusCode::kBusy) << number;  // there, and too late to be read
  }
}

}  // namespace
}  // namespace terrace
