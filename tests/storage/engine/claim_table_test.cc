#include "storage/engine/claim_table.h"

#include <gtest/gtest.h>

namespace terrace {
namespace {

Claim ClaimOf(SessionId session, int64_t deadline_ns) {
  Claim claim;
  claim.session = session;
  claim.deadline_ns = deadline_ns;
  return claim;
}

TEST(ClaimTable, IdOfAnEndedClaimNeverNamesALaterOne) {
  ClaimTable claims;
  const uint64_t first = claims.Add(ClaimOf(1, 10))->id;
  claims.Remove(first);
  const uint64_t second = claims.Add(ClaimOf(1, 10))->id;
  EXPECT_NE(first, second);
  EXPECT_EQ(claims.Find(1, first), nullptr);
}

TEST(ClaimTable, ClaimIsFoundByItsSessionOnly) {
  ClaimTable claims;
  const uint64_t id = claims.Add(ClaimOf(1, 10))->id;
  EXPECT_NE(claims.Find(1, id), nullptr);
  EXPECT_EQ(claims.Find(2, id), nullptr);
  EXPECT_EQ(claims.Find(1, id + 1), nullptr);
}

TEST(ClaimTable, ExpiresInTheOrderOfDeadlines) {
  ClaimTable claims;
  (void)claims.Add(ClaimOf(1, 30));
  const uint64_t soon = claims.Add(ClaimOf(2, 10))->id;
  EXPECT_EQ(claims.NextDeadline(), 10);
  EXPECT_EQ(claims.Expired(9), nullptr);
  ASSERT_NE(claims.Expired(10), nullptr);
  EXPECT_EQ(claims.Expired(10)->id, soon);
  claims.End(*claims.Expired(10));
  EXPECT_EQ(claims.NextDeadline(), 30);
  EXPECT_EQ(claims.open_count(), 1u);
  EXPECT_TRUE(claims.Find(2, soon)->ended);
}

TEST(ClaimTable, EndedClaimsCountUntilTheyAreRemoved) {
  ClaimTable claims;
  std::vector<uint64_t> ids;
  for (uint32_t i = 0; i < kClaimCountMax; ++i) ids.push_back(claims.Add(ClaimOf(1, 10))->id);
  for (const uint64_t id : ids) claims.End(*claims.Find(1, id));
  EXPECT_EQ(claims.Add(ClaimOf(1, 10)), nullptr);
  EXPECT_NE(claims.Add(ClaimOf(2, 10)), nullptr);
  claims.Remove(ids[0]);
  EXPECT_NE(claims.Add(ClaimOf(1, 10)), nullptr);
  EXPECT_EQ(claims.OfSession(1).size(), kClaimCountMax);
  EXPECT_EQ(claims.CountOf(3), 0u);
}

}  // namespace
}  // namespace terrace
