#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <string>
#include <vector>

#include "storage/codec/planes_variants.h"
#include "tests/storage/codec/synthetic_kv.h"

namespace terrace {
namespace {

using planes::Shape;
using planes::Variant;
using testing_kv::Bytes;
using testing_kv::Noise;

constexpr uint8_t kUntouched = 0xA5;
constexpr size_t kGuard = 64;

class Planes : public testing::TestWithParam<Variant> {
 protected:
  static void ExpectGuard(const Bytes& bytes, size_t used) {
    for (size_t i = used; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], kUntouched) << i - used;
  }
};

TEST(PlanesSplit, MovesTheSignToTheLowestBit) {
  const uint8_t elements[] = {0x34, 0xC2, 0xFF, 0x7F};  // 0xC234, 0x7FFF
  uint8_t high[2], low[2];
  planes::Chosen().split(elements, 2, high, low);
  EXPECT_EQ(high[0], 0x84);
  EXPECT_EQ(low[0], 0x69);
  EXPECT_EQ(high[1], 0xFF);
  EXPECT_EQ(low[1], 0xFE);
}

TEST_P(Planes, SplitAndMergeAsPortable) {
  for (size_t count = 0; count < 300; ++count) {
    for (const size_t off : {0u, 1u, 6u, 7u}) {
      const Bytes source = Noise(count * 8 + off, 2 * count + off);
      Bytes high(count + kGuard, kUntouched), low(count + kGuard, kUntouched);
      Bytes expected_high(count), expected_low(count);
      GetParam().split(source.data() + off, count, high.data(), low.data());
      planes::kPortable.split(source.data() + off, count, expected_high.data(),
                              expected_low.data());
      ExpectGuard(high, count);
      ExpectGuard(low, count);
      ASSERT_TRUE(std::equal(expected_high.begin(), expected_high.end(), high.begin()));
      ASSERT_TRUE(std::equal(expected_low.begin(), expected_low.end(), low.begin()));

      Bytes merged(2 * count + kGuard, kUntouched);
      GetParam().merge(high.data(), low.data(), count, merged.data());
      ExpectGuard(merged, 2 * count);
      ASSERT_TRUE(
          std::equal(source.begin() + static_cast<ptrdiff_t>(off), source.end(), merged.begin()));
    }
  }
}

TEST_P(Planes, HashesAsTheLibrary) {
  for (size_t count = 0; count < 3000; count += count < 300 ? 1 : 137) {
    const Bytes bytes = Noise(count, count + 1);
    EXPECT_EQ(GetParam().hash(bytes.data() + 1, count), XXH3_64bits(bytes.data() + 1, count));
  }
}

TEST_P(Planes, BasesAsPortable) {
  for (const Shape shape : {Shape{1, 1}, {1, 300}, {300, 1}, {17, 33}, {64, 192}, {700, 96}}) {
    SCOPED_TRACE(std::to_string(shape.rows) + " x " + std::to_string(shape.columns));
    const size_t bytes = shape.rows * shape.columns;
    const Bytes plane = Noise(bytes, bytes);
    std::vector<uint16_t> sums(shape.columns);
    Bytes by_column(shape.columns), by_row(shape.rows);
    Bytes expected_by_column(shape.columns), expected_by_row(shape.rows);
    GetParam().mean_columns(plane.data(), shape, sums.data(), by_column.data());
    GetParam().mean_rows(plane.data(), shape, by_row.data());
    planes::kPortable.mean_columns(plane.data(), shape, sums.data(), expected_by_column.data());
    planes::kPortable.mean_rows(plane.data(), shape, expected_by_row.data());
    EXPECT_EQ(by_column, expected_by_column);
    EXPECT_EQ(by_row, expected_by_row);

    Bytes moved = plane, expected = plane;
    GetParam().subtract_columns(moved.data(), shape, by_column.data());
    planes::kPortable.subtract_columns(expected.data(), shape, by_column.data());
    EXPECT_EQ(moved, expected);
    GetParam().add_columns(moved.data(), shape, by_column.data());
    EXPECT_EQ(moved, plane);
    GetParam().subtract_rows(moved.data(), shape, by_row.data());
    expected = plane;
    planes::kPortable.subtract_rows(expected.data(), shape, by_row.data());
    EXPECT_EQ(moved, expected);
    GetParam().add_rows(moved.data(), shape, by_row.data());
    EXPECT_EQ(moved, plane);
  }
}

TEST(PlanesMean, RoundsAndStaysWithinItsWidth) {
  const Shape shape{.rows = planes::kMeanRowsMax, .columns = 2};
  Bytes plane(shape.rows * shape.columns, 255);
  for (size_t row = 0; row < shape.rows; row += 2) plane[2 * row] = 0;
  uint16_t sums[2];
  uint8_t bases[2];
  planes::Chosen().mean_columns(plane.data(), shape, sums, bases);
  EXPECT_EQ(bases[0], 128);
  EXPECT_EQ(bases[1], 255);
}

TEST(PlanesVariants, PortableIsAlwaysThere) {
  EXPECT_STREQ(planes::SupportedVariants().back().name, "portable");
}

INSTANTIATE_TEST_SUITE_P(Every, Planes, testing::ValuesIn(planes::SupportedVariants()),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace terrace
