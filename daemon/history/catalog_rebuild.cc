#include "daemon/history/catalog_rebuild.h"

#include <algorithm>
#include <filesystem>
#include <future>
#include <map>
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
  rebuild->catalog_->BeginRebuild();
  return rebuild;
}

Status CatalogRebuild::Flush() {
  std::promise<Status> flushed;
  const Status begun =
      catalog_->Flush([&flushed](const Status& status) { flushed.set_value(status); });
  return begun.ok() ? flushed.get_future().get() : begun;
}

Status CatalogRebuild::Add(const std::string& tenant, const std::vector<std::string>& blobs,
                           std::vector<CatalogChunk> chunks) {
  const uint32_t tag = LabelTag(tenant);
  std::vector<std::string> damage;
  const Result<StoredNamespaces> stored = DecodeNamespaces(blobs, &damage);
  if (!stored.ok()) return stored.status();
  CatalogUpdate update;
  update.Put(TenantRow{.name = tenant, .id = tag, .blob = ""});
  update.Put(NextIdRow{.tenant = tag, .next_id = stored->next_id});
  std::map<uint32_t, bool> live;
  for (const NamespaceInfo& info : stored->all) {
    live[info.ref.id] = true;
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

  std::erase_if(chunks, [&live](const CatalogChunk& chunk) {
    return live.count(chunk.identity.namespace_id) == 0;
  });
  std::sort(chunks.begin(), chunks.end(), [](const CatalogChunk& one, const CatalogChunk& other) {
    return one.append_number < other.append_number;
  });
  for (const CatalogChunk& chunk : chunks) {
    if (catalog_->queue_room() == 0) {
      if (Status flushed = Flush(); !flushed.ok()) return flushed;
    }
    const ChunkName name{
        .tenant = tag, .namespace_id = chunk.identity.namespace_id, .key = chunk.identity.key};
    const Status put = catalog_->Put(name, {.place = chunk.place,
                                            .device = tag,
                                            .payload_bytes = chunk.identity.payload_bytes,
                                            .stored_bytes = chunk.stored_bytes,
                                            .header_checksum = chunk.header_checksum,
                                            .attributes = ""});
    if (!put.ok()) return put;
  }
  rebuilt_.chunks += chunks.size();
  return Flush();
}

Result<CatalogRebuilt> CatalogRebuild::End() {
  catalog_->EndRebuild();
  if (Status flushed = Flush(); !flushed.ok()) return flushed;
  if (Status closed = catalog_->Close(); !closed.ok()) return closed;
  return rebuilt_;
}

}  // namespace terrace
