#include "daemon/history/catalog_rebuild.h"

#include <filesystem>
#include <future>
#include <utility>

#include "storage/catalog/catalog.h"
#include "storage/catalog/catalog_check.h"
#include "storage/engine/chunk_history.h"

namespace terrace {

CatalogVerdict JudgeCatalog(const std::string& folder) {
  CatalogVerdict verdict;
  verdict.folder = folder;
  std::error_code error;
  if (!std::filesystem::exists(folder, error)) return verdict;
  const Result<CatalogReport> report = CheckCatalog(folder);
  if (report.status().code() == StatusCode::kNotFound) return verdict;
  verdict.there = true;
  if (report.ok()) {
    verdict.rows = report->chunks + report->leases + report->history + report->others;
    verdict.damaged_rows = report->damaged;
    verdict.disk_bytes = report->disk_bytes;
    verdict.damaged = report->damaged > 0;
    if (verdict.damaged) {
      verdict.why =
          Status(StatusCode::kCorrupt, std::to_string(report->damaged) + " rows are damaged");
    }
    return verdict;
  }
  verdict.why = report.status();
  verdict.damaged = report.status().code() == StatusCode::kCorrupt;
  return verdict;
}

CatalogRebuild::CatalogRebuild(std::unique_ptr<Catalog> catalog) : catalog_(std::move(catalog)) {}
CatalogRebuild::~CatalogRebuild() = default;

Result<std::unique_ptr<CatalogRebuild>> CatalogRebuild::Begin(const CatalogVerdict& found) {
  CatalogOptions options;
  options.folder = found.folder;
  options.repair = found.damaged ? CatalogRepair::kAlways : CatalogRepair::kRefuse;
  Result<std::unique_ptr<Catalog>> catalog = Catalog::Open(options);
  if (!catalog.ok()) return catalog.status();
  std::unique_ptr<CatalogRebuild> rebuild(new CatalogRebuild(*std::move(catalog)));
  rebuild->rebuilt_.set_aside = rebuild->catalog_->opened().set_aside;
  return rebuild;
}

Status CatalogRebuild::Flush() {
  std::promise<Status> flushed;
  const Status begun =
      catalog_->Flush([&flushed](const Status& status) { flushed.set_value(status); });
  return begun.ok() ? flushed.get_future().get() : begun;
}

Status CatalogRebuild::Add(const std::string& tenant, const std::vector<std::string>& blobs) {
  const uint32_t tag = LabelTag(tenant);
  std::vector<std::string> damage;
  const Result<StoredNamespaces> stored = DecodeNamespaces(blobs, &damage);
  if (!stored.ok()) return stored.status();
  CatalogUpdate update;
  update.Put(TenantRow{.name = tenant, .id = tag, .blob = ""});
  update.Put(NextIdRow{.tenant = tag, .next_id = stored->next_id});
  for (const NamespaceInfo& info : stored->all) {
    update.Put(NamespaceRow{.tenant = tag,
                            .label = info.spec.label,
                            .id = info.ref.id,
                            .epoch = info.epoch,
                            .spec = EncodeNamespaces(stored->next_id, {&info, 1}).back()});
  }
  std::promise<Status> committed;
  const Status begun = catalog_->Commit(
      std::move(update), [&committed](const Status& status) { committed.set_value(status); });
  if (!begun.ok()) return begun;
  if (const Status done = committed.get_future().get(); !done.ok()) return done;
  ++rebuilt_.tenants;
  rebuilt_.namespaces += stored->all.size();
  return Status::Ok();
}

Result<CatalogRebuilt> CatalogRebuild::End() {
  if (Status flushed = Flush(); !flushed.ok()) return flushed;
  if (Status closed = catalog_->Close(); !closed.ok()) return closed;
  return rebuilt_;
}

}  // namespace terrace
