#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "storage/catalog/catalog_fit.h"
#include "tests/storage/catalog/catalog_harness.h"

namespace terrace {
namespace {

// As du counts it, files that go meanwhile or not.
uint64_t DiskBytes(const std::string& folder) {
  uint64_t bytes = 0;
  std::error_code error;
  using Iterator = std::filesystem::recursive_directory_iterator;
  for (Iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    struct stat at {};
    if (stat(it->path().c_str(), &at) == 0) bytes += static_cast<uint64_t>(at.st_blocks) * 512;
  }
  return bytes;
}

class CatalogSize : public testing::TestWithParam<uint64_t> {};

// Several times what it keeps, faster than a daemon would, and opened anew in between.
TEST_P(CatalogSize, FolderStaysWithinItsBound) {
  const TestFolder folder;
  const CatalogOptions options = CatalogOptionsFor(folder.path("catalog"), GetParam());
  const uint64_t rows = options.history_rows_max * 2;
  uint64_t most = 0, number = 0;
  for (int life = 0; life < 3; ++life) {
    const auto catalog = OpenCatalog(options);
    for (const uint64_t until = number + rows; number < until; ++number) {
      const ChunkName name = NumberedName(number);
      while (!catalog->NoteGone(name, NumberedGone(number)).ok()) {
        ASSERT_TRUE(FlushNow(*catalog).ok());
        most = std::max(most, DiskBytes(options.folder));
      }
      if (number % 1000 == 0) most = std::max(most, DiskBytes(options.folder));
    }
    EXPECT_GE(catalog->stats().history_rows, options.history_rows_max * 3 / 4);
  }
  EXPECT_LE(most, GetParam());
  EXPECT_GE(most, GetParam() / 8) << "the bound is far from what is seen: it can be lowered";
  RecordProperty("most", static_cast<int>(most / kKiB));
}

INSTANTIATE_TEST_SUITE_P(Bounds, CatalogSize, testing::Values(kCatalogFolderBytesMin, 64 * kMiB));

TEST(CatalogFit, KeepsAMillionEventsAtMost) {
  EXPECT_EQ(CatalogOptionsFor("f", UINT64_MAX).history_rows_max, 1'000'000u);
  EXPECT_EQ(CatalogOptionsFor("f", kCatalogFolderBytesMax).history_rows_max, 1'000'000u);
  const CatalogOptions least = CatalogOptionsFor("f", 0);
  EXPECT_EQ(least.write_buffer_bytes, 128 * kKiB);
  EXPECT_GE(least.history_rows_max, 10'000u);
}

}  // namespace
}  // namespace terrace
