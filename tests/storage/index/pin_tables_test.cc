#include "storage/index/pin_tables.h"

#include <array>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace terrace {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class PinTablesTest : public testing::Test {
 protected:
  PinTablesTest() {
    tables_.Add(1, one_.data(), 4);
    tables_.Add(2, two_.data(), 4);
  }

  std::array<std::atomic<uint64_t>, 4> one_{};
  std::array<std::atomic<uint64_t>, 4> two_{};
  PinTables tables_;
};

TEST_F(PinTablesTest, EmptyTablesPinNothing) {
  EXPECT_FALSE(tables_.IsPinned(0, 1));
  EXPECT_THAT(tables_.Census().SessionsOf(0, 1), IsEmpty());
  EXPECT_FALSE(tables_.Census().Has(0, 0));
  EXPECT_EQ(tables_.CountPins(1), 0u);
}

TEST_F(PinTablesTest, FindsAPinInAnyWordOfAnyTable) {
  for (auto* table : {&one_, &two_}) {
    for (std::atomic<uint64_t>& word : *table) {
      word = shm::PinWord(9, 4);
      EXPECT_TRUE(tables_.IsPinned(9, 4));
      word = 0;
      EXPECT_FALSE(tables_.IsPinned(9, 4));
    }
  }
}

TEST_F(PinTablesTest, OtherSegmentsAndOtherMemfdsOfThePlaceAreNotPinned) {
  one_[3] = shm::PinWord(9, 4);
  EXPECT_FALSE(tables_.IsPinned(8, 4));
  EXPECT_FALSE(tables_.IsPinned(9, 3));
  EXPECT_FALSE(tables_.IsPinned(9, 5));
}

TEST_F(PinTablesTest, NamesEachSessionThatPinsOnce) {
  one_[0] = shm::PinWord(9, 4);
  two_[1] = shm::PinWord(9, 4);
  two_[2] = shm::PinWord(9, 4);
  two_[3] = shm::PinWord(1, 1);
  const PinCensus census = tables_.Census();
  EXPECT_THAT(census.SessionsOf(9, 4), ElementsAre(1, 2));
  EXPECT_THAT(census.SessionsOf(1, 1), ElementsAre(2));
  EXPECT_TRUE(census.Has(9, 4));
  EXPECT_FALSE(census.Has(9, 5));
  EXPECT_FALSE(census.Has(8, 4));
  EXPECT_EQ(tables_.CountPins(1), 1u);
  EXPECT_EQ(tables_.CountPins(2), 3u);
  EXPECT_EQ(tables_.CountPins(3), 0u);
  EXPECT_EQ(tables_.CountPinnedSegments(1), 1u);
  EXPECT_EQ(tables_.CountPinnedSegments(2), 2u);
  EXPECT_EQ(tables_.CountPinnedSegments(3), 0u);
}

TEST_F(PinTablesTest, RemoveClearsTheWordsOfThatSessionAlone) {
  one_[0] = shm::PinWord(9, 4);
  two_[1] = shm::PinWord(8, 4);
  tables_.Remove(1);
  EXPECT_EQ(one_[0], 0u);
  EXPECT_FALSE(tables_.IsPinned(9, 4));
  EXPECT_TRUE(tables_.IsPinned(8, 4));
  one_[0] = shm::PinWord(9, 4);
  EXPECT_FALSE(tables_.IsPinned(9, 4)) << "a removed table is still scanned";
}

}  // namespace
}  // namespace terrace
