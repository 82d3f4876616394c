// Loses power at every step of a workload, and checks what the next life finds against what was
// acknowledged.

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>
#include <set>

#include "tests/storage/tier/log_machine.h"

namespace terrace {
namespace {

// What a life was told, and what it must find again.
struct Oracle {
  std::set<uint32_t> durable;   // acknowledged, their segment not given to reclaim
  std::set<uint32_t> appended;  // may be found as well
  std::string namespaces;       // acknowledged
  std::string namespaces_next;  // begun
};

TestChunk Chunk(uint32_t number) { return ChunkOf(number, 1 + number * 7919 % 150'000); }

void Append(LogMachine& machine, Oracle& oracle, const TestChunk& chunk, uint32_t reuse_class) {
  const uint32_t number = NumberOf(chunk.identity.key);
  const Status begun =
      machine.Append(chunk, reuse_class, [&oracle, number](const LogPlace&, const Status& status) {
        if (status.ok()) oracle.durable.insert(number);
      });
  if (begun.ok()) oracle.appended.insert(number);
}

void Replace(LogMachine& machine, Oracle& oracle, const std::string& blob) {
  if (machine.stopped()) return;
  oracle.namespaces_next = blob;
  if (machine.ReplaceNamespaces({blob}).ok()) oracle.namespaces = blob;
}

void Reclaim(LogMachine& machine, Oracle& oracle, uint32_t segment) {
  if (!machine.log().BeginReclaim(segment).ok()) return;
  for (const auto& [number, place] : machine.places) {
    if (place.segment == segment) oracle.durable.erase(number);
  }
  machine.RunUntil([&] { return machine.log().segments()->at(segment).reads == 0; });
  ASSERT_TRUE(machine.log().Free(segment).ok());
}

// Namespaces, two classes, partial writes, a seal, a reclaim and a reuse.
void Workload(LogMachine& machine, Oracle& oracle) {
  if (!machine.Start().ok()) return;
  Replace(machine, oracle, std::string(6000, 'a'));
  std::vector<TestChunk> chunks;
  for (uint32_t number = 0; number < 24; ++number) chunks.push_back(Chunk(number));
  const auto append = [&](uint32_t from, uint32_t to) {
    for (uint32_t number = from; number < to; ++number) {
      Append(machine, oracle, chunks[number], number % 2);
    }
    machine.RunUntilIdle();
  };
  append(0, 4);
  append(4, 10);
  Replace(machine, oracle, std::string(9000, 'b'));
  machine.log().Seal(0);
  append(10, 14);
  if (machine.stopped()) return;
  Reclaim(machine, oracle, machine.places.at(0).segment);
  machine.log().Seal(1);
  append(14, 19);
  machine.log().Seal(0);
  append(19, 24);
}

// What the next life finds: all that is durable, nothing that never was, and of everything the
// right bytes (Get insists).
void ExpectFound(LogMachine& machine, const Oracle& oracle) {
  ASSERT_TRUE(machine.Start().ok());
  const std::vector<std::string>& namespaces = machine.log().namespaces();
  const std::string found = namespaces.empty() ? "" : namespaces[0];
  EXPECT_TRUE(found == oracle.namespaces || found == oracle.namespaces_next) << found.substr(0, 1);
  std::set<uint32_t> numbers;
  for (const RecoveredRecord& record : machine.recovered) {
    const uint32_t number = NumberOf(record.identity.key);
    EXPECT_TRUE(oracle.appended.contains(number)) << number;
    EXPECT_TRUE(numbers.insert(number).second || !oracle.durable.contains(number)) << number;
    const Status got = machine.Get(Chunk(number), record.place);
    EXPECT_TRUE(got.ok()) << number << ": " << got.ToString();
  }
  for (const uint32_t number : oracle.durable) {
    EXPECT_TRUE(numbers.contains(number)) << number << " was acknowledged and is lost";
  }
}

void CrashEverywhere(const SimFaults& faults, uint64_t seed) {
  uint64_t crashes = 0;
  for (uint64_t steps = 1;; ++steps) {
    SCOPED_TRACE("steps " + std::to_string(steps) + ", seed " + std::to_string(seed));
    SimMedium medium(TestDiskBytes(5), seed * 1'000'003 + steps);
    SimClock clock;
    Oracle oracle;
    bool whole = false;
    {
      LogMachine machine(medium, clock, TestOptions(), faults);
      machine.StopAt(steps);
      Workload(machine, oracle);
      whole = !machine.stopped();
      machine.LosePower();
    }
    LogMachine next(medium, clock);
    ExpectFound(next, oracle);
    ++crashes;
    if (testing::Test::HasFailure()) return;
    if (!whole) continue;
    EXPECT_GT(oracle.durable.size(), 15u);  // the workload did happen
    break;
  }
  EXPECT_GT(crashes, 80u);
}

TEST(LogCrash, AcknowledgedSurvivesWhenUnsyncedWritesAreLost) {
  CrashEverywhere({.lost = 1000, .torn = 0}, 1);
}

TEST(LogCrash, AcknowledgedSurvivesWhenUnsyncedWritesAreTorn) {
  CrashEverywhere({.lost = 0, .torn = 1000}, 2);
}

TEST(LogCrash, AcknowledgedSurvivesWhenSomeUnsyncedWritesAreLostAndSomeTorn) {
  for (uint64_t seed = 3; seed < 6; ++seed) CrashEverywhere({.lost = 400, .torn = 300}, seed);
}

// Many lives on one disk, each ended at a random step, segments reclaimed on the way.
TEST(LogCrash, AcknowledgedSurvivesManyLives) {
  const uint64_t seed = 20;
  std::mt19937_64 random(seed);
  SimMedium medium(TestDiskBytes(5), seed);
  SimClock clock;
  Oracle oracle;
  uint32_t next = 0;
  for (uint32_t life = 0; life < 200; ++life) {
    SCOPED_TRACE("life " + std::to_string(life) + ", seed " + std::to_string(seed));
    LogMachine machine(medium, clock, TestOptions(), {.lost = 400, .torn = 300});
    ExpectFound(machine, oracle);
    if (HasFailure()) return;
    // What was not acknowledged and is there all the same was synced by this recovery.
    for (const RecoveredRecord& record : machine.recovered) {
      oracle.durable.insert(NumberOf(record.identity.key));
    }
    oracle.namespaces = oracle.namespaces_next =
        machine.log().namespaces().empty() ? "" : machine.log().namespaces()[0];
    machine.StopAt(machine.steps() + random() % 300);
    std::vector<TestChunk> chunks;
    for (uint32_t i = 0; i < 20; ++i) chunks.push_back(Chunk(next++));
    for (const TestChunk& chunk : chunks) {
      Append(machine, oracle, chunk, static_cast<uint32_t>(random() % 3));
      if (random() % 3 == 0) machine.RunUntilIdle();
      if (random() % 8 == 0) machine.log().Seal(static_cast<uint32_t>(random() % 3));
      if (random() % 8 == 0) Replace(machine, oracle, std::to_string(random()));
      if (machine.log().segments()->free_count() < 2 && !machine.stopped()) {
        const uint32_t victim = static_cast<uint32_t>(random() % 5);
        if (machine.log().segments()->at(victim).reads == 0) Reclaim(machine, oracle, victim);
      }
    }
    machine.RunUntilIdle();
    machine.LosePower();
  }
  EXPECT_GT(next, 1000u);
}

}  // namespace
}  // namespace terrace
