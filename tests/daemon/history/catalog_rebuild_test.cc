#include "daemon/history/catalog_rebuild.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "storage/catalog/catalog.h"
#include "storage/engine/chunk_history.h"

namespace terrace {
namespace {

std::vector<std::string> OneNamespace() {
  NamespaceInfo info;
  info.spec.label = "demo";
  info.ref.id = 7;
  info.epoch = 2;
  return EncodeNamespaces(8, {&info, 1});
}

class CatalogRebuildTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string made = (std::filesystem::temp_directory_path() / "terrace-rebuild-XXXXXX").string();
    ASSERT_NE(mkdtemp(made.data()), nullptr);
    folder = made;
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  std::string at() const { return (folder / "catalog").string(); }
  std::unique_ptr<Catalog> Open() const {
    CatalogOptions options;
    options.folder = at();
    Result<std::unique_ptr<Catalog>> opened = Catalog::Open(options);
    EXPECT_TRUE(opened.ok()) << opened.status().ToString();
    return opened.ok() ? *std::move(opened) : nullptr;
  }
  CatalogRebuilt Rebuild() const {
    Result<std::unique_ptr<CatalogRebuild>> rebuild = CatalogRebuild::Begin(JudgeCatalog(at()));
    EXPECT_TRUE(rebuild.ok()) << rebuild.status().ToString();
    EXPECT_TRUE((*rebuild)->Add("default", OneNamespace()).ok());
    const Result<CatalogRebuilt> rebuilt = (*rebuild)->End();
    EXPECT_TRUE(rebuilt.ok()) << rebuilt.status().ToString();
    return rebuilt.ok() ? *rebuilt : CatalogRebuilt();
  }

  std::filesystem::path folder;
};

TEST_F(CatalogRebuildTest, SaysWhatTheLogSays) {
  const CatalogRebuilt rebuilt = Rebuild();
  EXPECT_EQ(rebuilt.namespaces, 1u);
  EXPECT_EQ(rebuilt.tenants, 1u);
  EXPECT_TRUE(rebuilt.set_aside.empty());
  const auto catalog = Open();
  const Result<CatalogState> state = catalog->LoadState();
  ASSERT_TRUE(state.ok());
  ASSERT_EQ(state->namespaces.size(), 1u);
  EXPECT_EQ(state->namespaces[0].label, "demo");
  EXPECT_EQ(state->namespaces[0].epoch, 2u);
  ASSERT_EQ(state->next_ids.size(), 1u);
  EXPECT_EQ(state->next_ids[0].next_id, 8u);
}

TEST_F(CatalogRebuildTest, AGoodOneKeepsItsHistory) {
  const shm::ChunkKey key = shm::ChunkKey::FromBytes("key", 3, 0);
  const ChunkName name{.tenant = LabelTag("default"), .namespace_id = LabelTag("demo"), .key = key};
  ASSERT_TRUE(Open()->NoteGone(name, {.reason = 1, .bytes = 9, .wall_ns = 5}).ok());
  EXPECT_TRUE(Rebuild().set_aside.empty());
  EXPECT_EQ(Open()->stats().history_rows, 1u);
}

TEST_F(CatalogRebuildTest, ADamagedOneIsSetAside) {
  Open();
  for (const auto& file : std::filesystem::directory_iterator(at())) {
    const std::string name = file.path().filename().string();
    if (name.starts_with("MANIFEST-")) std::ofstream(file.path()) << "nothing";
  }
  const CatalogVerdict found = JudgeCatalog(at());
  EXPECT_TRUE(found.there && found.damaged) << found.why.ToString();
  const CatalogRebuilt rebuilt = Rebuild();
  EXPECT_TRUE(std::filesystem::is_directory(rebuilt.set_aside));
  EXPECT_FALSE(JudgeCatalog(at()).damaged);
}

TEST_F(CatalogRebuildTest, NoneIsNoDamage) {
  const CatalogVerdict verdict = JudgeCatalog(at());
  EXPECT_FALSE(verdict.there || verdict.damaged);
  EXPECT_TRUE(verdict.why.ok());
  EXPECT_FALSE(std::filesystem::exists(at()));
}

}  // namespace
}  // namespace terrace
