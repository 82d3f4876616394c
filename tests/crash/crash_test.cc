// kill -9 at every write and sync of a store on a real file: reopened, the file holds every chunk
// that was acknowledged as durable, under its bytes, and nothing under wrong ones.
//
//   TERRACE_CRASH_ROUNDS=N   so many random rounds instead of the suite's
//   TERRACE_CRASH_FROM=K     from this one on
//
// A round that fails prints the command that runs it alone.  Files lie in $TMPDIR.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "storage/base/log.h"
#include "tests/crash/crash_child.h"
#include "tests/crash/crash_notes.h"
#include "tests/crash/file_store.h"
#include "tests/storage/io/io_testing.h"

namespace terrace {
namespace {

// 15 s together; sanitizers look at the same code ten times as slowly.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kRounds = 10, kStride = 12;
#else
constexpr uint64_t kRounds = 20, kStride = 1;
#endif

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const given = std::getenv(name);
  return given == nullptr ? otherwise : std::strtoull(given, nullptr, 10);
}

class Crash : public testing::Test {
 protected:
  void SetUp() override { SetLogLevel(LogLevel::kOff); }

  // Runs a child to its death, or its end; what it said goes into the oracle.
  void RunChild(const CrashRound& round, CrashOracle* oracle) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    std::fflush(nullptr);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      close(ends[0]);
      RunCrashChild(round, ends[1]);
    }
    close(ends[1]);
    CrashWord word;
    while (read(ends[0], &word, sizeof word) == sizeof word) oracle->Hear(word);
    close(ends[0]);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    EXPECT_TRUE(killed || (oracle->ended && WIFEXITED(status) && WEXITSTATUS(status) == 0))
        << "the child ended with status " << status;
    EXPECT_EQ(oracle->wrong, 0u) << "wrong bytes in the child, or durable chunks lost by it";
  }

  // What the file holds as the child left it.
  void ExpectHeld(const std::string& path, const CrashOracle& oracle) {
    FileStore::Options options{.path = path, .life = 1000};
    options.wrap = [](std::unique_ptr<BlockDevice> inner) {
      return std::make_unique<ReadOnlyDevice>(std::move(inner));
    };
    FileStore files(options);
    const Status started = files.Start();
    if (!started.ok()) {  // killed while it made the log
      EXPECT_FALSE(oracle.ready) << started.ToString();
      return;
    }
    EXPECT_GE(files.epoch, oracle.epoch_stored) << "a stored epoch is forgotten";
    EXPECT_LE(files.epoch, oracle.epoch_begun);
    for (const auto& [key, must] : oracle.durable) {
      if (must.epoch != files.epoch) continue;
      EXPECT_TRUE(files.Durable(key)) << "durable and lost: key " << key;
      ++durable_;
    }
    for (uint64_t key = 0; key < kCrashKeys; ++key) {
      const bool must = oracle.durable.contains(key) && oracle.durable.at(key).epoch == files.epoch;
      uint64_t version = 0;
      const StatusCode got = files.Get(key, &version);
      if (got == StatusCode::kOk) {
        EXPECT_TRUE(oracle.May(files.epoch, key, version)) << "wrong bytes of key " << key;
        ++found_;
      } else {
        EXPECT_FALSE(must) << "durable and not read: key " << key << ": " << StatusCodeName(got);
      }
    }
  }

  // The next life serves, and writes.
  void ExpectServes(const std::string& path, const CrashOracle& oracle) {
    FileStore files({.path = path, .life = 1001, .wrap = nullptr});
    const Status started = files.Start();
    ASSERT_TRUE(started.ok()) << started.ToString();
    const uint64_t version = uint64_t{1001} << 32;
    ASSERT_EQ(files.Put(kCrashKeys, version), StatusCode::kOk);
    EXPECT_EQ(files.Persist(kCrashKeys), StatusCode::kOk);
    for (uint64_t key = 0; key < kCrashKeys; key += 7) {
      uint64_t found = 0;
      if (files.Get(key, &found) != StatusCode::kOk) continue;
      EXPECT_TRUE(oracle.May(files.epoch, key, found)) << "wrong bytes of key " << key;
    }
  }

  TestFolder folder_;
  uint64_t found_ = 0, durable_ = 0;
};

KillPoint PointOf(uint64_t number) {
  return {.number = number, .moment = static_cast<KillMoment>(number % 3)};
}

TEST_F(Crash, EveryWriteAndSyncOfAWorkload) {
  uint64_t killed = 0;
  for (uint64_t number = 1;; number += kStride) {
    SCOPED_TRACE("killed at " + std::to_string(number));
    CrashRound round{.path = folder_.path("log")};
    std::filesystem::remove(round.path);
    round.point = PointOf(number);
    round.mode = number / 3 % 2 == 0 ? DeviceMode::kThreads : DeviceMode::kUringFixed;
    CrashOracle oracle;
    RunChild(round, &oracle);
    if (HasFailure()) return;
    ExpectHeld(round.path, oracle);
    if (number % 4 == 0) ExpectServes(round.path, oracle);
    if (HasFailure()) return;
    if (oracle.ended) break;
    ++killed;
  }
  std::printf("killed at %lu writes and syncs: %lu chunks found, of these %lu durable\n", killed,
              found_, durable_);
  EXPECT_GT(killed, 60u / kStride);
  EXPECT_GT(durable_, 4 * killed);
}

// Up to three lives on one file, each with a workload and a death of its own.
TEST_F(Crash, RandomWritesOfRandomWorkloads) {
  const uint64_t from = FromEnvironment("TERRACE_CRASH_FROM", 1);
  const uint64_t count = FromEnvironment("TERRACE_CRASH_ROUNDS", kRounds);
  uint64_t lives = 0, reclaimed = 0;
  for (uint64_t seed = from; seed < from + count; ++seed) {
    std::mt19937_64 random(seed);
    CrashRound round{.path = folder_.path("log"), .seed = seed, .encode = seed % 2 == 0};
    std::filesystem::remove(round.path);
    CrashOracle oracle;
    for (const uint64_t last = 1 + random() % 3; round.life <= last; ++round.life) {
      oracle.ended = false;
      round.operations = 40 + static_cast<uint32_t>(random() % 120);
      round.mode = random() % 2 == 0 ? DeviceMode::kThreads : DeviceMode::kUringFixed;
      round.point = {.number = 1 + random() % (round.operations * 2),
                     .moment = static_cast<KillMoment>(random() % 3)};
      RunChild(round, &oracle);
      if (!HasFailure()) ExpectHeld(round.path, oracle);
      ++lives;
      if (HasFailure()) break;
    }
    if (!HasFailure()) ExpectServes(round.path, oracle);
    ASSERT_FALSE(HasFailure()) << "again: TERRACE_CRASH_FROM=" << seed
                               << " TERRACE_CRASH_ROUNDS=1 build/release/bin/crash_test "
                                  "--gtest_filter=*Random*";
    reclaimed += oracle.told - oracle.durable.size();
  }
  std::printf("%lu rounds of %lu lives: %lu chunks found, of these %lu durable, %lu reclaimed\n",
              count, lives, found_, durable_, reclaimed);
  if (count < 10) return;
  EXPECT_GT(durable_, 5 * lives);
  EXPECT_GT(reclaimed, lives);
}

}  // namespace
}  // namespace terrace
