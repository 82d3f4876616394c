#include "storage/mem/populator.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <future>
#include <thread>
#include <vector>

#include "storage/mem/memory_file.h"

namespace terrace {
namespace {

MemoryFile Made(uint64_t bytes) {
  Result<MemoryFile> made =
      MemoryFile::Create("terrace-test", bytes, {.best = PageRung::kSmall, .root = ""});
  EXPECT_TRUE(made.ok());
  return *std::move(made);
}

uint64_t ResidentPages(const MemoryFile& file) {
  std::vector<unsigned char> resident(file.bytes() / kPageBytes);
  EXPECT_EQ(mincore(file.mapping().writable_data(), file.bytes(), resident.data()), 0);
  const auto present = [](unsigned char page) { return (page & 1) != 0; };
  return static_cast<uint64_t>(std::count_if(resident.begin(), resident.end(), present));
}

// A job that holds the populator's thread in `done` until it is let go.
class Holdup {
 public:
  explicit Holdup(Populator& populator) : populator_(populator), file_(Made(kPageBytes)) {
    Populator::Job job;
    job.id = kId;
    job.data = file_.mapping().writable_data();
    job.bytes = file_.bytes();
    job.done = [this](const Status&) {
      entered_.set_value();
      released_.get_future().wait();
    };
    EXPECT_TRUE(populator.Enqueue(std::move(job)).ok());
    entered_.get_future().wait();
  }
  ~Holdup() { populator_.Cancel(kId); }
  void Release() { released_.set_value(); }

  static constexpr uint64_t kId = 1'000'000;

