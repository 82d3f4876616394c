// The whole engine on one thread under one virtual clock, beside a model: seeded operations on a
// store whose disk fails, lies, fills up and loses power (sim_world.h says what is checked).
//
//   TERRACE_SIM_SEEDS=N   so many seeds instead of the suite's
//   TERRACE_SIM_FROM=K    from this one on
//
// A seed that fails prints the command that runs it alone.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "storage/base/log.h"
#include "tests/sim/sim_world.h"

namespace terrace {
namespace {

// 20 s; sanitizers look at the same code ten times as slowly.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kSeeds = 40;
#else
constexpr uint64_t kSeeds = 250;
#endif

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const given = std::getenv(name);
  return given == nullptr ? otherwise : std::strtoull(given, nullptr, 10);
}

void Add(const SimTally& of_seed, SimTally* all) {
  all->puts += of_seed.puts;
  all->hits += of_seed.hits;
  all->misses += of_seed.misses;
  all->loads += of_seed.loads;
  all->persisted += of_seed.persisted;
  all->lives += of_seed.lives;
  all->durable += of_seed.durable;
  all->held += of_seed.held;
  all->leased += of_seed.leased;
  all->off += of_seed.off;
  all->lost += of_seed.lost;
  all->corrupt += of_seed.corrupt;
  all->reclaims += of_seed.reclaims;
  all->moved += of_seed.moved;
  all->injected += of_seed.injected;
  all->encoded += of_seed.encoded;
  all->ungainful += of_seed.ungainful;
  all->decoded += of_seed.decoded;
  all->damaged_frames += of_seed.damaged_frames;
}

TEST(Sim, EverySeedGivesRightBytesAndKeepsWhatIsDurable) {
  SetLogLevel(LogLevel::kOff);
  const uint64_t from = FromEnvironment("TERRACE_SIM_FROM", 1);
  const uint64_t count = FromEnvironment("TERRACE_SIM_SEEDS", kSeeds);
  SimTally all;
  for (uint64_t seed = from; seed < from + count; ++seed) {
    SimWorld world(SimPlan::Of(seed));
    world.Run();
    Add(world.tally(), &all);
    ASSERT_FALSE(HasFailure()) << "again: TERRACE_SIM_FROM=" << seed
                               << " TERRACE_SIM_SEEDS=1 build/release/bin/sim_test";
  }
  std::printf(
      "%lu seeds: %lu lives, %lu puts, %lu hits, %lu misses, %lu loads, %lu persisted, %lu durable "
      "at an end, %lu of these evicted at once, %lu held, %lu leased, %lu faults, %lu corrupt, "
      "%lu log reclaims, %lu carried, tier off %lu times; %lu encoded, %lu ungainful, %lu "
      "decoded, %lu damaged frames\n",
      count, all.lives, all.puts, all.hits, all.misses, all.loads, all.persisted, all.durable,
      all.lost, all.held, all.leased, all.injected, all.corrupt, all.reclaims, all.moved, all.off,
      all.encoded, all.ungainful, all.decoded, all.damaged_frames);
  if (count < 50) return;
  // All that the runs are for did happen.
  EXPECT_GT(all.lives, 2 * count);
  EXPECT_GT(all.puts, 20 * count);
  EXPECT_GT(all.loads, count);
  EXPECT_GT(all.persisted, count);
  EXPECT_GT(all.durable, 5 * count);
  EXPECT_GT(all.held, count);
  EXPECT_GT(all.leased, count / 2);
  EXPECT_GT(all.reclaims, count / 4);
  EXPECT_GT(all.corrupt, count / 20);
  EXPECT_GT(all.encoded, 2 * count);
  EXPECT_GT(all.ungainful, count / 4);
  EXPECT_GT(all.decoded, count / 2);
  EXPECT_LT(all.off, all.lives / 4);
}

}  // namespace
}  // namespace terrace
