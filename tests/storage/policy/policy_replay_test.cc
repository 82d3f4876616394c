// The prefix hit ratios of both policies block by block: on a production trace where it is at hand
// (TERRACE_TRACE, or ../shared beside the sources), on a synthetic one everywhere.

#include <gtest/gtest.h>

#include <filesystem>

#include "storage/policy/gittins_policy.h"
#include "storage/policy/lru_policy.h"
#include "tests/storage/policy/block_replay.h"

namespace terrace {
namespace {

double LruRatio(const Trace& trace, uint64_t capacity_blocks) {
  LruPolicy policy;
  BlockReplay replay(policy, capacity_blocks, 1, [](PolicyHandle) { return 0u; });
  replay.Replay(trace);
  return replay.counts().prefix_hit_ratio();
}

double GittinsRatio(const Trace& trace, uint64_t capacity_blocks) {
  GittinsPolicy policy(capacity_blocks * kReplayBlockBytes);
  BlockReplay replay(policy, capacity_blocks, kUseClassCount,
                     [&policy](PolicyHandle chunk) { return policy.UseClass(chunk); });
  replay.Replay(trace);
  return replay.counts().prefix_hit_ratio();
}

struct Row {
  uint64_t capacity_blocks;
  double lru;
  double gittins;
};

void ExpectRows(const Trace& trace, const std::vector<Row>& rows, double tolerance) {
  for (const Row& row : rows) {
    EXPECT_NEAR(LruRatio(trace, row.capacity_blocks), row.lru, tolerance) << row.capacity_blocks;
    EXPECT_NEAR(GittinsRatio(trace, row.capacity_blocks), row.gittins, tolerance)
        << row.capacity_blocks;
  }
}

TEST(PolicyReplay, ReproducesTheTableOnTheProductionTrace) {
  std::filesystem::path root = __FILE__;
  for (int up = 0; up < 4; ++up) root = root.parent_path();
  const auto path = FindTrace(root.parent_path() / "shared/traces/mooncake_conversation.jsonl");
  if (!path) GTEST_SKIP() << "no trace: set TERRACE_TRACE to mooncake_conversation.jsonl";
  const Trace trace = ReadTrace(*path);
  ASSERT_EQ(CountBlocks(trace), 288'500u);
  ASSERT_EQ(CountDistinctBlocks(trace), 182'790u);
  ExpectRows(trace,
             {{913, .044, .075},
              {3'655, .079, .143},
              {9'139, .196, .216},
              {18'279, .279, .289},
              {36'558, .345, .344},
              {73'116, .360, .360}},
             0.005);
}

TEST(PolicyReplay, KeepsItsRatiosOnASyntheticTrace) {
  const Trace trace = SynthesizeTrace(1, 6'000);
  ASSERT_EQ(CountBlocks(trace), 136'845u);
  ASSERT_EQ(CountDistinctBlocks(trace), 50'875u);
  ExpectRows(trace,
             {{254, .2294, .2433},
              {1'017, .3601, .3705},
              {2'543, .4608, .4671},
              {5'087, .5377, .5455},
              {10'175, .5951, .5974}},
             0.002);
}

}  // namespace
}  // namespace terrace
