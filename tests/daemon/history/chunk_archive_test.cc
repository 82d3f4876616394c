#include "daemon/history/chunk_archive.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <future>

#include "storage/engine/chunk_history.h"

namespace terrace {
namespace {

shm::ChunkKey KeyOf(uint64_t id) { return shm::ChunkKey::FromBytes(&id, sizeof id, 0); }

ChunkEvent EventOf(uint64_t id, const char* label, ChunkCause cause, int64_t wall_ms) {
  return {.key = KeyOf(id),
          .label_tag = LabelTag(label),
          .namespace_id = 1,
          .payload_bytes = 4096,
          .cause = cause,
          .wall_ms = wall_ms};
}

std::optional<ArchivedEvent> Last(const ChunkArchive& archive, const char* tenant,
                                  const char* label, uint64_t id) {
  std::promise<std::optional<ArchivedEvent>> found;
  archive.FindLast(tenant, label, KeyOf(id),
                   [&found](std::optional<ArchivedEvent> event) { found.set_value(event); });
  return found.get_future().get();
}

class ChunkArchiveTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string made = (std::filesystem::temp_directory_path() / "terrace-archive-XXXXXX").string();
    ASSERT_NE(mkdtemp(made.data()), nullptr);
    folder = made;
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  std::filesystem::path folder;
};

TEST_F(ChunkArchiveTest, AnswersByLabelAfterARestart) {
  const std::string at = (folder / "catalog").string();
  {
    const auto archive = ChunkArchive::Open(at);
    archive->Note("default", EventOf(1, "ns", ChunkCause::kEvictedDram, 1000));
    archive->Note("default", EventOf(1, "ns", ChunkCause::kEvictedNvme, 2000));
    archive->Note("search", EventOf(1, "ns", ChunkCause::kCleared, 3000));
    EXPECT_EQ(Last(*archive, "default", "ns", 1)->cause, ChunkCause::kEvictedNvme);
  }
  const auto archive = ChunkArchive::Open(at);
  const std::optional<ArchivedEvent> last = Last(*archive, "default", "ns", 1);
  ASSERT_TRUE(last.has_value());
  EXPECT_EQ(last->cause, ChunkCause::kEvictedNvme);
  EXPECT_EQ(last->wall_ms, 2000);
  EXPECT_EQ(last->payload_bytes, 4096u);
  EXPECT_EQ(Last(*archive, "search", "ns", 1)->cause, ChunkCause::kCleared);
  EXPECT_FALSE(Last(*archive, "default", "other", 1).has_value());
  EXPECT_FALSE(Last(*archive, "default", "ns", 2).has_value());
  EXPECT_EQ(archive->stats().since_ms, 1000);
  EXPECT_EQ(archive->stats().rows, 3u);
  EXPECT_EQ(archive->stats().why_off, "");
}

TEST_F(ChunkArchiveTest, WithoutAFolderItKeepsNothing) {
  const auto archive = ChunkArchive::Open("");
  archive->Note("default", EventOf(1, "ns", ChunkCause::kEvictedDram, 1000));
  EXPECT_FALSE(Last(*archive, "default", "ns", 1).has_value());
  EXPECT_EQ(archive->stats().folder, "");
}

TEST_F(ChunkArchiveTest, OneThatCannotBeOpenedSaysWhyAndKeepsNothing) {
  std::ofstream(folder / "file") << "no folder";
  const auto archive = ChunkArchive::Open((folder / "file" / "catalog").string());
  archive->Note("default", EventOf(1, "ns", ChunkCause::kEvictedDram, 1000));
  EXPECT_FALSE(Last(*archive, "default", "ns", 1).has_value());
  EXPECT_NE(archive->stats().why_off, "");
}

TEST_F(ChunkArchiveTest, OneInUseIsLeftToItsOwner) {
  const std::string at = (folder / "catalog").string();
  const auto owner = ChunkArchive::Open(at);
  const auto second = ChunkArchive::Open(at);
  EXPECT_NE(second->stats().why_off.find("busy"), std::string::npos) << second->stats().why_off;
  owner->Note("default", EventOf(1, "ns", ChunkCause::kEvictedDram, 1000));
  EXPECT_TRUE(Last(*owner, "default", "ns", 1).has_value());
}

TEST_F(ChunkArchiveTest, AfterCloseNothingIsTakenOrAnswered) {
  const auto archive = ChunkArchive::Open((folder / "catalog").string());
  archive->Close();
  archive->Note("default", EventOf(1, "ns", ChunkCause::kEvictedDram, 1000));
  EXPECT_FALSE(Last(*archive, "default", "ns", 1).has_value());
}

}  // namespace
}  // namespace terrace
