#include "storage/catalog/catalog.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "storage/catalog/catalog_check.h"
#include "storage/catalog/catalog_marks.h"
#include "tests/storage/catalog/catalog_harness.h"

namespace terrace {
namespace {

CatalogState SomeState() {
  CatalogState state;
  state.tenants = {{.name = "a", .id = 1, .blob = "limits"}, {.name = "b", .id = 2, .blob = ""}};
  state.namespaces = {
      {.tenant = 1, .label = "llama", .id = 4, .epoch = 2, .spec = std::string(3000, 's')},
      {.tenant = 2, .label = "llama", .id = 4, .epoch = 0, .spec = ""}};
  state.next_ids = {{.tenant = 1, .next_id = 5}, {.tenant = 2, .next_id = 9}};
  state.leases = {{.name = NumberedName(1, 4), .until_wall_ns = 1'700'000'000'000'000'000}};
  state.endurance = {{.device = 0, .day = kEnduranceTotal, .written_bytes = 1ull << 45},
                     {.device = 0, .day = 20'000, .written_bytes = 77}};
  return state;
}

CatalogUpdate UpdateOf(const CatalogState& state) {
  CatalogUpdate update;
  for (const TenantRow& row : state.tenants) update.Put(row);
  for (const NamespaceRow& row : state.namespaces) update.Put(row);
  for (const NextIdRow& row : state.next_ids) update.Put(row);
  for (const LeaseRow& row : state.leases) update.Put(row);
  for (const EnduranceRow& row : state.endurance) update.Put(row);
  return update;
}

void ExpectState(const Catalog& catalog, const CatalogState& expected) {
  const Result<CatalogState> state = catalog.LoadState();
  ASSERT_TRUE(state.ok()) << state.status().ToString();
  EXPECT_EQ(state->tenants, expected.tenants);
  EXPECT_EQ(state->namespaces, expected.namespaces);
  EXPECT_EQ(state->next_ids, expected.next_ids);
  EXPECT_EQ(state->leases, expected.leases);
  EXPECT_EQ(state->endurance, expected.endurance);
}

TEST(Catalog, RowsComeBackAfterAClose) {
  const TestFolder folder;
  const CatalogOptions options = SmallCatalog(folder.path("catalog"));
  {
    const auto catalog = OpenCatalog(options);
    EXPECT_TRUE(catalog->opened().created);
    for (uint64_t number = 0; number < 3000; ++number) {
      ASSERT_TRUE(catalog->Put(NumberedName(number), NumberedRow(number)).ok());
    }
    for (uint64_t number = 0; number < 3000; number += 2) {
      ASSERT_TRUE(catalog->Erase(NumberedName(number)).ok());
    }
    ASSERT_TRUE(catalog->Put(NumberedName(1), NumberedRow(1, 5)).ok());
    ASSERT_TRUE(CommitNow(*catalog, UpdateOf(SomeState())).ok());
    ExpectState(*catalog, SomeState());
    EXPECT_TRUE(catalog->Close().ok());
  }
  const auto catalog = OpenCatalog(options);
  EXPECT_FALSE(catalog->opened().created);
  EXPECT_EQ(catalog->opened().damage, "");
  ExpectState(*catalog, SomeState());
  const LoadedChunks loaded = Load(*catalog);
  EXPECT_TRUE(loaded.status.ok());
  EXPECT_EQ(loaded.rows.size(), 1500u);
  EXPECT_EQ(loaded.damaged, 0u);
  for (const auto& [number, row] : loaded.rows) {
    EXPECT_EQ(number % 2, 1u);
    EXPECT_EQ(row, NumberedRow(number, number == 1 ? 5 : 0));
  }
}

TEST(Catalog, ErasedStateIsGone) {
  const TestFolder folder;
  const auto catalog = OpenCatalog(SmallCatalog(folder.path("catalog")));
  ASSERT_TRUE(CommitNow(*catalog, UpdateOf(SomeState())).ok());
  CatalogUpdate update;
  update.EraseTenant("b");
  update.EraseNamespace(2, "llama");
  update.EraseLease(NumberedName(1, 4));
  update.EraseEndurance(0, 20'000);
  ASSERT_TRUE(CommitNow(*catalog, std::move(update)).ok());
  CatalogState expected = SomeState();
  expected.tenants.pop_back();
  expected.namespaces.pop_back();
  expected.leases.clear();
  expected.endurance.pop_back();
  ExpectState(*catalog, expected);
}

TEST(Catalog, EndOfANamespaceErasesItsChunksOnly) {
  const TestFolder folder;
  const auto catalog = OpenCatalog(SmallCatalog(folder.path("catalog")));
  for (uint64_t number = 0; number < 300; ++number) {
    const auto space = static_cast<uint32_t>(1 + number % 3);
    ASSERT_TRUE(catalog->Put(NumberedName(number, space), NumberedRow(number)).ok());
  }
  CatalogUpdate update;
  update.EraseChunks(3, 2);
  update.EraseChunks(4, 1);  // another tenant's
  ASSERT_TRUE(CommitNow(*catalog, std::move(update)).ok());
  const LoadedChunks loaded = Load(*catalog);
  EXPECT_EQ(loaded.rows.size(), 200u);
  for (const auto& [number, row] : loaded.rows) EXPECT_NE(number % 3, 1u);
}

TEST(Catalog, OutOfBoundsIsRefused) {
  const TestFolder folder;
  const auto catalog = OpenCatalog(SmallCatalog(folder.path("catalog")));
  CatalogUpdate spec;
  spec.Put(NamespaceRow{.tenant = 1,
                        .label = "l",
                        .id = 1,
                        .epoch = 0,
                        .spec = std::string(kCatalogBlobBytesMax + 1, 's')});
  EXPECT_EQ(CommitNow(*catalog, std::move(spec)).code(), StatusCode::kInvalid);
  ChunkRow row = NumberedRow(1);
  row.attributes.resize(kCatalogAttributeBytesMax + 1);
  EXPECT_EQ(catalog->Put(NumberedName(1), row).code(), StatusCode::kInvalid);
  EXPECT_EQ(catalog->Erase(ChunkName{}).code(), StatusCode::kInvalid);
  EXPECT_EQ(catalog->stats().dropped_invalid, 2u);
  CatalogOptions none = SmallCatalog(folder.path("other"));
  none.queue_rows_max = 0;
  EXPECT_EQ(Catalog::Open(none).status().code(), StatusCode::kInvalid);
}

// Holds the catalog's thread inside a callback.
class Hold {
 public:
  explicit Hold(Catalog& catalog) {
    std::promise<void> held;
    const Status queued = catalog.Flush([this, &held](const Status&) {
      held.set_value();
      release_.get_future().wait();
    });
    EXPECT_TRUE(queued.ok());
    held.get_future().wait();
  }
  void Release() { release_.set_value(); }

 private:
  std::promise<void> release_;
};

TEST(Catalog, FullQueueDropsAndCounts) {
  const TestFolder folder;
  CatalogOptions options = SmallCatalog(folder.path("catalog"));
  options.queue_rows_max = 100;
  const auto catalog = OpenCatalog(options);
  catalog->BeginRebuild();
  catalog->EndRebuild();
  ASSERT_TRUE(FlushNow(*catalog).ok());
  EXPECT_TRUE(catalog->stats().chunks_complete);
  Hold hold(*catalog);
  uint64_t taken = 0;
  for (uint64_t number = 0; number < 150; ++number) {
    const Status put = catalog->Put(NumberedName(number), NumberedRow(number));
    EXPECT_EQ(put.code(), number < 100 ? StatusCode::kOk : StatusCode::kBusy);
    taken += put.ok() ? 1 : 0;
  }
  EXPECT_EQ(catalog->queue_room(), 0u);
  EXPECT_EQ(catalog->stats().dropped_full, 50u);
  EXPECT_FALSE(catalog->stats().chunks_complete);
  hold.Release();
  ASSERT_TRUE(FlushNow(*catalog).ok());
  EXPECT_EQ(catalog->queue_room(), 100u);
  EXPECT_EQ(Load(*catalog).rows.size(), taken);
  EXPECT_TRUE(catalog->Put(NumberedName(149), NumberedRow(149)).ok());
}

TEST(Catalog, AttributesThatWaitAreBounded) {
  const TestFolder folder;
  CatalogOptions options = SmallCatalog(folder.path("catalog"));
  options.queue_bytes_max = 2 * kCatalogAttributeBytesMax;
  const auto catalog = OpenCatalog(options);
  Hold hold(*catalog);
  ChunkRow row = NumberedRow(0);
  row.attributes.assign(kCatalogAttributeBytesMax, 'x');
  EXPECT_TRUE(catalog->Put(NumberedName(0), row).ok());
  EXPECT_TRUE(catalog->Put(NumberedName(1), row).ok());
  EXPECT_EQ(catalog->Put(NumberedName(2), row).code(), StatusCode::kBusy);
  hold.Release();
  ASSERT_TRUE(FlushNow(*catalog).ok());
  EXPECT_TRUE(catalog->Put(NumberedName(2), row).ok());
}

TEST(Catalog, WaitingCommitsAreBounded) {
  const TestFolder folder;
  const auto catalog = OpenCatalog(SmallCatalog(folder.path("catalog")));
  Hold hold(*catalog);
  std::atomic<uint32_t> done = 0;
  uint32_t queued = 0;
  for (uint32_t number = 0; number < kCatalogTasksMax + 10; ++number) {
    CatalogUpdate update;
    update.Put(NextIdRow{.tenant = 1, .next_id = number + 1});
    const Status status = catalog->Commit(std::move(update), [&done](const Status& written) {
      if (written.ok()) ++done;
    });
    queued += status.ok() ? 1 : 0;
    EXPECT_EQ(status.code(), number < kCatalogTasksMax ? StatusCode::kOk : StatusCode::kBusy);
  }
  EXPECT_EQ(queued, kCatalogTasksMax);
  hold.Release();
  EXPECT_TRUE(catalog->Close().ok());
  EXPECT_EQ(done, queued);  // in their order, by one sync
}

TEST(Catalog, CommitsAndRowsKeepTheirOrder) {
  const TestFolder folder;
  const CatalogOptions options = SmallCatalog(folder.path("catalog"));
  const auto catalog = OpenCatalog(options);
  Hold hold(*catalog);
  ASSERT_TRUE(catalog->Put(NumberedName(1), NumberedRow(1)).ok());
  CatalogUpdate update;
  update.EraseChunks(3, 1);
  ASSERT_TRUE(catalog->Commit(std::move(update), [](const Status&) {}).ok());
  ASSERT_TRUE(catalog->Put(NumberedName(2), NumberedRow(2)).ok());
  hold.Release();
  ASSERT_TRUE(FlushNow(*catalog).ok());
  const LoadedChunks loaded = Load(*catalog);
  EXPECT_EQ(loaded.rows.size(), 1u);
  EXPECT_TRUE(loaded.rows.contains(2));
}

TEST(Catalog, CompletenessOutlivesACleanCloseOnly) {
  const TestFolder folder;
  const CatalogOptions options = SmallCatalog(folder.path("catalog"));
  {
    const auto catalog = OpenCatalog(options);
    EXPECT_FALSE(catalog->opened().chunks_complete);
    ASSERT_TRUE(catalog->Put(NumberedName(0), NumberedRow(0)).ok());
    catalog->BeginRebuild();
    for (uint64_t number = 1; number < 1000; ++number) {
      ASSERT_TRUE(catalog->Put(NumberedName(number), NumberedRow(number)).ok());
    }
    EXPECT_FALSE(catalog->stats().chunks_complete);
    catalog->EndRebuild();
    ASSERT_TRUE(FlushNow(*catalog).ok());
    EXPECT_TRUE(catalog->stats().chunks_complete);
  }
  const std::string killed = folder.path("killed");
  {
    const auto catalog = OpenCatalog(options);
    EXPECT_TRUE(catalog->opened().chunks_complete);
    EXPECT_EQ(Load(*catalog).rows.size(), 999u);
    EXPECT_FALSE(Load(*catalog).rows.contains(0));
    // What a kill would leave behind.
    std::filesystem::copy(options.folder, killed, std::filesystem::copy_options::recursive);
  }
  EXPECT_TRUE(OpenCatalog(options)->opened().chunks_complete);
  EXPECT_FALSE(OpenCatalog(SmallCatalog(killed))->opened().chunks_complete);
}

TEST(Catalog, SecondOpenerIsToldTheHolder) {
  const TestFolder folder;
  const CatalogOptions options = SmallCatalog(folder.path("catalog"));
  const auto catalog = OpenCatalog(options);
  const Status second = Catalog::Open(options).status();
  EXPECT_EQ(second.code(), StatusCode::kBusy);
  EXPECT_NE(second.message().find("pid " + std::to_string(getpid())), std::string::npos)
      << second.message();
  EXPECT_EQ(CheckCatalog(options.folder).status().code(), StatusCode::kBusy);
}

TEST(Catalog, NewerFormatIsRefusedAndLeftAlone) {
  const TestFolder folder;
  CatalogOptions options = SmallCatalog(folder.path("catalog"));
  {
    const auto catalog = OpenCatalog(options);
    ASSERT_TRUE(CommitNow(*catalog, UpdateOf(SomeState())).ok());
  }
  {
    Result<std::unique_ptr<RowStore>> store = RowStore::Open({.folder = options.folder});
    ASSERT_TRUE(store.ok());
    RowBatch batch;
    batch.Put(VersionKey(), VersionValue(kCatalogVersion + 1));
    ASSERT_TRUE((*store)->Write(batch, true).ok());
    ASSERT_TRUE((*store)->Close().ok());
  }
  options.repair = CatalogRepair::kWhenCorrupt;
  const Status refused = Catalog::Open(options).status();
  EXPECT_EQ(refused.code(), StatusCode::kInvalid);
  EXPECT_NE(refused.message().find("format 2"), std::string::npos) << refused.message();
  EXPECT_FALSE(std::filesystem::exists(options.folder + ".bad-1"));
  EXPECT_EQ(CheckCatalog(options.folder).status().code(), StatusCode::kInvalid);
}

TEST(Catalog, HalfMadeOneIsMadeAnew) {
  const TestFolder folder;
  const CatalogOptions options = SmallCatalog(folder.path("catalog"));
  std::filesystem::create_directory(options.folder + ".new");
  std::ofstream(options.folder + ".new/CURRENT") << "MANIFEST-000001\n";
  const auto catalog = OpenCatalog(options);
  EXPECT_TRUE(catalog->opened().created);
  EXPECT_FALSE(std::filesystem::exists(options.folder + ".new"));
}

TEST(Catalog, SetAsideAsAskedKeepsTheNewestFew) {
  const TestFolder folder;
  CatalogOptions options = SmallCatalog(folder.path("catalog"));
  options.set_aside_max = 2;
  OpenCatalog(options).reset();
  options.repair = CatalogRepair::kAlways;
  for (uint32_t round = 1; round <= 4; ++round) {
    const auto catalog = OpenCatalog(options);
    EXPECT_TRUE(catalog->opened().created);
    EXPECT_EQ(catalog->opened().set_aside, options.folder + ".bad-" + std::to_string(round));
  }
  for (uint32_t round = 1; round <= 4; ++round) {
    EXPECT_EQ(std::filesystem::exists(options.folder + ".bad-" + std::to_string(round)), round > 2);
  }
}

TEST(Catalog, ClosedAnswersUnavailable) {
  const TestFolder folder;
  const auto catalog = OpenCatalog(SmallCatalog(folder.path("catalog")));
  ASSERT_TRUE(catalog->Close().ok());
  EXPECT_EQ(catalog->Put(NumberedName(1), NumberedRow(1)).code(), StatusCode::kUnavailable);
  EXPECT_EQ(CommitNow(*catalog, UpdateOf(SomeState())).code(), StatusCode::kUnavailable);
  EXPECT_TRUE(catalog->Close().ok());
}

TEST(Catalog, CheckCountsEveryRow) {
  const TestFolder folder;
  const CatalogOptions options = SmallCatalog(folder.path("catalog"));
  EXPECT_EQ(CheckCatalog(options.folder).status().code(), StatusCode::kNotFound);
  {
    const auto catalog = OpenCatalog(options);
    for (uint64_t number = 0; number < 100; ++number) {
      ASSERT_TRUE(catalog->Put(NumberedName(number), NumberedRow(number)).ok());
      ASSERT_TRUE(catalog->NoteGone(NumberedName(number), NumberedGone(number)).ok());
    }
    ASSERT_TRUE(CommitNow(*catalog, UpdateOf(SomeState())).ok());
  }
  const Result<CatalogReport> report = CheckCatalog(options.folder);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->chunks, 100u);
  EXPECT_EQ(report->history, 100u);
  EXPECT_EQ(report->leases, 1u);
  // State without its lease, version, commit and history marks.
  EXPECT_EQ(report->others, 8u + 3u);
  EXPECT_EQ(report->damaged, 0u);
}

TEST(Catalog, ManyThreadsMayCall) {
  const TestFolder folder;
  const auto catalog = OpenCatalog(SmallCatalog(folder.path("catalog")));
  std::atomic<uint64_t> put = 0, committed = 0;
  std::vector<std::thread> threads;
  for (uint32_t thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&, thread] {
      for (uint64_t at = 0; at < 2000; ++at) {
        const uint64_t number = at * 3 + thread;
        if (catalog->Put(NumberedName(number), NumberedRow(number)).ok()) ++put;
        if (at % 100 == 0) {
          CatalogUpdate update;
          update.Put(LeaseRow{.name = NumberedName(number), .until_wall_ns = 1});
          const Status queued = catalog->Commit(
              std::move(update), [&committed](const Status& ok) { committed += ok.ok() ? 1 : 0; });
          EXPECT_TRUE(queued.ok());
          static_cast<void>(catalog->stats());
          static_cast<void>(catalog->queue_room());
        }
      }
    });
  }
  EXPECT_TRUE(Load(*catalog).status.ok());
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(FlushNow(*catalog).ok());
  EXPECT_EQ(committed, 60u);
  EXPECT_EQ(Load(*catalog).rows.size(), put);
  EXPECT_EQ(catalog->stats().chunk_rows_written, put);
}

}  // namespace
}  // namespace terrace
