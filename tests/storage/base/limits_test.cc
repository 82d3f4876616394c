#include "storage/base/limits.h"

#include <gtest/gtest.h>

#include "proto/shm/record_layout.h"

namespace terrace {
namespace {

// A record's place is 12 bits of segment and 18 bits of 4 KiB units.
TEST(Limits, EveryPlaceFitsItsBits) {
  EXPECT_LE(kSegmentCountMax - 1, (1u << 12) - 1);
  EXPECT_LE(kSegmentBytesMax / kPageBytes - 1, (1u << 18) - 1);
}

TEST(Limits, LargestChunkFitsHalfTheLargestSegment) {
  EXPECT_LE(shm::RecordBytes(kChunkBytesMax), kSegmentBytesMax / 2);
  EXPECT_LE(shm::RecordBytes(kChunkBytesMin), kSegmentBytesMin / 2);
}

TEST(Limits, LeafTableHoldsTheLargestChunk) {
  EXPECT_EQ(shm::LeafCount(kChunkBytesMax), shm::kLeafCountMax);
  EXPECT_EQ(shm::LeafCount(1), 1u);
  EXPECT_EQ(shm::LeafCount(shm::kLeafBytes), 1u);
  EXPECT_EQ(shm::LeafCount(shm::kLeafBytes + 1), 2u);
}

TEST(Limits, RecordsKeepTheirAlignment) {
  for (const uint64_t bytes : {uint64_t{1}, uint64_t{4096}, uint64_t{4097}, kMiB + 5}) {
    EXPECT_EQ(shm::RecordBytes(bytes) % shm::kRecordAlignment, 0u) << bytes;
    EXPECT_GE(shm::RecordBytes(bytes), bytes + shm::kRecordHeaderBytes) << bytes;
    EXPECT_LT(shm::RecordBytes(bytes), bytes + shm::kRecordHeaderBytes + kPageBytes) << bytes;
  }
  EXPECT_EQ(kSegmentBytesMin % kHugePageBytes, 0u);
  EXPECT_EQ(kHugePageBytes % shm::kRecordAlignment, 0u);
}

TEST(Limits, LargestChunkFitsAMessageAndAMessageItsConnection) {
  EXPECT_LE(kChunkBytesMax, kMessagePayloadBytesMax);
  EXPECT_LE(kMessagePayloadBytesMax, kConnectionPayloadBytesMax);
}

TEST(Limits, LargestRequestCanPinItsKeys) { EXPECT_LE(kBatchKeysMax, kPinCount); }

TEST(Limits, PutDeadlineIsARequestDeadline) {
  EXPECT_LE(kPutDeadlineNsDefault, kRequestDeadlineNsMax);
}

}  // namespace
}  // namespace terrace
