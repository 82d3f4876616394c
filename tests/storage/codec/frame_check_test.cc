#include "storage/codec/frame_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/storage/codec/synthetic_kv.h"

namespace terrace {
namespace {

using testing_kv::Bytes;

class FrameCheckTest : public testing::Test {
 protected:
  void SetUp() override {
    payload_ = testing_kv::Kv(5, ElementType::kBf16, 64, 2048);
    const std::vector<Layer> layers(4, Layer{.bytes = 64 * 1024, .row_elements = 512});
    out_.resize(EncodedBytesMax(payload_.size()));
    Encoder encoder;
    encoded_ = *encoder.Encode(payload_, {.element = ElementType::kBf16, .layers = layers}, out_);
    ASSERT_TRUE(encoded_.kept);
    out_.resize(encoded_.stored_bytes);
  }
  void Begin() {
    check_.Begin(static_cast<uint32_t>(payload_.size()), encoded_.stored_bytes,
                 encoded_.table_checksum);
  }
  Status TakeAll(size_t piece) {
    Begin();
    for (size_t at = 0; at < out_.size(); at += piece) {
      const Status taken =
          check_.Take(std::span(out_).subspan(at, std::min(piece, out_.size() - at)));
      if (!taken.ok()) return taken;
    }
    return Status::Ok();
  }

  Bytes payload_, out_;
  Encoded encoded_;
  FrameCheck check_;
};

TEST_F(FrameCheckTest, TakesWhatTheEncoderWroteInPiecesOfAnyLength) {
  for (const size_t piece : {size_t{4096}, size_t{5000}, size_t{65536}, out_.size()}) {
    EXPECT_TRUE(TakeAll(piece).ok()) << piece;
    EXPECT_TRUE(check_.whole());
  }
  Begin();
  ASSERT_TRUE(check_.Take(std::span(out_).first(8192)).ok());
  EXPECT_FALSE(check_.whole());
}

TEST_F(FrameCheckTest, AnyFlippedBitIsCorrupt) {
  std::mt19937_64 random(9);
  for (int i = 0; i < 2000; ++i) {
    const size_t table = shm::FrameTableBytes(encoded_.frame_count);
    const size_t byte = random() % (i % 2 == 0 ? table : out_.size());
    const auto bit = static_cast<uint8_t>(1 << random() % 8);
    out_[byte] ^= bit;
    EXPECT_EQ(TakeAll(i % 3 == 0 ? out_.size() : 4096).code(), StatusCode::kCorrupt) << byte;
    out_[byte] ^= bit;
  }
  EXPECT_TRUE(TakeAll(4096).ok());
}

// A table that is right in itself, under the header of another life of its place.
TEST_F(FrameCheckTest, AnotherRecordsTableIsCorrupt) {
  check_.Begin(static_cast<uint32_t>(payload_.size()), encoded_.stored_bytes,
               encoded_.table_checksum ^ 1);
  EXPECT_EQ(check_.Take(out_).code(), StatusCode::kCorrupt);
  check_.Begin(static_cast<uint32_t>(payload_.size()) - 1, encoded_.stored_bytes,
               encoded_.table_checksum);
  EXPECT_EQ(check_.Take(out_).code(), StatusCode::kCorrupt);
}

}  // namespace
}  // namespace terrace
