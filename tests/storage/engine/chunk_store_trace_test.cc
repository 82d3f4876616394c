// The prefix hit ratio of a production trace through the whole engine: segments, reclaim and
// carry-over lose little of what the policy has block by block (.143, .216, .289).
//
// The trace is found by TERRACE_TRACE or in ../shared beside the sources; without it the test is
// skipped.  TERRACE_TRACE_ALL runs the larger pools too (0.7 and 1.3 GiB).

#include <gtest/gtest.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>

#include "tests/storage/engine/store_harness.h"

namespace terrace {
namespace {

constexpr uint64_t kDistinctBlocks = 182'790;
constexpr uint32_t kPayloadBytes = 64 * 1024;
constexpr uint32_t kRecordsPerSegment =
    static_cast<uint32_t>(kTestSegmentBytes / shm::RecordBytes(kPayloadBytes));

std::string TracePath() {
  const char* named = std::getenv("TERRACE_TRACE");
  if (named != nullptr) return named;
  std::filesystem::path root = __FILE__;
  for (int up = 0; up < 4; ++up) root = root.parent_path();
  return root.parent_path() / "shared/traces/mooncake_conversation.jsonl";
}

// The numbers between the brackets after "hash_ids".
std::vector<uint64_t> BlocksOf(const std::string& line) {
  std::vector<uint64_t> blocks;
  const size_t list = line.find("\"hash_ids\"");
  if (list == std::string::npos) return blocks;
  const char* at = line.data() + line.find('[', list);
  const char* end = line.data() + line.find(']', list);
  while (at < end) {
    uint64_t block = 0;
    const auto parsed = std::from_chars(++at, end, block);
    if (parsed.ec != std::errc()) break;
    blocks.push_back(block);
    at = std::find(parsed.ptr, end, ',');
    if (at < end) ++at;
  }
  return blocks;
}

struct TraceCase {
  double share;
  double prefix_hit_ratio_min;
};

class TraceTest : public StoreTest, public ::testing::WithParamInterface<TraceCase> {
 protected:
  // Puts a block without writing its payload: what lies there already is the payload.
  void PutWhatLiesThere(TestSession& session, uint64_t block) {
    const PutGrant grant = Begin(session, block, kPayloadBytes);
    ASSERT_EQ(grant.status, StatusCode::kOk);
    std::byte* record = store->Address(grant.location);
    uint64_t leaves[shm::kLeafCountMax];
    HashLeaves(record + shm::kRecordHeaderBytes, kPayloadBytes, leaves);
    BuildHeader({.key = KeyOf(block), .namespace_id = ns, .payload_bytes = kPayloadBytes}, leaves,
                reinterpret_cast<shm::RecordHeader*>(record));
    ASSERT_EQ(Commit(session, grant.claim), StatusCode::kOk);
  }
};

TEST_P(TraceTest, SegmentsKeepWhatThePolicyKnows) {
  std::ifstream trace(TracePath());
  if (!trace) GTEST_SKIP() << "no trace at " << TracePath();
  if (GetParam().share > 0.02 && std::getenv("TERRACE_TRACE_ALL") == nullptr) {
    GTEST_SKIP() << "set TERRACE_TRACE_ALL to run it";
  }
  const auto records = static_cast<uint64_t>(GetParam().share * kDistinctBlocks);
  // Open segments are not counted: three of the session, three of survivors.
  ChunkStoreOptions options = SmallStore(
      static_cast<uint32_t>((records + kRecordsPerSegment - 1) / kRecordsPerSegment) + 6);
  options.policy = "gittins";
  if (const char* seed = std::getenv("TERRACE_TEST_SEED")) {
    options.seed = std::strtoull(seed, nullptr, 10);
  }
  std::cout << "seed " << options.seed << " (TERRACE_TEST_SEED)\n";
  Open(options);
  TestSession session(*store, 1);

  uint64_t references = 0, hits = 0;
  std::vector<uint64_t> touches;
  for (std::string line; std::getline(trace, line);) {
    const std::vector<uint64_t> blocks = BlocksOf(line);
    references += blocks.size();
    bool prefix = true;
    touches.assign(blocks.size(), 0);
    for (size_t i = 0; i < blocks.size(); ++i) {
      const Result<ReadyChunk> found = store->Find(ns, KeyOf(blocks[i]));
      prefix = prefix && found.ok();
      if (prefix) ++hits;
      if (found.ok()) touches[i] = found->touch;
    }
    // The last block first: a tail never outlives its head.
    for (size_t i = blocks.size(); i-- > 0;) {
      if (touches[i] != 0) store->Touch(touches[i]);
    }
    for (size_t i = blocks.size(); i-- > 0;) {
      if (touches[i] == 0 && !Has(blocks[i])) PutWhatLiesThere(session, blocks[i]);
      if (HasFatalFailure()) return;
    }
    now_ns += kSecondNs / 10;
    store->Tick(now_ns);
  }
  const ChunkStoreStats stats = store->stats();
  const double ratio = static_cast<double>(hits) / static_cast<double>(references);
  const double moved =
      static_cast<double>(stats.moved_bytes) / static_cast<double>(stats.put_bytes);
  std::cout << "share " << GetParam().share << ": prefix hit ratio " << ratio << ", moved a put "
            << moved << "\n";
  EXPECT_EQ(references, 288'500u);
  EXPECT_GE(ratio, GetParam().prefix_hit_ratio_min);
  EXPECT_LE(moved, 0.25);
  EXPECT_EQ(stats.corrupt_moves, 0u);
  ExpectAccountsAddUp();
}

INSTANTIATE_TEST_SUITE_P(Shares, TraceTest,
                         ::testing::Values(TraceCase{0.02, 0.125}, TraceCase{0.05, 0.198},
                                           TraceCase{0.10, 0.270}),
                         [](const auto& share) {
                           return "Percent" + std::to_string(int(share.param.share * 100 + 0.5));
                         });

}  // namespace
}  // namespace terrace
