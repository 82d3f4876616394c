#include "daemon/history/write_ledger.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "storage/catalog/catalog.h"

namespace terrace {
namespace {

constexpr int64_t kDayMs = 86'400'000;
constexpr int64_t kNoonMs = 20'000 * kDayMs + kDayMs / 2;

class WriteLedgerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string made = (std::filesystem::temp_directory_path() / "terrace-ledger-XXXXXX").string();
    ASSERT_NE(mkdtemp(made.data()), nullptr);
    folder = made;
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  std::unique_ptr<Catalog> Open() {
    CatalogOptions options;
    options.folder = (folder / "catalog").string();
    Result<std::unique_ptr<Catalog>> opened = Catalog::Open(options);
    EXPECT_TRUE(opened.ok()) << opened.status().ToString();
    return opened.ok() ? *std::move(opened) : nullptr;
  }

  std::filesystem::path folder;
};

TEST_F(WriteLedgerTest, BytesAreCountedOverRestartsByTenantAndDay) {
  {
    const auto catalog = Open();
    WriteLedger ledger(catalog.get());
    EXPECT_EQ(ledger.WrittenOn("default", kNoonMs), 0u);
    ledger.Note("default", 100, kNoonMs);
    ledger.Note("default", 150, kNoonMs + 1);
    ledger.Note("search", 7, kNoonMs);
    ledger.Note("default", 150, kNoonMs + 2);  // nothing new
  }
  {
    const auto catalog = Open();
    WriteLedger ledger(catalog.get());
    EXPECT_EQ(ledger.WrittenOn("default", kNoonMs), 150u);
    EXPECT_EQ(ledger.WrittenOn("search", kNoonMs), 7u);
    EXPECT_EQ(ledger.WrittenOn("default", kNoonMs + kDayMs), 0u);
    ledger.Note("default", 30, kNoonMs);  // of the second life
    ledger.Note("default", 50, kNoonMs + kDayMs);
  }
  const auto catalog = Open();
  const WriteLedger ledger(catalog.get());
  EXPECT_EQ(ledger.WrittenOn("default", kNoonMs), 180u);
  EXPECT_EQ(ledger.WrittenOn("default", kNoonMs + kDayMs), 20u);
  EXPECT_EQ(ledger.WrittenEver("default"), 200u);
}

TEST_F(WriteLedgerTest, OldDaysAreForgottenAndTheTotalIsKept) {
  {
    const auto catalog = Open();
    WriteLedger ledger(catalog.get());
    ledger.Note("default", 10, kNoonMs);
    ledger.Note("default", 30, kNoonMs + int64_t{kLedgerDaysMax} * kDayMs);
  }
  const auto catalog = Open();
  const WriteLedger ledger(catalog.get());
  EXPECT_EQ(ledger.WrittenOn("default", kNoonMs), 0u);
  EXPECT_EQ(ledger.WrittenEver("default"), 30u);
}

TEST(WriteLedger, KeepsNothingWithoutACatalog) {
  WriteLedger ledger(nullptr);
  ledger.Note("default", 10, kNoonMs);
  EXPECT_EQ(ledger.WrittenOn("default", kNoonMs), 0u);
}

TEST(WriteLedger, OverdrawnIsWhatTheDayHasNotEarnedYet) {
  EXPECT_EQ(OverdrawnBytes(600, 1000, kNoonMs), 100u);
  EXPECT_EQ(OverdrawnBytes(500, 1000, kNoonMs), 0u);
  EXPECT_EQ(OverdrawnBytes(300, 1000, kNoonMs), 0u);
  EXPECT_EQ(OverdrawnBytes(300, 1000, 20'000 * kDayMs), 300u);
}

}  // namespace
}  // namespace terrace
