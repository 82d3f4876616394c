#include "storage/catalog/catalog_check.h"

#include <memory>
#include <optional>

#include "storage/catalog/catalog.h"
#include "storage/catalog/catalog_folder.h"
#include "storage/catalog/catalog_marks.h"

namespace terrace {
namespace {

template <typename Row>
Status ReadKind(const RowStore& store, catalog::Kind kind, const char* what,
                std::vector<Row>* rows) {
  RowStore::ScanCounts counts;
  bool parsed = true;
  Status scanned = store.Scan(
      catalog::KindStart(kind), catalog::KindEnd(kind), RowStore::Extent::kFew,
      [&](std::string_view key, std::string_view value) {
        Row row;
        parsed = parsed && catalog::Parse(key, value, &row);
        rows->push_back(std::move(row));
        return true;
      },
      &counts);
  if (!scanned.ok()) return scanned;
  if (counts.damaged == 0 && parsed) return Status::Ok();
  return Status(StatusCode::kCorrupt, std::string("a row of its ") + what + " is damaged");
}

void CountRow(std::string_view key, CatalogReport* report) {
  switch (static_cast<catalog::Kind>(key.empty() ? 0 : key.front())) {
    case catalog::Kind::kChunk: ++report->chunks; return;
    case catalog::Kind::kLease: ++report->leases; return;
    case catalog::Kind::kHistory: ++report->history; return;
    case catalog::Kind::kEndurance:
    case catalog::Kind::kGenerations:
    case catalog::Kind::kNextId:
    case catalog::Kind::kMark:
    case catalog::Kind::kNamespace:
    case catalog::Kind::kTenant:
    case catalog::Kind::kVersion: ++report->others; return;
  }
  ++report->damaged;
}

}  // namespace

Status CheckCatalogVersion(const RowStore& store) {
  const Result<std::string> value = store.Get(VersionKey());
  if (!value.ok() && value.status().code() == StatusCode::kIoError) return value.status();
  const std::optional<uint32_t> version = value.ok() ? ParseVersion(*value) : std::nullopt;
  if (!version || *version == 0) {
    return Status(StatusCode::kCorrupt, "it names no version of its format");
  }
  if (*version <= kCatalogVersion) return Status::Ok();
  return Status(StatusCode::kInvalid,
                "the catalog has format " + std::to_string(*version) +
                    ", this program knows up to " + std::to_string(kCatalogVersion) +
                    ": use the newer program, or `terrace fsck --rebuild` to make it anew");
}

Result<CommitsFound> CheckCommits(const RowStore& store, CatalogFolder* folder) {
  const Result<std::string> mark = store.Get(CommitMarkKey());
  if (!mark.ok() && mark.status().code() != StatusCode::kNotFound) return mark.status();
  const std::optional<uint64_t> number = mark.ok() ? ParseCommitMark(*mark) : 0;
  if (!number) return Status(StatusCode::kCorrupt, "the number of the last commit is damaged");
  const Result<uint64_t> synced = folder->OpenSynced();
  if (!synced.ok() && synced.status().code() == StatusCode::kNotFound) {
    return Status(StatusCode::kCorrupt, synced.status().message());
  }
  if (!synced.ok() && synced.status().code() != StatusCode::kCorrupt) return synced.status();
  if (synced.ok() && *synced > *number) {
    return Status(StatusCode::kCorrupt, "synced rows are missing: the last commit found is " +
                                            std::to_string(*number) + " of " +
                                            std::to_string(*synced));
  }
  return CommitsFound{.number = *number, .mark_damaged = !synced.ok()};
}

Result<CatalogState> ReadCatalogState(const RowStore& store) {
  CatalogState state;
  Status read = ReadKind(store, catalog::Kind::kTenant, "tenants", &state.tenants);
  if (read.ok()) read = ReadKind(store, catalog::Kind::kNamespace, "namespaces", &state.namespaces);
  if (read.ok()) read = ReadKind(store, catalog::Kind::kNextId, "next ids", &state.next_ids);
  if (read.ok()) read = ReadKind(store, catalog::Kind::kLease, "leases", &state.leases);
  if (read.ok()) read = ReadKind(store, catalog::Kind::kEndurance, "endurance", &state.endurance);
  if (!read.ok()) return read;
  return state;
}

Result<CatalogReport> CheckCatalog(const std::string& folder) {
  Result<CatalogFolder> held = CatalogFolder::Take(folder);
  if (!held.ok()) return held.status();
  const Result<bool> occupied = held->Occupied();
  if (!occupied.ok()) return occupied.status();
  if (!*occupied) return Status(StatusCode::kNotFound, "no catalog in " + held->path());
  Result<std::unique_ptr<RowStore>> store =
      RowStore::Open({.folder = held->path(), .mode = RowStoreOptions::Mode::kRead});
  if (!store.ok()) return store.status();
  if (Status version = CheckCatalogVersion(**store); !version.ok()) return version;
  const Result<CommitsFound> commits = CheckCommits(**store, &*held);
  if (!commits.ok()) return commits.status();
  if (const Result<CatalogState> state = ReadCatalogState(**store); !state.ok()) {
    return state.status();
  }
  CatalogReport report;
  RowStore::ScanCounts counts;
  Status scanned = (*store)->Scan(
      std::string_view("\0", 1), std::string_view("\xff", 1), RowStore::Extent::kMany,
      [&report](std::string_view key, std::string_view) {
        CountRow(key, &report);
        return true;
      },
      &counts);
  if (!scanned.ok()) return scanned;
  report.damaged += counts.damaged + (commits->mark_damaged ? 1 : 0);
  report.disk_bytes = (*store)->disk_bytes();
  return report;
}

}  // namespace terrace
