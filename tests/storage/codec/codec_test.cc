#include <gtest/gtest.h>

#include <set>
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
using testing_kv::Skewed;

Bytes operator+(Bytes left, const Bytes& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

uint32_t Size(const Bytes& bytes) { return static_cast<uint32_t>(bytes.size()); }

// What was encoded, and that it decodes whole and frame by frame.
struct Outcome {
  Encoded encoded;
  Bytes stored;
  std::vector<Frame> frames;
};

class Codec : public testing::TestWithParam<planes::Variant> {
 protected:
  Outcome RoundTrip(const Bytes& payload, const Geometry& geometry) {
    Outcome outcome;
    Bytes room(EncodedBytesMax(payload.size()));
    const Result<Encoded> encoded = encoder_.Encode(payload, geometry, room);
    EXPECT_TRUE(encoded.ok()) << encoded.status().ToString();
    if (!encoded.ok()) return outcome;
    outcome.encoded = *encoded;
    if (!encoded->kept) return outcome;
    room.resize(encoded->stored_bytes);
    EXPECT_LE(room.size() * 11, payload.size() * 10);

    Bytes back(payload.size(), 0xEE);
    const Status decoded = decoder_.Decode(room, back);
    EXPECT_TRUE(decoded.ok()) << decoded.ToString();
    EXPECT_EQ(back, payload);

    FrameTable table;
    EXPECT_TRUE(table
                    .Parse(std::span(room).first(std::min<size_t>(4096, room.size())),
                           Size(payload), encoded->stored_bytes)
                    .ok());
    EXPECT_EQ(table.checksum(), encoded->table_checksum);
    EXPECT_EQ(table.frame_count(), encoded->frame_count);
    for (uint32_t i = table.frame_count(); i-- > 0;) {  // any order will do
      const Frame& frame = table.frame(i);
      outcome.frames.insert(outcome.frames.begin(), frame);
      Bytes plain(frame.plain_bytes);
      EXPECT_TRUE(decoder_
                      .DecodeFrame(frame,
                                   std::span(room).subspan(frame.stored_offset, frame.stored_bytes),
                                   plain)
                      .ok());
      EXPECT_TRUE(std::equal(plain.begin(), plain.end(), payload.begin() + frame.plain_offset));
    }
    outcome.stored = std::move(room);
    return outcome;
  }

  Outcome RoundTrip(const Bytes& payload, ElementType element, std::vector<Layer> layers) {
    return RoundTrip(payload, {.element = element, .layers = layers});
  }

  Encoder encoder_{GetParam()};
  Decoder decoder_{GetParam()};
};

double Ratio(const Bytes& payload, const Outcome& outcome) {
  return static_cast<double>(payload.size()) / outcome.encoded.stored_bytes;
}

TEST_P(Codec, KvLayersGainByRole) {
  for (const ElementType element : {ElementType::kBf16, ElementType::kF16}) {
    const Bytes keys = Kv(1, element, 64, 192);
    const Bytes values = Kv(2, element, 64, 192);
    const Layer k{.bytes = Size(keys), .row_elements = 192, .role = LayerRole::kKeys};
    const Layer v{.bytes = Size(values), .row_elements = 192, .role = LayerRole::kValues};
    const Bytes payload = keys + keys + values + values;
    const Outcome outcome = RoundTrip(payload, element, {k, k, v, v});
    ASSERT_TRUE(outcome.encoded.kept);
    ASSERT_EQ(outcome.frames.size(), 4u);
    EXPECT_EQ(outcome.frames[1].method, FrameMethod::kColumnBases);
    EXPECT_EQ(outcome.frames[2].method, FrameMethod::kPlanes);
    EXPECT_LT(outcome.frames[1].stored_bytes, outcome.frames[2].stored_bytes);
    EXPECT_GT(Ratio(payload, outcome), element == ElementType::kBf16 ? 1.35 : 1.1);
  }
}

TEST_P(Codec, ChannelMajorTakesABaseARow) {
  const Bytes payload = Kv(3, ElementType::kBf16, 64, 192, LayerOrder::kChannelMajor);
  const Layer layer{.bytes = Size(payload),
                    .row_elements = 64,
                    .role = LayerRole::kKeys,
                    .order = LayerOrder::kChannelMajor};
  const Outcome outcome = RoundTrip(payload, ElementType::kBf16, {layer});
  ASSERT_TRUE(outcome.encoded.kept);
  EXPECT_EQ(outcome.frames[0].method, FrameMethod::kRowBases);
  EXPECT_GT(Ratio(payload, outcome), 1.4);
}

TEST_P(Codec, UnknownRoleTakesWhatIsSmaller) {
  const Bytes by_channel = Kv(4, ElementType::kBf16, 64, 192);
  Bytes alike(by_channel.size());  // every channel the same: bases would only cost
  const Bytes one = Kv(5, ElementType::kBf16, 64 * 192, 1);
  std::copy(one.begin(), one.end(), alike.begin());
  const Layer layer{.bytes = Size(alike), .row_elements = 192};
  const Outcome outcome = RoundTrip(by_channel + alike, ElementType::kBf16, {layer, layer});
  ASSERT_TRUE(outcome.encoded.kept);
  EXPECT_EQ(outcome.frames[0].method, FrameMethod::kColumnBases);
  EXPECT_EQ(outcome.frames[1].method, FrameMethod::kPlanes);
}

TEST_P(Codec, NoiseIsNotKept) {
  const Bytes payload = Noise(6, 300'000);
  EXPECT_FALSE(RoundTrip(payload, {}).encoded.kept);
  EXPECT_FALSE(RoundTrip(payload, {.element = ElementType::kBf16, .layers = {}}).encoded.kept);
}

TEST_P(Codec, NoisyLayerAmongOthersIsStoredRaw) {
  const Bytes kv = Kv(7, ElementType::kBf16, 256, 192);
  const Bytes noise = Noise(8, 5000);
  const Layer layer{.bytes = Size(kv), .row_elements = 192, .role = LayerRole::kKeys};
  const Outcome outcome =
      RoundTrip(kv + noise + kv, ElementType::kBf16, {layer, {.bytes = Size(noise)}, layer});
  ASSERT_TRUE(outcome.encoded.kept);
  EXPECT_EQ(outcome.frames[1].method, FrameMethod::kRaw);
}

TEST_P(Codec, OpaqueBytesAreCodedAsOnePlane) {
  const Bytes payload = Skewed(9, 3'000'001);
  const Outcome outcome = RoundTrip(payload, {});
  ASSERT_TRUE(outcome.encoded.kept);
  ASSERT_EQ(outcome.frames.size(), 3u);
  for (const Frame& frame : outcome.frames) EXPECT_EQ(frame.method, FrameMethod::kBytes);
  EXPECT_GT(Ratio(payload, outcome), 2);
}

TEST_P(Codec, ConstantPayloadsRoundTrip) {
  for (const uint8_t value : {uint8_t{0}, uint8_t{0x3F}, uint8_t{0xFF}}) {
    for (const ElementType element :
         {ElementType::kOpaque, ElementType::kBf16, ElementType::kF16}) {
      const Bytes payload(2'500'003, value);
      EXPECT_TRUE(RoundTrip(payload, {.element = element, .layers = {}}).encoded.kept);
      const Layer layer{.bytes = Size(payload), .row_elements = 128, .role = LayerRole::kKeys};
      EXPECT_TRUE(RoundTrip(payload, element, {layer}).encoded.kept);
    }
  }
}

TEST_P(Codec, OddSizesRoundTrip) {
  std::set<FrameMethod> seen;
  const std::vector<uint32_t> rows = {0, 1, 3, 16, 63, 192, 1'000'000};
  for (size_t bytes = 1; bytes < 9000; bytes += bytes < 140 ? 1 : 373) {
    for (const uint32_t row : rows) {
      Bytes payload = Kv(bytes, ElementType::kBf16, static_cast<uint32_t>(bytes), 1);
      payload.resize(bytes);
      for (const LayerOrder order : {LayerOrder::kTokenMajor, LayerOrder::kChannelMajor}) {
        const Layer layer{
            .bytes = Size(payload), .row_elements = row, .role = LayerRole::kKeys, .order = order};
        const Outcome outcome = RoundTrip(payload, ElementType::kBf16, {layer});
        for (const Frame& frame : outcome.frames) seen.insert(frame.method);
      }
    }
  }
  EXPECT_TRUE(seen.contains(FrameMethod::kPlanes));
}

TEST_P(Codec, RowsOfEveryWidthRoundTrip) {
  for (const uint32_t row : {1u, 7u, 16u, 31u, 100u, 512u}) {
    const Bytes payload = Kv(row, ElementType::kBf16, 16 * 41, row) + Bytes(1, 0x77);
    for (const LayerOrder order : {LayerOrder::kTokenMajor, LayerOrder::kChannelMajor}) {
      const Layer layer{
          .bytes = Size(payload), .row_elements = row, .role = LayerRole::kKeys, .order = order};
      RoundTrip(payload, ElementType::kBf16, {layer});
    }
  }
}

TEST_P(Codec, LargeLayerIsCutAtRows) {
  const uint32_t channels = 1000;
  const Bytes payload = Kv(11, ElementType::kBf16, 1500, channels);
  const Layer layer{.bytes = Size(payload), .row_elements = channels, .role = LayerRole::kKeys};
  const Outcome outcome = RoundTrip(payload, ElementType::kBf16, {layer});
  ASSERT_TRUE(outcome.encoded.kept);
  ASSERT_EQ(outcome.frames.size(), 3u);
  for (const Frame& frame : outcome.frames) {
    EXPECT_EQ(frame.plain_offset % (2 * channels), 0u);
    EXPECT_LE(frame.plain_bytes, shm::kFrameBytesMax);
    EXPECT_EQ(frame.method, FrameMethod::kColumnBases);
  }
}

TEST_P(Codec, LargestPayloadRoundTrips) {
  const Bytes layer_bytes = Kv(12, ElementType::kBf16, 512, 1024);
  Bytes payload;
  while (payload.size() < shm::kPayloadBytesMax) payload = payload + layer_bytes;
  ASSERT_EQ(payload.size(), shm::kPayloadBytesMax);
  const Outcome outcome = RoundTrip(payload, {.element = ElementType::kBf16, .layers = {}});
  EXPECT_TRUE(outcome.encoded.kept);
  EXPECT_EQ(outcome.frames.size(), 16u);
}

TEST_P(Codec, MostFramesFitTheTable) {
  std::vector<Layer> layers(shm::kFrameCountMax, Layer{.bytes = 2048});
  EXPECT_TRUE(RoundTrip(Bytes(2048 * layers.size()), ElementType::kBf16, layers).encoded.kept);
  layers.push_back({.bytes = 2048});
  EXPECT_FALSE(RoundTrip(Bytes(2048 * layers.size()), ElementType::kBf16, layers).encoded.kept);
}

TEST_P(Codec, WrongGeometryIsInvalid) {
  const Bytes payload(1000);
  Bytes room(EncodedBytesMax(2 * size_t{shm::kPayloadBytesMax}));
  const auto code = [&](std::span<const uint8_t> bytes, std::vector<Layer> layers) {
    const Result<Encoded> encoded =
        encoder_.Encode(bytes, {.element = ElementType::kBf16, .layers = layers}, room);
    return encoded.ok() ? StatusCode::kOk : encoded.status().code();
  };
  EXPECT_EQ(code(payload, {{.bytes = 999}}), StatusCode::kInvalid);
  EXPECT_EQ(code(payload, {{.bytes = 1001}}), StatusCode::kInvalid);
  EXPECT_EQ(code(payload, {{.bytes = 1000}, {.bytes = 0}}), StatusCode::kInvalid);
  EXPECT_EQ(code(payload, {{.bytes = UINT32_MAX}, {.bytes = 1001}}), StatusCode::kInvalid);
  EXPECT_EQ(code({}, {}), StatusCode::kInvalid);
  EXPECT_EQ(code(Bytes(shm::kPayloadBytesMax + 1), {}), StatusCode::kInvalid);
  EXPECT_EQ(code(payload, {{.bytes = 1000}}), StatusCode::kOk);
}

TEST_P(Codec, EncodesAsPortable) {
  Encoder portable(planes::kPortable);
  const Bytes payload = Kv(13, ElementType::kBf16, 333, 96);
  for (const LayerRole role : {LayerRole::kUnknown, LayerRole::kKeys, LayerRole::kValues}) {
    const Layer layer{.bytes = Size(payload), .row_elements = 96, .role = role};
    const Geometry geometry{.element = ElementType::kBf16, .layers = {&layer, 1}};
    Bytes ours(EncodedBytesMax(payload.size())), theirs(ours.size());
    const Result<Encoded> mine = encoder_.Encode(payload, geometry, ours);
    const Result<Encoded> other = portable.Encode(payload, geometry, theirs);
    ASSERT_TRUE(mine.ok() && other.ok());
    ASSERT_EQ(mine->stored_bytes, other->stored_bytes);
    ours.resize(mine->stored_bytes);
    theirs.resize(other->stored_bytes);
    EXPECT_EQ(ours, theirs);
  }
}

INSTANTIATE_TEST_SUITE_P(Every, Codec, testing::ValuesIn(planes::SupportedVariants()),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace terrace
