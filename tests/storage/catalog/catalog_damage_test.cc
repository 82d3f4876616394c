#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>

#include "storage/catalog/catalog_check.h"
#include "tests/storage/catalog/catalog_harness.h"

namespace terrace {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kRows = 1500;
constexpr uint32_t kFlips = 400;  // of each kind of folder

CatalogState ExpectedState() {
  CatalogState state;
  state.tenants = {{.name = "t", .id = 1, .blob = "blob"}};
  for (uint32_t id = 1; id <= 20; ++id) {
    state.namespaces.push_back({.tenant = 1,
                                .label = "space-" + std::to_string(100 + id),
                                .id = id,
                                .epoch = id,
                                .spec = std::string(300, 's')});
  }
  state.next_ids = {{.tenant = 1, .next_id = 21}};
  state.leases = {{.name = NumberedName(7), .until_wall_ns = 77}};
  state.endurance = {{.device = 0, .day = 0, .written_bytes = 5}};
  return state;
}

// A few tables; `live` also keeps all in the log, as a kill would.
void Fill(const std::string& folder, const std::string& live) {
  CatalogOptions options = SmallCatalog(folder);
  options.write_buffer_bytes = live.empty() ? 64 * kKiB : 8 * kMiB;
  const auto catalog = OpenCatalog(options);
  const CatalogState state = ExpectedState();
  for (uint64_t number = 0; number < kRows; ++number) {
    ASSERT_TRUE(catalog->Put(NumberedName(number), NumberedRow(number)).ok());
    ASSERT_TRUE(catalog->NoteGone(NumberedName(number), NumberedGone(number)).ok());
    if (number % 100 != 50 || number / 100 >= 3) continue;
    CatalogUpdate update;
    if (number / 100 == 0) {
      for (const NamespaceRow& row : state.namespaces) update.Put(row);
    } else if (number / 100 == 1) {
      update.Put(state.tenants[0]);
      update.Put(state.next_ids[0]);
    } else {
      update.Put(state.leases[0]);
      update.Put(state.endurance[0]);
    }
    ASSERT_TRUE(CommitNow(*catalog, std::move(update)).ok());
  }
  ASSERT_TRUE(FlushNow(*catalog).ok());
  if (!live.empty()) fs::copy(folder, live, fs::copy_options::recursive);
}

void FlipOneByte(const fs::path& file, uint64_t offset, uint8_t with) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(offset));
  const int byte = stream.get();
  stream.seekp(static_cast<std::streamoff>(offset));
  stream.put(static_cast<char>(byte ^ with));
}

// Never a wrong row; what is refused says what mends it.
struct Outcome {
  bool refused = false, unreadable = false, fewer = false;
};
Outcome Judge(const std::string& folder) {
  Outcome outcome;
  const Result<std::unique_ptr<Catalog>> catalog = Catalog::Open(SmallCatalog(folder));
  if (!catalog.ok()) {
    EXPECT_EQ(catalog.status().code(), StatusCode::kCorrupt) << catalog.status().ToString();
    EXPECT_NE(catalog.status().message().find("terrace fsck --rebuild"), std::string::npos);
    outcome.refused = true;
    return outcome;
  }
  const Result<CatalogState> state = (*catalog)->LoadState();
  EXPECT_TRUE(state.ok()) << state.status().ToString();
  if (!state.ok()) return outcome;
  const CatalogState expected = ExpectedState();
  EXPECT_EQ(state->tenants, expected.tenants);
  EXPECT_EQ(state->namespaces, expected.namespaces);
  EXPECT_EQ(state->next_ids, expected.next_ids);
  EXPECT_EQ(state->leases, expected.leases);
  EXPECT_EQ(state->endurance, expected.endurance);
  const LoadedChunks loaded = Load(**catalog);
  for (const auto& [number, row] : loaded.rows) {
    EXPECT_LT(number, kRows);
    EXPECT_EQ(row, NumberedRow(number));
  }
  outcome.fewer = loaded.rows.size() < kRows;
  outcome.unreadable = !loaded.status.ok();
  EXPECT_TRUE(loaded.status.ok() || loaded.status.code() == StatusCode::kCorrupt);
  return outcome;
}

void FlipMany(const std::string& source, const TestFolder& folder) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(source)) {
    if (entry.file_size() > 0) files.push_back(entry.path().filename());
  }
  std::sort(files.begin(), files.end());
  uint32_t refused = 0, unreadable = 0, fewer = 0;
  const std::string copy = folder.path("flipped");
  for (uint32_t flip = 0; flip < kFlips && !testing::Test::HasFailure(); ++flip) {
    fs::remove_all(copy);
    fs::copy(source, copy, fs::copy_options::recursive);
    const fs::path file = files[flip % files.size()];
    const uint64_t offset = random() % fs::file_size(copy / file);
    const auto with = static_cast<uint8_t>(1 + random() % 255);
    SCOPED_TRACE(file.string() + " at " + std::to_string(offset) + " with " + std::to_string(with));
    FlipOneByte(copy / file, offset, with);
    const Outcome outcome = Judge(copy);
    refused += outcome.refused ? 1 : 0;
    unreadable += outcome.unreadable ? 1 : 0;
    fewer += outcome.fewer ? 1 : 0;
  }
  std::printf("%u flips in %zu files: %u refused, %u unreadable later, %u with fewer rows\n",
              kFlips, files.size(), refused, unreadable, fewer);
  EXPECT_GT(refused, 0u);
}

