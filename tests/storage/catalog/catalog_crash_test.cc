#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <random>

#include "storage/catalog/catalog_check.h"
#include "tests/storage/catalog/catalog_harness.h"
#include "tests/support/child_process.h"

namespace terrace {
namespace {

constexpr uint32_t kRounds = 60;

struct Acknowledged {
  uint64_t commit = 0, rows = 0;

  void Take(uint64_t word) {
    uint64_t& number = word % 2 == 0 ? commit : rows;
    number = std::max(number, word / 2);
  }
};

// One life of the child: killed after some words, or so soon that it may not even have opened.
void RunAndKill(const std::string& folder, std::mt19937_64& random, Acknowledged* acknowledged) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd from(ends[0]);
  ChildProcess child(
      {.words = {ProgramPath("catalog_child"), folder}, .output = UniqueFd(ends[1])});
  if (random() % 4 == 0) {
    pollfd ready{.fd = from.get(), .events = POLLIN, .revents = 0};
    poll(&ready, 1, static_cast<int>(random() % 40));
  } else {
    for (uint64_t left = 1 + random() % 60; left > 0; --left) {
      uint64_t word = 0;
      ASSERT_EQ(read(from.get(), &word, sizeof word), static_cast<ssize_t>(sizeof word));
      acknowledged->Take(word);
    }
  }
  child.Kill();
  uint64_t word = 0;
  while (read(from.get(), &word, sizeof word) == sizeof word) acknowledged->Take(word);
}

void ExpectWhole(const Catalog& catalog, const Acknowledged& acknowledged) {
  const LoadedChunks loaded = Load(catalog);
  ASSERT_TRUE(loaded.status.ok()) << loaded.status.ToString();
  EXPECT_EQ(loaded.damaged, 0u);
  EXPECT_GE(loaded.rows.size(), acknowledged.rows);
  uint64_t next = 0;
  for (const auto& [number, row] : loaded.rows) {
    ASSERT_EQ(number, next++);  // a prefix
    ASSERT_EQ(row, NumberedRow(number));
  }
  const Result<CatalogState> state = catalog.LoadState();
  ASSERT_TRUE(state.ok()) << state.status().ToString();
  const uint64_t commit = state->next_ids.empty() ? 0 : state->next_ids.front().next_id;
  EXPECT_GE(commit, acknowledged.commit);
  for (const NamespaceRow& row : state->namespaces) {
    EXPECT_EQ(row.label, "space-" + std::to_string(row.epoch % 5));
    EXPECT_LE(row.epoch, commit);
    EXPECT_GT(row.epoch + 5, commit);  // each of the last five is there: nothing was half done
  }
  EXPECT_EQ(state->namespaces.size(), std::min<uint64_t>(commit, 5));
}

TEST(CatalogCrash, KilledAtAnyTimeItKeepsWhatItAcknowledged) {
  const TestFolder folder;
  const std::string path = folder.path("catalog");
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  Acknowledged acknowledged;
  for (uint32_t round = 0; round < kRounds; ++round) {
    RunAndKill(path, random, &acknowledged);
    if (HasFatalFailure()) return;
    // Else the next child opens what several kills left.
    if (random() % 3 != 0 && round + 1 < kRounds) continue;
    CatalogOptions options = SmallCatalog(path);
    options.history_rows_max = 2000;
    const auto catalog = OpenCatalog(options);
    ExpectWhole(*catalog, acknowledged);
    EXPECT_LE(catalog->stats().history_rows, 2000u);
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(acknowledged.commit, kRounds);
  const Result<CatalogReport> report = CheckCatalog(path);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->damaged, 0u);
  EXPECT_LE(report->history, 2000u);
  RecordProperty("commits", static_cast<int>(acknowledged.commit));
}

}  // namespace
}  // namespace terrace
