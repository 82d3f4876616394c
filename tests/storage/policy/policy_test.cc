#include <gtest/gtest.h>

#include "storage/policy/age_buckets.h"
#include "storage/policy/age_census.h"
#include "storage/policy/ghosts.h"
#include "storage/policy/gittins_policy.h"
#include "storage/policy/policy.h"

namespace terrace {
namespace {

constexpr uint32_t kBytes = 64 * 1024;

TEST(Policy, UnknownNameIsRefusedNamingTheKnown) {
  const auto made = MakePolicy("fifo", 1 << 20);
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.status().code(), StatusCode::kInvalid);
  EXPECT_NE(made.status().message().find("gittins"), std::string::npos);
}

TEST(LruPolicy, LaterUsedIsWorthMore) {
  const auto policy = *MakePolicy("lru", 1 << 20);
  const PolicyHandle first = policy->Insert(1, kBytes);
  const PolicyHandle second = policy->Insert(2, kBytes);
  EXPECT_LT(policy->Worth(first), policy->Worth(second));
  policy->Touch(first);
  EXPECT_GT(policy->Worth(first), policy->Worth(second));
}

TEST(GittinsPolicy, EvictedKeyComesBackOneClassHigherAndRemovedOneForgotten) {
  GittinsPolicy policy(64 * kBytes);
  const PolicyHandle evicted = policy.Insert(1, kBytes);
  const PolicyHandle removed = policy.Insert(2, kBytes);
  policy.Touch(evicted);
  EXPECT_EQ(policy.UseClass(evicted), 1u);
  policy.Remove(evicted, Departure::kEvicted);
  policy.Remove(removed, Departure::kRemoved);
  EXPECT_EQ(policy.ReuseClassOfAbsent(1), 2u);
  EXPECT_EQ(policy.ReuseClassOfAbsent(2), 0u);
  EXPECT_EQ(policy.UseClass(policy.Insert(1, kBytes)), 2u);
}

TEST(GittinsPolicy, UsesWithNothingPutBetweenAreOneUse) {
  GittinsPolicy policy(64 * kBytes);
  const PolicyHandle chunk = policy.Insert(1, kBytes);
  policy.Insert(2, kBytes);
  policy.Touch(chunk);
  policy.Touch(chunk);
  EXPECT_EQ(policy.UseClass(chunk), 1u);
}

TEST(GittinsPolicy, GhostsStayBoundedAndExpire) {
  GittinsPolicy policy(64 * kBytes);
  for (uint64_t key = 0; key < 5'000; ++key) {
    policy.Remove(policy.Insert(key, kBytes), Departure::kEvicted);
  }
  EXPECT_LE(policy.ghost_count(), 12u * 64 + 1);
  EXPECT_EQ(policy.ReuseClassOfAbsent(0), 0u);
  EXPECT_EQ(policy.ReuseClassOfAbsent(4'999), 1u);
}

TEST(GittinsPolicy, SharedHashesDoNotBreakIt) {
  GittinsPolicy policy(64 * kBytes);
  const PolicyHandle first = policy.Insert(7, kBytes);
  const PolicyHandle second = policy.Insert(7, kBytes);
  policy.Remove(first, Departure::kEvicted);
  policy.Remove(second, Departure::kEvicted);
  EXPECT_EQ(policy.ghost_count(), 1u);
}

TEST(Ghosts, TakenOnesLeaveTheOthersFindable) {
  Ghosts ghosts(64);
  for (uint64_t key = 0; key < 64; ++key) ghosts.Add({key, key, key, 0});
  EXPECT_TRUE(ghosts.full());
  for (uint64_t key = 0; key < 64; key += 2) EXPECT_TRUE(ghosts.Take(key));
  for (uint64_t key = 0; key < 64; ++key) EXPECT_EQ(ghosts.Find(key) != nullptr, key % 2 == 1);
  EXPECT_EQ(ghosts.Oldest()->key_hash, 1u);
}

TEST(AgeBuckets, StartsAreInTheirBucket) {
  for (uint32_t bucket = 0; bucket < kAgeBucketCount; ++bucket) {
    EXPECT_EQ(AgeBucketOf(AgeBucketStart(bucket)), bucket);
    if (bucket > 0) {
      EXPECT_EQ(AgeBucketOf(AgeBucketStart(bucket) - 1), bucket - 1);
    }
  }
}

TEST(AgeCensus, LosesNobodyAsTheyAge) {
  AgeCensus census(64 * kBytes);
  for (uint64_t i = 1; i <= 3'000; ++i) {
    census.AdvanceTo(i * kBytes);
    census.Add(2, i * kBytes);
  }
  double total = 0;
  const AgeCensus::Histogram ages = census.AgesAt(3'000 * kBytes);
  for (const double count : ages[2]) total += count;
  EXPECT_NEAR(total, 3'000, 1e-6);
}

}  // namespace
}  // namespace terrace