TEST(CatalogDamage, FlipsInTablesAreNeverAWrongRow) {
  const TestFolder folder;
  Fill(folder.path("catalog"), "");
  ASSERT_FALSE(HasFatalFailure());
  FlipMany(folder.path("catalog"), folder);
}

TEST(CatalogDamage, FlipsInTheLogAreNeverAWrongRow) {
  const TestFolder folder;
  Fill(folder.path("catalog"), folder.path("live"));
  ASSERT_FALSE(HasFatalFailure());
  FlipMany(folder.path("live"), folder);
}

TEST(CatalogDamage, MissingFilesAreRefusedOrHarmless) {
  const TestFolder folder;
  Fill(folder.path("catalog"), folder.path("live"));
  ASSERT_FALSE(HasFatalFailure());
  for (const std::string& source : {folder.path("catalog"), folder.path("live")}) {
    for (const auto& entry : fs::directory_iterator(source)) {
      const std::string copy = folder.path("missing");
      const std::string name = entry.path().filename();
      SCOPED_TRACE(source + " without " + name);
      fs::remove_all(copy);
      fs::copy(source, copy, fs::copy_options::recursive);
      fs::remove(fs::path(copy) / name);
      const Outcome outcome = Judge(copy);
      const bool vital = name == "CURRENT" || name == "SYNCED" || name.starts_with("MANIFEST") ||
                         name.ends_with(".sst") ||
                         (name.ends_with(".log") && entry.file_size() > 0);
      EXPECT_EQ(outcome.refused, vital);
      EXPECT_FALSE(outcome.fewer);
    }
  }
}

TEST(CatalogDamage, DamagedOneIsSetAsideWhenAsked) {
  const TestFolder folder;
  const std::string path = folder.path("catalog");
  Fill(path, "");
  ASSERT_FALSE(HasFatalFailure());
  FlipOneByte(fs::path(path) / "CURRENT", 2, 0x55);
  CatalogOptions options = SmallCatalog(path);
  EXPECT_EQ(Catalog::Open(options).status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(CheckCatalog(path).status().code(), StatusCode::kCorrupt);
  EXPECT_FALSE(fs::exists(path + ".bad-1"));
  options.repair = CatalogRepair::kWhenCorrupt;
  const auto catalog = OpenCatalog(options);
  EXPECT_TRUE(catalog->opened().created);
  EXPECT_EQ(catalog->opened().set_aside, path + ".bad-1");
  EXPECT_TRUE(fs::exists(path + ".bad-1/CURRENT"));
  EXPECT_TRUE(Load(*catalog).rows.empty());
  EXPECT_TRUE(catalog->Put(NumberedName(1), NumberedRow(1)).ok());
  EXPECT_TRUE(FlushNow(*catalog).ok());
}

// Rows that the database vouches for and their own checksum does not.
TEST(CatalogDamage, RowsOfAnotherChecksumAreLeftOut) {
  const TestFolder folder;
  const std::string path = folder.path("catalog");
  Fill(path, "");
  ASSERT_FALSE(HasFatalFailure());
  const auto change = [&path](const std::string& key, const std::string& take_from) {
    rocksdb::DB* raw = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(rocksdb::Options(), path, &raw).ok());
    const std::unique_ptr<rocksdb::DB> db(raw);
    std::string value;
    ASSERT_TRUE(db->Get(rocksdb::ReadOptions(), take_from, &value).ok());
    if (key == take_from) value[3] = static_cast<char>(value[3] ^ 1);
    ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), key, value).ok());
  };
  const auto chunk = [](uint64_t number) {
    return catalog::NameKey(catalog::Kind::kChunk, NumberedName(number));
  };
  change(chunk(5), chunk(5));
  change(chunk(6), chunk(7));  // another row's value, whole
  {
    const LoadedChunks loaded = Load(*OpenCatalog(SmallCatalog(path)));
    EXPECT_TRUE(loaded.status.ok());
    EXPECT_EQ(loaded.damaged, 2u);
    EXPECT_EQ(loaded.rows.size(), kRows - 2);
    EXPECT_FALSE(loaded.rows.contains(5) || loaded.rows.contains(6));
  }
  const Result<CatalogReport> report = CheckCatalog(path);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->damaged, 2u);
  change(catalog::NextIdKey(1), catalog::NextIdKey(1));
  EXPECT_EQ(Catalog::Open(SmallCatalog(path)).status().code(), StatusCode::kCorrupt);
}

}  // namespace
}  // namespace terrace
