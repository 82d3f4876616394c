#include "client/core/restorable_prefix.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace terrace {
namespace {

struct Case {
  const char* name;
  uint32_t ranks;
  std::vector<uint32_t> trailing;
  std::vector<std::string> ready;  // a part: 'x' ready, '.' absent, by chunk
  size_t prefix;
};

size_t Answer(const Case& c) {
  return RestorablePrefix(
      c.ready.front().size(), c.ranks, c.trailing,
      [&c](size_t index, uint16_t part) { return c.ready.at(part).at(index) == 'x'; });
}

class RestorablePrefixTable : public testing::TestWithParam<Case> {};

TEST_P(RestorablePrefixTable, Answers) { EXPECT_EQ(Answer(GetParam()), GetParam().prefix); }

INSTANTIATE_TEST_SUITE_P(
    Rules, RestorablePrefixTable,
    testing::Values(Case{"Nothing", 1, {0}, {"...."}, 0}, Case{"All", 1, {0}, {"xxxx"}, 4},
                    Case{"EndsAtTheHole", 1, {0}, {"xx.x"}, 2},
                    Case{"EveryRankCounts", 2, {0}, {"xxxx", "xxx."}, 3},
                    Case{"EveryGroupCounts", 1, {0, 0}, {"xxxx", "x.xx"}, 1},
                    Case{"OnlyTheTail", 1, {0, 2}, {"xxxx", "..xx"}, 4},
                    Case{"TheTailMovesBack", 1, {0, 2}, {"xxxx", ".xx."}, 3},
                    Case{"AShortPrefixNeedsAllOfIt", 1, {0, 3}, {"xxxx", "xx.."}, 2},
                    Case{"NoTailFits", 1, {0, 2}, {"xxxx", "x.x."}, 1},
                    Case{"NoTailAtAll", 1, {0, 2}, {"xxxx", ".x.x"}, 0},
                    Case{"StateAlone", 1, {1}, {"..x."}, 3},
                    Case{"TailBeyondTheFullGroup", 1, {0, 1}, {"xx..", "...x"}, 0},
                    Case{"TwoWindows", 1, {2, 1}, {".xxx", "..x."}, 3},
                    Case{"RanksTimesGroups", 2, {0, 1}, {"xxx.", "xxxx", "..x.", ".xx."}, 3},
                    Case{"OneRankLacksTheTail", 2, {0, 1}, {"xxxx", "xxxx", "xxxx", ".x.."}, 2}),
    [](const auto& row) { return std::string(row.param.name); });

// The definition, word for word.
size_t Naive(const Case& c) {
  for (size_t n = c.ready.front().size(); n > 0; --n) {
    bool fits = true;
    for (size_t group = 0; group < c.trailing.size(); ++group) {
      const size_t trailing = c.trailing[group];
      const size_t from = trailing == 0 || trailing > n ? 0 : n - trailing;
      for (size_t rank = 0; rank < c.ranks; ++rank) {
        for (size_t i = from; i < n; ++i) fits &= c.ready[rank + c.ranks * group][i] == 'x';
      }
    }
    if (fits) return n;
  }
  return 0;
}

TEST(RestorablePrefix, EqualsItsDefinition) {
  std::minstd_rand random(20);
  for (int round = 0; round < 3000; ++round) {
    Case c{"", static_cast<uint32_t>(1 + random() % 3), {}, {}, 0};
    const size_t groups = 1 + random() % 3, chunks = 1 + random() % 12;
    for (size_t g = 0; g < groups; ++g) c.trailing.push_back(static_cast<uint32_t>(random() % 4));
    for (size_t part = 0; part < groups * c.ranks; ++part) {
      std::string row;
      for (size_t i = 0; i < chunks; ++i) row += random() % 8 == 0 ? '.' : 'x';
      c.ready.push_back(row);
    }
    ASSERT_EQ(Answer(c), Naive(c)) << "round " << round;
  }
}

TEST(RestorablePrefix, AsksAtMostOnceForEach) {
  std::vector<int> asked(2 * 5, 0);
  RestorablePrefix(5, 1, std::vector<uint32_t>{0, 2}, [&](size_t index, uint16_t part) {
    ++asked[part * 5 + index];
    return true;
  });
  for (const int times : asked) EXPECT_LE(times, 1);
}

}  // namespace
}  // namespace terrace
