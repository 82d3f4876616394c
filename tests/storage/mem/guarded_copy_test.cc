#include "storage/mem/guarded_copy.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/memfd.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "storage/base/limits.h"
#include "storage/mem/machine_memory.h"
#include "storage/mem/memory_file.h"

namespace terrace {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#else
constexpr bool kSanitized = false;
#endif

// A file of two pages, mapped whole and then cut to one, as a client could do with a file that is
// not sealed.
class CutFile {
 public:
  CutFile() : fd_(memfd_create("terrace-test", MFD_CLOEXEC)) {
    EXPECT_EQ(ftruncate(fd_.get(), 2 * kPageBytes), 0);
    Result<Mapping> mapped = Mapping::MapReadWrite(fd_.get(), 2 * kPageBytes);
    EXPECT_TRUE(mapped.ok());
    mapping_ = *std::move(mapped);
    std::memset(mapping_.writable_data(), 0x42, 2 * kPageBytes);
    EXPECT_EQ(ftruncate(fd_.get(), kPageBytes), 0);
  }
  const uint8_t* there() const { return mapping_.data(); }
  const uint8_t* gone() const { return mapping_.data() + kPageBytes; }

 private:
  UniqueFd fd_;
  Mapping mapping_;
};

class GuardedCopyTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(InstallGuard().ok()); }
  uint8_t into_[2 * kPageBytes] = {};
};

TEST_F(GuardedCopyTest, ReadableMemoryIsCopiedExactly) {
  std::vector<uint8_t> source(2 * kPageBytes);
  for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<uint8_t>(i * 13 + i / 251);
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{7}, size_t{64}, size_t{4097}}) {
    std::memset(into_, 0xEE, sizeof(into_));
    ASSERT_TRUE(GuardedCopy(into_ + 3, source.data() + 1, bytes).ok());
    EXPECT_EQ(std::memcmp(into_ + 3, source.data() + 1, bytes), 0);
    EXPECT_EQ(into_[2], 0xEE);
    EXPECT_EQ(into_[3 + bytes], 0xEE);
  }
}

TEST_F(GuardedCopyTest, MissingPageIsCorrupt) {
  const CutFile file;
  EXPECT_EQ(GuardedCopy(into_, file.gone(), 64).code(), StatusCode::kCorrupt);
  EXPECT_EQ(GuardedCopy(into_, file.gone() - 1, 2).code(), StatusCode::kCorrupt);
  EXPECT_EQ(GuardedCopy(into_, file.there(), 2 * kPageBytes).code(), StatusCode::kCorrupt);
}

TEST_F(GuardedCopyTest, CopiesGoOnAfterAFault) {
  const CutFile file;
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(GuardedCopy(into_, file.gone(), kPageBytes).ok());
    std::memset(into_, 0, kPageBytes);
    ASSERT_TRUE(GuardedCopy(into_, file.there(), kPageBytes).ok());
    EXPECT_EQ(into_[0], 0x42);
    EXPECT_EQ(into_[kPageBytes - 1], 0x42);
  }
  sigset_t blocked;
  ASSERT_EQ(pthread_sigmask(SIG_SETMASK, nullptr, &blocked), 0);
  EXPECT_EQ(sigismember(&blocked, SIGBUS), 0);
}

TEST_F(GuardedCopyTest, ThreadsFaultIndependently) {
  const CutFile file;
  std::atomic<uint32_t> wrong = 0;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&file, &wrong, t] {
      std::vector<uint8_t> mine(kPageBytes);
      for (uint32_t i = 0; i < 500; ++i) {
        const bool faults = (i + t) % 2 == 0;
        const uint8_t* const from = faults ? file.gone() : file.there();
        if (GuardedCopy(mine.data(), from, kPageBytes).ok() == faults) wrong.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0u);
}

TEST_F(GuardedCopyTest, HolePunchedIntoHugetlbWithoutPagesIsCorrupt) {
  const Result<MachineMemory> machine = ReadMachineMemory();
  ASSERT_TRUE(machine.ok());
  const uint64_t pages = machine->hugetlb_free_bytes / kHugePageBytes;
  if (pages == 0) GTEST_SKIP() << "vm.nr_hugepages reserves no 2 MiB pages";
  const MemoryFileOptions options{.best = PageRung::kHugetlb, .root = ""};
  Result<MemoryFile> victim = MemoryFile::Create("victim", kHugePageBytes, options);
  ASSERT_TRUE(victim.ok());
  ASSERT_EQ(victim->rung(), PageRung::kHugetlb);
  victim->mapping().writable_data()[0] = 0x42;
  ASSERT_TRUE(GuardedCopy(into_, victim->mapping().data(), 64).ok());

  // The hole gives the page back, and others take all that there are.
  ASSERT_EQ(fallocate(victim->fd().get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                      static_cast<off_t>(kHugePageBytes)),
            0);
  const Result<MachineMemory> after = ReadMachineMemory();
  ASSERT_TRUE(after.ok());
  Result<MemoryFile> taker = MemoryFile::Create("taker", after->hugetlb_free_bytes, options);
  ASSERT_TRUE(taker.ok());
  ASSERT_EQ(taker->rung(), PageRung::kHugetlb);
  EXPECT_EQ(GuardedCopy(into_, victim->mapping().data(), 64).code(), StatusCode::kCorrupt);
}

// Each of these changes the process' handlers: they run in children of their own.
class GuardDeathTest : public testing::Test {
 protected:
  void SetUp() override { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

void ExitWith42(int) { _exit(42); }
void ExitWith43(int, siginfo_t* info, void*) { _exit(info->si_addr != nullptr ? 43 : 44); }

void ReadGonePage() {
  const CutFile file;
  static_cast<void>(*static_cast<const volatile uint8_t*>(file.gone()));
}

TEST_F(GuardDeathTest, OtherFaultsReachTheEarlierHandler) {
  EXPECT_EXIT(
      {
        signal(SIGBUS, ExitWith42);
        if (!InstallGuard().ok() || !InstallGuard().ok()) _exit(1);
        ReadGonePage();
      },
      testing::ExitedWithCode(42), "");
  EXPECT_EXIT(
      {
        struct sigaction action = {};
        action.sa_sigaction = ExitWith43;
        action.sa_flags = SA_SIGINFO;
        sigaction(SIGBUS, &action, nullptr);
        if (!InstallGuard().ok()) _exit(1);
        ReadGonePage();
      },
      testing::ExitedWithCode(43), "");
}

TEST_F(GuardDeathTest, OtherFaultsEndTheProcessByDefault) {
  const auto fault = [] {
    if (!InstallGuard().ok()) _exit(0);
    ReadGonePage();
    _exit(0);
  };
  if (kSanitized) {
    EXPECT_DEATH(fault(), "");  // the sanitizer's own handler reports and exits
  } else {
    EXPECT_EXIT(fault(), testing::KilledBySignal(SIGBUS), "");
  }
}

TEST_F(GuardDeathTest, SentSignalStillEndsTheProcess) {
  const auto send = [] {
    signal(SIGBUS, SIG_DFL);
    if (!InstallGuard().ok()) _exit(0);
    kill(getpid(), SIGBUS);
    _exit(0);
  };
  EXPECT_EXIT(send(), testing::KilledBySignal(SIGBUS), "");
}

TEST_F(GuardDeathTest, CopyWithoutGuardIsABrokenInvariant) {
  uint8_t into = 0;
  const uint8_t from = 1;
  EXPECT_DEATH(static_cast<void>(GuardedCopy(&into, &from, 1)), "invariant broken");
}

}  // namespace
}  // namespace terrace