 private:
  Populator& populator_;
  MemoryFile file_;
  std::promise<void> entered_;
  std::promise<void> released_;
};

TEST(PopulateNow, MakesEveryPagePresentAndChangesNothing) {
  const MemoryFile file = Made(8 * kPageBytes);
  file.mapping().writable_data()[3 * kPageBytes + 1] = 77;
  EXPECT_EQ(ResidentPages(file), 1u);
  ASSERT_TRUE(PopulateNow(file.mapping().writable_data(), file.bytes()).ok());
  EXPECT_EQ(ResidentPages(file), 8u);
  EXPECT_EQ(file.mapping().data()[3 * kPageBytes + 1], 77);
  EXPECT_EQ(file.mapping().data()[0], 0);
}

TEST(PopulateNow, TouchingDoesTheSame) {
  const MemoryFile file = Made(8 * kPageBytes);
  uint8_t* const data = file.mapping().writable_data();
  data[0] = 0xFF;
  data[5 * kPageBytes] = 0x81;
  TouchEveryPage(data, file.bytes());
  EXPECT_EQ(ResidentPages(file), 8u);
  EXPECT_EQ(data[0], 0xFF);
  EXPECT_EQ(data[5 * kPageBytes], 0x81);
  EXPECT_EQ(data[kPageBytes], 0);
}

TEST(PopulateNow, MemoryThatIsNotThereIsNoSpace) {
  const MemoryFile file = Made(2 * kPageBytes);
  uint8_t* const data = file.mapping().writable_data();
  Result<Mapping> second = Mapping::MapReadWrite(file.fd().get(), 2 * kPageBytes);
  ASSERT_TRUE(second.ok());
  uint8_t* const hole = second->writable_data();
  second->Reset();
  EXPECT_EQ(PopulateNow(hole, kPageBytes).code(), StatusCode::kNoSpace);
  EXPECT_TRUE(PopulateNow(data, kPageBytes).ok());
}

TEST(Populator, JobsEndInOrderWithTheirPagesPresent) {
  std::vector<MemoryFile> files;
  for (int i = 0; i < 4; ++i) files.push_back(Made(16 * kPageBytes));
  std::vector<uint64_t> order;
  std::promise<void> last;
  Populator populator;
  for (uint64_t id = 0; id < files.size(); ++id) {
    Populator::Job job;
    job.id = id;
    job.data = files[id].mapping().writable_data();
    job.bytes = files[id].bytes();
    job.done = [&, id](const Status& status) {
      EXPECT_TRUE(status.ok());
      order.push_back(id);
      if (id == 3) last.set_value();
    };
    ASSERT_TRUE(populator.Enqueue(std::move(job)).ok());
  }
  last.get_future().wait();
  EXPECT_EQ(order, (std::vector<uint64_t>{0, 1, 2, 3}));
  for (const MemoryFile& file : files) EXPECT_EQ(ResidentPages(file), 16u);
}

TEST(Populator, CancelledJobTouchesNothingAndIsNotDone) {
  const MemoryFile file = Made(16 * kPageBytes);
  bool called = false;
  Populator populator;
  Holdup holdup(populator);
  Populator::Job job;
  job.id = 2;
  job.data = file.mapping().writable_data();
  job.bytes = file.bytes();
  job.done = [&called](const Status&) { called = true; };
  ASSERT_TRUE(populator.Enqueue(std::move(job)).ok());
  EXPECT_EQ(populator.pending(), 2u);
  EXPECT_TRUE(populator.Cancel(2));
  EXPECT_FALSE(populator.Cancel(2));
  EXPECT_EQ(populator.pending(), 1u);
  holdup.Release();
  EXPECT_FALSE(populator.Cancel(Holdup::kId));  // waits for its `done`, which runs already
  EXPECT_EQ(populator.pending(), 0u);
  EXPECT_FALSE(called);
  EXPECT_EQ(ResidentPages(file), 0u);
}

// Wherever the cancel meets the job, exactly one of the two happens, and the memory can go.
TEST(Populator, CancelRacesWithRunningJobs) {
  Populator populator;
  for (uint64_t id = 0; id < 50; ++id) {
    std::atomic<int> done = 0;
    MemoryFile file = Made(2 * kPopulateSliceBytes / 8);
    Populator::Job job;
    job.id = id;
    job.data = file.mapping().writable_data();
    job.bytes = file.bytes();
    job.done = [&done](const Status&) { done.fetch_add(1); };
    ASSERT_TRUE(populator.Enqueue(std::move(job)).ok());
    if (id % 3 == 1) std::this_thread::yield();
    while (id % 3 == 2 && ResidentPages(file) == 0) std::this_thread::yield();
    const bool cancelled = populator.Cancel(id);
    EXPECT_EQ(done.load(), cancelled ? 0 : 1);
  }
}

// A cancel that comes late meets a finished job: so until one came in time.
TEST(Populator, CancelStopsARunningJobBetweenSlices) {
  constexpr int kAttempts = 20;
  bool stopped = false;
  Populator populator;
  for (int attempt = 0; attempt < kAttempts && !stopped; ++attempt) {
    const MemoryFile file = Made(8 * kPopulateSliceBytes);
    std::atomic<bool> called = false;
    Populator::Job job;
    job.id = 1;
    job.data = file.mapping().writable_data();
    job.bytes = file.bytes();
    job.done = [&called](const Status&) { called = true; };
    ASSERT_TRUE(populator.Enqueue(std::move(job)).ok());
    while (ResidentPages(file) == 0) std::this_thread::yield();
    const bool cancelled = populator.Cancel(1);
    EXPECT_NE(cancelled, called.load());
    const uint64_t resident = ResidentPages(file);
    EXPECT_EQ(resident % (kPopulateSliceBytes / kPageBytes), 0u);
    stopped = cancelled && resident < file.bytes() / kPageBytes;
  }
  EXPECT_TRUE(stopped);
}

TEST(Populator, FullQueueIsBusy) {
  const MemoryFile file = Made(kPageBytes);
  Populator populator;
  Holdup holdup(populator);
  Populator::Job job;
  job.data = file.mapping().writable_data();
  job.bytes = file.bytes();
  for (uint32_t i = 0; i < kPopulateQueueMax; ++i) {
    job.id = i;
    ASSERT_TRUE(populator.Enqueue(job).ok());
  }
  job.id = kPopulateQueueMax;
  EXPECT_EQ(populator.Enqueue(job).code(), StatusCode::kBusy);
  EXPECT_TRUE(populator.Cancel(0));
  EXPECT_TRUE(populator.Enqueue(job).ok());
  holdup.Release();
}

TEST(Populator, DestructionEndsEveryJobOrDropsIt) {
  constexpr size_t kJobs = 32;
  std::vector<MemoryFile> files;
  for (size_t i = 0; i < kJobs; ++i) files.push_back(Made(64 * kPageBytes));
  std::vector<bool> done(kJobs, false);
  {
    Populator populator;
    for (size_t i = 0; i < kJobs; ++i) {
      Populator::Job job;
      job.id = i;
      job.data = files[i].mapping().writable_data();
      job.bytes = files[i].bytes();
      job.done = [&done, i](const Status&) { done[i] = true; };
      ASSERT_TRUE(populator.Enqueue(std::move(job)).ok());
    }
  }
  for (size_t i = 0; i < kJobs; ++i) {
    if (!done[i]) continue;
    EXPECT_EQ(ResidentPages(files[i]), 64u) << i;
    EXPECT_TRUE(i == 0 || done[i - 1]) << i;
  }
}

}  // namespace
}  // namespace terrace
