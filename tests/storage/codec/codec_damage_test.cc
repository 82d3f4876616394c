#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "storage/codec/decoder.h"
#include "storage/codec/encoder.h"
#include "tests/storage/codec/synthetic_kv.h"

namespace terrace {
namespace {

using shm::FrameMethod;
using testing_kv::Bytes;
using testing_kv::Kv;
using testing_kv::Noise;

uint32_t Size(const Bytes& bytes) { return static_cast<uint32_t>(bytes.size()); }

void Append(Bytes* to, const Bytes& bytes) { to->insert(to->end(), bytes.begin(), bytes.end()); }

// One frame of every method but kBytes, which has a payload of its own.
class CodecDamage : public testing::Test {
 protected:
  void SetUp() override {
    seed_ = std::random_device()();
    RecordProperty("seed", std::to_string(seed_));
    std::printf("seed %lu\n", static_cast<unsigned long>(seed_));
    random_.seed(seed_);

    const Bytes keys = Kv(1, ElementType::kBf16, 48, 64);
    const Bytes turned = Kv(2, ElementType::kBf16, 48, 64, LayerOrder::kChannelMajor);
    const Bytes noise = Noise(3, 333);
    const Layer k{.bytes = Size(keys), .row_elements = 64, .role = LayerRole::kKeys};
    const Layer t{.bytes = Size(turned),
                  .row_elements = 48,
                  .role = LayerRole::kKeys,
                  .order = LayerOrder::kChannelMajor};
    const Layer v{.bytes = Size(keys), .row_elements = 64, .role = LayerRole::kValues};
    for (const Bytes& part : {keys, turned, keys, noise}) Append(&payload_, part);
    Encode(ElementType::kBf16, {k, t, v, {.bytes = Size(noise)}});
    ASSERT_TRUE(table_.Parse(stored_, Size(payload_), Size(stored_)).ok());
    ASSERT_EQ(table_.frame(0).method, FrameMethod::kColumnBases);
    ASSERT_EQ(table_.frame(1).method, FrameMethod::kRowBases);
    ASSERT_EQ(table_.frame(2).method, FrameMethod::kPlanes);
    ASSERT_EQ(table_.frame(3).method, FrameMethod::kRaw);
  }

  void Encode(ElementType element, const std::vector<Layer>& layers) {
    stored_.assign(EncodedBytesMax(payload_.size()), 0);
    const Result<Encoded> encoded =
        encoder_.Encode(payload_, {.element = element, .layers = layers}, stored_);
    ASSERT_TRUE(encoded.ok() && encoded->kept);
    stored_.resize(encoded->stored_bytes);
  }

  // The exact span on the heap, so that a sanitizer sees the first byte past it.
  Status Decode(const Bytes& stored, Bytes* payload) {
    const Bytes exact(stored.begin(), stored.end());
    payload->assign(payload_.size(), 0xEE);
    return decoder_.Decode(exact, *payload);
  }

  // As a forger would: frame `index` of `stored` gets the hash that goes with its bytes.
  static void Forge(Bytes* stored, uint32_t index, const Frame& frame) {
    const uint64_t hash = XXH3_64bits(stored->data() + frame.stored_offset, frame.stored_bytes);
    uint8_t* const entry = stored->data() + shm::FrameTableBytes(index);
    std::memcpy(entry + offsetof(shm::FrameEntry, hash), &hash, sizeof(hash));
    Reseal(stored);
  }

  static void Reseal(Bytes* stored) {
    shm::FrameTableHead head;
    std::memcpy(&head, stored->data(), sizeof(head));
    head.checksum =
        FrameTableChecksum(std::span(*stored).first(shm::FrameTableBytes(head.frame_count)));
    std::memcpy(stored->data(), &head, sizeof(head));
  }

