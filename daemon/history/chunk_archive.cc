#include "daemon/history/chunk_archive.h"

#include "storage/base/clock.h"
#include "storage/base/log.h"
#include "storage/catalog/catalog.h"
#include "storage/catalog/catalog_fit.h"
#include "storage/engine/chunk_history.h"

namespace terrace {
namespace {

static_assert(kArchiveBytesMin == kCatalogFolderBytesMin);
static_assert(kArchiveBytesMax == kCatalogFolderBytesMax);

ChunkName NameOf(std::string_view tenant, uint32_t label_tag, const shm::ChunkKey& key) {
  return {.tenant = LabelTag(tenant), .namespace_id = label_tag, .key = key};
}

std::optional<ArchivedEvent> Newest(const Result<std::vector<GoneEntry>>& entries) {
  if (!entries.ok()) {
    LogWarning("the history of chunks cannot be read: " + entries.status().ToString());
    return std::nullopt;
  }
  for (const GoneEntry& entry : *entries) {
    if (entry.row.reason > kChunkCauseLast) continue;  // of a later version
    return ArchivedEvent{.cause = static_cast<ChunkCause>(entry.row.reason),
                         .payload_bytes = entry.row.bytes,
                         .wall_ms = entry.row.wall_ns / kNsPerMs};
  }
  return std::nullopt;
}

}  // namespace

ChunkArchive::ChunkArchive(std::string folder) : folder_(std::move(folder)) {}

std::unique_ptr<ChunkArchive> ChunkArchive::Open(const std::string& folder, uint64_t bytes) {
  std::unique_ptr<ChunkArchive> archive(new ChunkArchive(folder));
  archive->ledger_ = std::make_unique<WriteLedger>(nullptr);
  if (folder.empty()) return archive;
  CatalogOptions options = CatalogOptionsFor(folder, bytes);
  options.repair = CatalogRepair::kWhenCorrupt;
  Result<std::unique_ptr<Catalog>> opened = Catalog::Open(options);
  if (!opened.ok()) {
    archive->why_off_ = opened.status().ToString();
    LogWarning("catalog " + folder + ": " + archive->why_off_ +
               ": why chunks left is not kept across restarts");
    return archive;
  }
  archive->catalog_ = *std::move(opened);
  archive->ledger_ = std::make_unique<WriteLedger>(archive->catalog_.get());
  const CatalogOpened& found = archive->catalog_->opened();
  if (!found.damage.empty()) LogWarning("catalog " + folder + ": " + found.damage);
  if (!found.set_aside.empty()) LogWarning("catalog " + folder + ": set aside: " + found.set_aside);
  return archive;
}

ChunkArchive::~ChunkArchive() { Close(); }

void ChunkArchive::Note(std::string_view tenant, const ChunkEvent& event) {
  if (catalog_ == nullptr) return;
  const GoneRow row{.reason = static_cast<uint8_t>(event.cause),
                    .bytes = event.payload_bytes,
                    .wall_ns = event.wall_ms * kNsPerMs};
  // What is refused is counted there.
  static_cast<void>(catalog_->NoteGone(NameOf(tenant, event.label_tag, event.key), row));
}

void ChunkArchive::FindLast(std::string_view tenant, std::string_view label,
                            const shm::ChunkKey& key, Found done) const {
  if (catalog_ == nullptr) return done(std::nullopt);
  const Status asked = catalog_->FindGone(
      NameOf(tenant, LabelTag(label), key),
      [done](const Result<std::vector<GoneEntry>>& entries) { done(Newest(entries)); });
  if (!asked.ok()) done(std::nullopt);
}

ArchiveStats ChunkArchive::stats() const {
  ArchiveStats stats;
  stats.folder = folder_;
  stats.why_off = why_off_;
  if (catalog_ == nullptr) return stats;
  const CatalogStats of = catalog_->stats();
  stats.error = of.error;
  stats.rows = of.history_rows;
  stats.bytes = of.disk_bytes;
  stats.since_ms = of.history_since_wall_ns / kNsPerMs;
  stats.dropped = of.dropped_full + of.dropped_failed + of.dropped_invalid;
  return stats;
}

void ChunkArchive::Close() {
  if (catalog_ == nullptr) return;
  const Status closed = catalog_->Close();
  if (!closed.ok()) LogWarning("catalog " + folder_ + ": " + closed.ToString());
}

}  // namespace terrace
