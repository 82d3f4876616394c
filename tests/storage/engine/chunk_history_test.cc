#include "storage/engine/chunk_history.h"

#include <gtest/gtest.h>

#include <string>

namespace terrace {
namespace {

shm::ChunkKey KeyOf(uint64_t id) { return shm::ChunkKey::FromBytes(&id, sizeof id, 0); }

ChunkEvent EventOf(uint64_t id, uint32_t label_tag, ChunkCause cause, int64_t wall_ms) {
  return {.key = KeyOf(id),
          .label_tag = label_tag,
          .namespace_id = 1,
          .payload_bytes = 10,
          .cause = cause,
          .wall_ms = wall_ms};
}

// All keys in a few buckets, so that chains hold others' events.
uint64_t HashOf(uint64_t id) { return id % 7; }

TEST(ChunkHistory, AnswersTheNewestOfTheKeyUnderItsLabel) {
  ChunkHistory history;
  for (uint64_t id = 0; id < 100; ++id) {
    history.Note(EventOf(id, 1, ChunkCause::kEvictedDram, 1), HashOf(id));
    history.Note(EventOf(id, 2, ChunkCause::kRemoved, 2), HashOf(id));
  }
  history.Note(EventOf(5, 1, ChunkCause::kCleared, 3), HashOf(5));
  EXPECT_EQ(history.Last(KeyOf(5), 1, HashOf(5))->cause, ChunkCause::kCleared);
  EXPECT_EQ(history.Last(KeyOf(5), 2, HashOf(5))->cause, ChunkCause::kRemoved);
  EXPECT_EQ(history.Last(KeyOf(6), 1, HashOf(6))->cause, ChunkCause::kEvictedDram);
  EXPECT_FALSE(history.Last(KeyOf(5), 3, HashOf(5)).has_value());
  EXPECT_FALSE(history.Last(KeyOf(100), 1, HashOf(100)).has_value());
  const ChunkEvent whole = *history.Last(KeyOf(6), 2, HashOf(6));
  EXPECT_EQ(whole.key, KeyOf(6));
  EXPECT_EQ(whole.payload_bytes, 10u);
  EXPECT_EQ(whole.namespace_id, 1u);
  EXPECT_EQ(whole.wall_ms, 2);
}

TEST(ChunkHistory, TagsAreOfLabelsOfAnyLength) {
  EXPECT_NE(LabelTag("a"), LabelTag("b"));
  EXPECT_EQ(LabelTag("a"), LabelTag(std::string("a")));
  EXPECT_EQ(LabelTag(""), 0u);
  EXPECT_NE(LabelTag(std::string(1'000'000, 'x')), 0u);
}

TEST(ChunkHistory, OverwritesTheOldestAndSaysHowFarItGoesBack) {
  ChunkHistory history;
  history.Begin(7);
  EXPECT_EQ(history.since_ms(), 7);
  const uint64_t count = kDeparturesKept + 1000;
  for (uint64_t id = 0; id < count; ++id) {
    history.Note(EventOf(id, 1, ChunkCause::kEvictedDram, static_cast<int64_t>(1000 + id)), id);
  }
  EXPECT_FALSE(history.Last(KeyOf(999), 1, 999).has_value());
  EXPECT_EQ(history.Last(KeyOf(1000), 1, 1000)->wall_ms, 2000);
  EXPECT_EQ(history.Last(KeyOf(count - 1), 1, count - 1)->wall_ms,
            static_cast<int64_t>(1000 + count - 1));
  EXPECT_EQ(history.since_ms(), 2000);
}

TEST(ChunkHistory, RefusalsDoNotDriveDeparturesOut) {
  ChunkHistory history;
  history.Note(EventOf(1, 1, ChunkCause::kEvictedNvme, 1), 1);
  for (uint64_t id = 2; id < 2 * uint64_t{kDeparturesKept}; ++id) {
    history.Note(EventOf(id, 1, ChunkCause::kNoRoom, 2), id);
  }
  EXPECT_EQ(history.Last(KeyOf(1), 1, 1)->cause, ChunkCause::kEvictedNvme);
  EXPECT_EQ(history.since_ms(), 0);
}

TEST(ChunkHistory, ARefusalThatRepeatsIsNotedOnceASecond) {
  ChunkHistory history;
  EXPECT_TRUE(history.Note(EventOf(1, 1, ChunkCause::kNoRoom, 1000), 1));
  EXPECT_FALSE(history.Note(EventOf(1, 1, ChunkCause::kNoRoom, 1999), 1));
  EXPECT_TRUE(history.Note(EventOf(1, 1, ChunkCause::kIndexFull, 1999), 1));
  EXPECT_TRUE(history.Note(EventOf(1, 1, ChunkCause::kNoRoom, 2000), 1));
  EXPECT_EQ(history.Last(KeyOf(1), 1, 1)->wall_ms, 2000);
}

TEST(ChunkHistory, ARefusalAfterTheDepartureIsTheAnswer) {
  ChunkHistory history;
  history.Note(EventOf(1, 1, ChunkCause::kNoRoom, 1), 1);
  history.Note(EventOf(1, 1, ChunkCause::kEvictedDram, 2), 1);
  EXPECT_EQ(history.Last(KeyOf(1), 1, 1)->cause, ChunkCause::kEvictedDram);
  history.Note(EventOf(1, 1, ChunkCause::kNoRoom, 2), 1);
  EXPECT_EQ(history.Last(KeyOf(1), 1, 1)->cause, ChunkCause::kNoRoom);
}

}  // namespace
}  // namespace terrace