  uint64_t seed_ = 0;
  std::mt19937_64 random_;
  Encoder encoder_;
  Decoder decoder_;
  FrameTable table_;
  Bytes payload_, stored_;
};

TEST_F(CodecDamage, TenThousandFlippedBitsAreAllSeen) {
  Bytes back;
  for (int i = 0; i < 10'000; ++i) {
    Bytes damaged = stored_;
    const size_t flips = 1 + random_() % 3;
    for (size_t flip = 0; flip < flips; ++flip) {
      damaged[random_() % damaged.size()] ^= static_cast<uint8_t>(1u << random_() % 8);
    }
    if (damaged == stored_) continue;  // flipped back
    ASSERT_EQ(Decode(damaged, &back).code(), StatusCode::kCorrupt) << "round " << i;
  }
  ASSERT_TRUE(Decode(stored_, &back).ok());
  EXPECT_EQ(back, payload_);
}

TEST_F(CodecDamage, EveryLengthBelowIsSeen) {
  Bytes back;
  for (size_t length = 0; length < stored_.size(); ++length) {
    const Bytes cut(stored_.begin(), stored_.begin() + static_cast<ptrdiff_t>(length));
    ASSERT_EQ(Decode(cut, &back).code(), StatusCode::kCorrupt) << length;
  }
  Bytes longer = stored_;
  longer.push_back(0);
  EXPECT_EQ(Decode(longer, &back).code(), StatusCode::kCorrupt);
}

// Without the hashes' help the decoder may answer other bytes, but never leaves its spans.
TEST_F(CodecDamage, FlipsUnderForgedHashesStayInBounds) {
  Bytes back;
  size_t refused = 0;
  for (int i = 0; i < 10'000; ++i) {
    Bytes damaged = stored_;
    const auto index = static_cast<uint32_t>(random_() % 3);
    const Frame& frame = table_.frame(index);
    // Two in three into the coded bytes' front, where lengths and tables lie.
    const size_t span = i % 3 == 0 ? frame.stored_bytes : frame.stored_bytes / 2;
    const size_t at = frame.stored_offset + frame.stored_bytes - 1 - random_() % span;
    damaged[at] ^= static_cast<uint8_t>(1u << random_() % 8);
    Forge(&damaged, index, frame);
    refused += Decode(damaged, &back).ok() ? 0 : 1;
  }
  EXPECT_GT(refused, 0u);
}

TEST_F(CodecDamage, ForgedRowsAreRefused) {
  const Frame& frame = table_.frame(0);
  for (const uint32_t rows : {0u, 1u, 7u, 3071u, 3072u, 3073u, 0x80000000u, UINT32_MAX}) {
    Bytes damaged = stored_;
    std::memcpy(damaged.data() + frame.stored_offset, &rows, sizeof(rows));
    Forge(&damaged, 0, frame);
    Bytes back;
    EXPECT_EQ(Decode(damaged, &back).code(), StatusCode::kCorrupt) << rows;
  }
}

// 64 zeros and as many bases as the rows ask for: only the rows are wrong.
TEST_F(CodecDamage, RowsThatDoNotDivideOrAskForManyBasesAreRefused) {
  const auto decode = [&](uint8_t row_elements) {
    Bytes stored(4 + 64);
    stored[0] = row_elements;
    const auto content = static_cast<uint8_t>(64 + row_elements);
    const auto raw_block = static_cast<uint8_t>(row_elements << 3 | 1);
    Append(&stored, {0x28, 0xB5, 0x2F, 0xFD, 0x20, content, 0x02, 0x02, 0, 0, raw_block, 0, 0});
    Append(&stored, Bytes(row_elements, 0x7F));
    const Frame frame{.method = FrameMethod::kColumnBases,
                      .plain_offset = 0,
                      .plain_bytes = 128,
                      .stored_offset = 0,
                      .stored_bytes = Size(stored),
                      .hash = XXH3_64bits(stored.data(), stored.size())};
    Bytes plain(128);
    return decoder_.DecodeFrame(frame, stored, plain).code();
  };
  EXPECT_EQ(decode(2), StatusCode::kOk);
  EXPECT_EQ(decode(4), StatusCode::kOk);
  EXPECT_EQ(decode(3), StatusCode::kCorrupt);
  EXPECT_EQ(decode(8), StatusCode::kCorrupt);
}

TEST_F(CodecDamage, ForgedMethodsStayInBounds) {
  for (uint32_t index = 0; index < table_.frame_count(); ++index) {
    for (uint32_t method = 0; method < 256; ++method) {
      Bytes damaged = stored_;
      uint8_t* const packed =
          damaged.data() + shm::FrameTableBytes(index) + offsetof(shm::FrameEntry, packed);
      if (packed[3] == method) continue;
      packed[3] = static_cast<uint8_t>(method);
      Reseal(&damaged);
      Bytes back;
      EXPECT_EQ(Decode(damaged, &back).code(), StatusCode::kCorrupt) << index << ": " << method;
    }
  }
}

// zstd frames that are valid, but not this frame's: a longer content, two frames, an old format.
TEST_F(CodecDamage, OtherZstdFramesAreRefused) {
  payload_.assign(4000, 0);
  Encode(ElementType::kOpaque, {});
  ASSERT_TRUE(table_.Parse(stored_, Size(payload_), Size(stored_)).ok());
  const Frame frame = table_.frame(0);
  ASSERT_EQ(frame.method, FrameMethod::kBytes);
  const std::span<const uint8_t> coded =
      std::span(stored_).subspan(frame.stored_offset, frame.stored_bytes);
  const auto decode = [&](Bytes bytes, uint32_t plain_bytes) {
    Frame forged = frame;
    forged.stored_bytes = Size(bytes);
    forged.plain_bytes = plain_bytes;
    forged.hash = XXH3_64bits(bytes.data(), bytes.size());
    Bytes plain(plain_bytes);
    return decoder_.DecodeFrame(forged, bytes, plain).code();
  };
  const Bytes whole(coded.begin(), coded.end());
  EXPECT_EQ(decode(whole, 4000), StatusCode::kOk);
  EXPECT_EQ(decode(whole, 3999), StatusCode::kCorrupt);
  EXPECT_EQ(decode(whole, 4001), StatusCode::kCorrupt);
  Bytes twice = whole;
  Append(&twice, whole);
  EXPECT_EQ(decode(twice, 8000), StatusCode::kCorrupt);
  for (uint8_t version = 0x1E; version < 0x28; ++version) {  // of the magic 0xFD2FB528
    Bytes old = whole;
    old[0] = version;
    EXPECT_EQ(decode(old, 4000), StatusCode::kCorrupt);
  }
}

}  // namespace
}  // namespace terrace
