#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "storage/base/fd.h"
#include "storage/catalog/catalog_check.h"
#include "tests/storage/catalog/catalog_harness.h"

namespace terrace {
namespace {

// The process' own small file system, mounted before it has a second thread.
class CatalogFull : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TestFolder();
    small_ = folder_->path("small");
    mounted_ = mkdir(small_.c_str(), 0700) == 0 && unshare(CLONE_NEWNS) == 0 &&
               mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
               mount("none", small_.c_str(), "tmpfs", 0, "size=16m") == 0;
  }
  static void TearDownTestSuite() {
    if (mounted_) umount2(small_.c_str(), MNT_DETACH);
    delete folder_;
  }
  void SetUp() override {
    if (!mounted_) GTEST_SKIP() << "no right to mount a small file system";
  }

  // Takes all the room there is, but for `left` bytes.
  static void FillUp(uint64_t left) {
    const UniqueFd ballast(open((small_ + "/ballast").c_str(), O_CREAT | O_WRONLY, 0600));
    const auto room = static_cast<uint64_t>(std::filesystem::space(small_).available);
    ASSERT_GT(room, left);
    ASSERT_EQ(posix_fallocate(ballast.get(), 0, static_cast<off_t>(room - left)), 0);
  }
  static void Drain() { std::filesystem::remove(small_ + "/ballast"); }

  static CatalogOptions Options(const std::string& name) {
    CatalogOptions options = SmallCatalog(small_ + "/" + name);
    options.write_buffer_bytes = 256 * kKiB;
    options.log_bytes_max = kMiB;
    return options;
  }

  static inline TestFolder* folder_ = nullptr;
  static inline std::string small_;
  static inline bool mounted_ = false;
};

Status CommitNumber(Catalog& catalog, uint32_t number) {
  CatalogUpdate update;
  update.Put(NextIdRow{.tenant = 1, .next_id = number});
  update.Put(NamespaceRow{.tenant = 1,
                          .label = "space-" + std::to_string(number),
                          .id = number,
                          .epoch = 0,
                          .spec = std::string(8000, 's')});
  return CommitNow(catalog, std::move(update));
}

// Commits until one is refused; the last that was not.
uint32_t CommitUntilFull(Catalog& catalog, uint32_t from) {
  Status committed;
  uint32_t number = from;
  for (; number < from + 10'000; ++number) {
    committed = CommitNumber(catalog, number);
    if (!committed.ok()) break;
  }
  EXPECT_EQ(committed.code(), StatusCode::kNoSpace) << committed.ToString();
  return number - 1;
}

void ExpectCommits(const Catalog& catalog, uint32_t acknowledged) {
  const Result<CatalogState> state = catalog.LoadState();
  ASSERT_TRUE(state.ok()) << state.status().ToString();
  EXPECT_GE(state->next_ids.front().next_id, acknowledged);
  EXPECT_GE(state->namespaces.size(), acknowledged);
}

TEST_F(CatalogFull, KeptRoomIsNotTouchedAndItGoesOnOnceThereIsMore) {
  CatalogOptions options = Options("kept");
  options.free_bytes_min = 4 * kMiB;
  constexpr uint32_t kAcknowledged = 1;
  {
    const auto catalog = OpenCatalog(options);
    ASSERT_TRUE(CommitNumber(*catalog, kAcknowledged).ok());
    FillUp(3 * kMiB);
    EXPECT_EQ(CommitNumber(*catalog, kAcknowledged + 1).code(), StatusCode::kNoSpace);
    for (uint64_t row = 0; row < 2000; ++row) {
      EXPECT_TRUE(catalog->Put(NumberedName(row), NumberedRow(row)).ok());
    }
    EXPECT_EQ(FlushNow(*catalog).code(), StatusCode::kNoSpace);
    EXPECT_EQ(catalog->stats().dropped_failed, 2000u);
    EXPECT_NE(catalog->stats().error, "");
    ExpectCommits(*catalog, kAcknowledged);
    EXPECT_GE(std::filesystem::space(small_).available, 3 * kMiB);
  }
  {
    const auto catalog = OpenCatalog(options);  // all the same
    ExpectCommits(*catalog, kAcknowledged);
    EXPECT_EQ(CommitNumber(*catalog, kAcknowledged + 1).code(), StatusCode::kNoSpace);
    Drain();
    EXPECT_TRUE(CommitNumber(*catalog, kAcknowledged + 1).ok());
    EXPECT_TRUE(catalog->Put(NumberedName(5000), NumberedRow(5000)).ok());
    EXPECT_TRUE(FlushNow(*catalog).ok());
    EXPECT_EQ(catalog->stats().error, "");
    EXPECT_TRUE(catalog->Close().ok());
  }
  const auto catalog = OpenCatalog(options);
  ExpectCommits(*catalog, kAcknowledged + 1);
  EXPECT_TRUE(Load(*catalog).rows.contains(5000));
}

// Someone else took the room that was kept.
TEST_F(CatalogFull, FullDiskLosesNothingThatWasAcknowledged) {
  for (uint64_t left = 200 * kKiB; left <= 800 * kKiB; left += 300 * kKiB) {
    SCOPED_TRACE(left);
    const CatalogOptions options = Options("full");
    const std::string copy = folder_->path("copy");
    uint32_t acknowledged = 0;
    {
      const auto catalog = OpenCatalog(options);
      FillUp(left);
      acknowledged = CommitUntilFull(*catalog, 1);
      for (uint64_t row = 0; row < 2000; ++row) {
        EXPECT_TRUE(catalog->Put(NumberedName(row), NumberedRow(row)).ok());
      }
      // Either may have found room again by itself.
      static_cast<void>(FlushNow(*catalog));
      std::filesystem::remove_all(copy);
      std::filesystem::copy(options.folder, copy, std::filesystem::copy_options::recursive);
      Drain();
      EXPECT_TRUE(CommitNumber(*catalog, acknowledged + 2).ok());
      ExpectCommits(*catalog, acknowledged + 1);
      EXPECT_TRUE(catalog->Put(NumberedName(5000), NumberedRow(5000)).ok());
      EXPECT_TRUE(FlushNow(*catalog).ok());
      EXPECT_TRUE(catalog->Close().ok());
    }
    {
      const auto catalog = OpenCatalog(options);
      ExpectCommits(*catalog, acknowledged + 1);
      EXPECT_TRUE(Load(*catalog).rows.contains(5000));
    }
    ExpectCommits(*OpenCatalog(SmallCatalog(copy)), acknowledged);  // as a kill would leave it
    std::filesystem::remove_all(options.folder);
  }
}

TEST_F(CatalogFull, NoRoomToMakeOneSaysSo) {
  FillUp(8 * kKiB);
  const Status opened = Catalog::Open(SmallCatalog(small_ + "/none")).status();
  EXPECT_EQ(opened.code(), StatusCode::kNoSpace) << opened.ToString();
  Drain();
  EXPECT_TRUE(Catalog::Open(SmallCatalog(small_ + "/none")).ok());
}

}  // namespace
}  // namespace terrace
