#include "storage/catalog/catalog_history.h"

#include <gtest/gtest.h>

#include "storage/catalog/catalog_check.h"
#include "storage/catalog/catalog_marks.h"
#include "tests/storage/catalog/catalog_harness.h"

namespace terrace {
namespace {

TEST(CatalogHistory, SaysWhyTheNewestFirst) {
  const TestFolder folder;
  const CatalogOptions options = SmallCatalog(folder.path("catalog"));
  {
    const auto catalog = OpenCatalog(options);
    for (uint64_t number = 0; number < 50; ++number) {
      ASSERT_TRUE(catalog->NoteGone(NumberedName(number % 10), NumberedGone(number)).ok());
    }
  }
  const auto catalog = OpenCatalog(options);
  EXPECT_EQ(catalog->stats().history_rows, 50u);
  ASSERT_TRUE(catalog->NoteGone(NumberedName(3), NumberedGone(99)).ok());
  const std::vector<GoneEntry> entries = FindGoneNow(*catalog, NumberedName(3));
  ASSERT_EQ(entries.size(), 6u);
  EXPECT_EQ(entries[0].row, NumberedGone(99));
  EXPECT_EQ(entries[0].number, 51u);
  for (uint64_t at = 1; at < 6; ++at) EXPECT_EQ(entries[at].row, NumberedGone(53 - at * 10));
  EXPECT_TRUE(FindGoneNow(*catalog, NumberedName(3, 2)).empty());  // another namespace
  EXPECT_TRUE(FindGoneNow(*catalog, NumberedName(77)).empty());
}

TEST(CatalogHistory, AnswersAreBounded) {
  const TestFolder folder;
  const auto catalog = OpenCatalog(SmallCatalog(folder.path("catalog")));
  for (uint64_t number = 0; number < 100; ++number) {
    ASSERT_TRUE(catalog->NoteGone(NumberedName(1), NumberedGone(number)).ok());
  }
  const std::vector<GoneEntry> entries = FindGoneNow(*catalog, NumberedName(1));
  ASSERT_EQ(entries.size(), kHistoryAnswerMax);
  EXPECT_EQ(entries.front().row, NumberedGone(99));
  EXPECT_EQ(entries.back().row, NumberedGone(84));
}

uint64_t HistoryRowsOnDisk(const std::string& folder) {
  const Result<CatalogReport> report = CheckCatalog(folder);
  return report.ok() ? report->history : UINT64_MAX;
}

TEST(CatalogHistory, BoundHoldsOnDiskAndDropsTheOldest) {
  const TestFolder folder;
  CatalogOptions options = SmallCatalog(folder.path("catalog"));
  options.history_rows_max = 800;
  {
    const auto catalog = OpenCatalog(options);
    for (uint64_t number = 0; number < 5000; ++number) {
      ASSERT_TRUE(catalog->NoteGone(NumberedName(number), NumberedGone(number)).ok());
      if (number % 500 == 0) {
        ASSERT_TRUE(FlushNow(*catalog).ok());
        EXPECT_LE(catalog->stats().history_rows, 800u);
      }
    }
    ASSERT_TRUE(FlushNow(*catalog).ok());
    EXPECT_GE(catalog->stats().history_rows, 700u);
    EXPECT_EQ(catalog->stats().history_since_wall_ns, NumberedGone(4200).wall_ns);
    EXPECT_EQ(FindGoneNow(*catalog, NumberedName(4999)).size(), 1u);
    EXPECT_EQ(FindGoneNow(*catalog, NumberedName(4300)).size(), 1u);
    EXPECT_TRUE(FindGoneNow(*catalog, NumberedName(4199)).empty());
  }
  EXPECT_LE(HistoryRowsOnDisk(options.folder), 800u);
  EXPECT_GE(HistoryRowsOnDisk(options.folder), 700u);

  options.history_rows_max = 100;  // a smaller one takes hold with the next row
  {
    const auto catalog = OpenCatalog(options);
    EXPECT_EQ(catalog->stats().history_since_wall_ns, NumberedGone(4200).wall_ns);
    ASSERT_TRUE(catalog->NoteGone(NumberedName(1), NumberedGone(1)).ok());
    EXPECT_EQ(FindGoneNow(*catalog, NumberedName(1)).size(), 1u);
    EXPECT_LE(catalog->stats().history_rows, 100u);
  }
  EXPECT_LE(HistoryRowsOnDisk(options.folder), 100u);
}

TEST(CatalogHistory, NoneIsKeptWhenNoneIsWanted) {
  const TestFolder folder;
  CatalogOptions options = SmallCatalog(folder.path("catalog"));
  options.history_rows_max = 0;
  {
    const auto catalog = OpenCatalog(options);
    ASSERT_TRUE(catalog->NoteGone(NumberedName(1), NumberedGone(1)).ok());
    EXPECT_TRUE(FindGoneNow(*catalog, NumberedName(1)).empty());
  }
  EXPECT_EQ(HistoryRowsOnDisk(options.folder), 0u);
}

TEST(CatalogHistory, DamagedBookkeepingBeginsAnew) {
  const TestFolder folder;
  const CatalogOptions options = SmallCatalog(folder.path("catalog"));
  {
    const auto catalog = OpenCatalog(options);
    for (uint64_t number = 0; number < 100; ++number) {
      ASSERT_TRUE(catalog->NoteGone(NumberedName(number), NumberedGone(number)).ok());
    }
  }
  {
    Result<std::unique_ptr<RowStore>> store = RowStore::Open({.folder = options.folder});
    ASSERT_TRUE(store.ok());
    RowBatch batch;
    batch.Put(catalog::KindStart(catalog::Kind::kGenerations), "nonsense!");
    ASSERT_TRUE((*store)->Write(batch, true).ok());
    ASSERT_TRUE((*store)->Close().ok());
  }
  {
    const auto catalog = OpenCatalog(options);
    EXPECT_EQ(catalog->stats().history_rows, 0u);
    ASSERT_TRUE(catalog->NoteGone(NumberedName(1000), NumberedGone(1000)).ok());
    EXPECT_EQ(FindGoneNow(*catalog, NumberedName(1000)).size(), 1u);
    EXPECT_TRUE(FindGoneNow(*catalog, NumberedName(5)).empty());
  }
  EXPECT_EQ(HistoryRowsOnDisk(options.folder), 1u);
}

}  // namespace
}  // namespace terrace
