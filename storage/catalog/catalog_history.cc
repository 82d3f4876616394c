#include "storage/catalog/catalog_history.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "storage/base/check.h"
#include "storage/base/log.h"

namespace terrace {
namespace {

constexpr size_t kGenerationBytes = 20;
constexpr size_t kGenerationsMax = 2 * kHistoryGenerations;  // stored, of a larger bound too

std::string HistoryKey(uint32_t generation, const ChunkName& name, uint64_t number) {
  std::string key = catalog::HistoryPrefix(generation, name);
  catalog::AppendBig64(number, &key);
  return key;
}

}  // namespace

uint64_t CatalogHistory::RowsPerGeneration() const {
  return std::max<uint64_t>(1, rows_max_ / kHistoryGenerations);
}

uint64_t CatalogHistory::rows() const {
  uint64_t rows = 0;
  for (const Generation& generation : generations_) rows += generation.rows;
  return rows;
}

Status CatalogHistory::Load(const RowStore& store) {
  const Result<std::string> value = store.Get(catalog::KindStart(catalog::Kind::kGenerations));
  if (value.ok() && ParseBookkeeping(*value)) {
    erased_below_ = generations_.empty() ? 0 : generations_.front().id;
    return Status::Ok();
  }
  generations_.clear();
  if (!value.ok() && value.status().code() == StatusCode::kIoError) return value.status();
  if (value.ok() || value.status().code() == StatusCode::kCorrupt) {
    LogWarning("catalog: the history of chunks is damaged: it begins anew");
    // Above whatever may be there: EndBatch erases all below.
    RowStore::ScanCounts counts;
    uint32_t last = 0;
    Status scanned = store.Scan(
        catalog::KindStart(catalog::Kind::kHistory), catalog::KindEnd(catalog::Kind::kHistory),
        RowStore::Extent::kMany,
        [&last](std::string_view key, std::string_view) {
          if (key.size() >= 5) last = catalog::ReadBig32(key.substr(1));
          return true;
        },
        &counts);
    if (!scanned.ok()) return scanned;
    generations_.push_back({.id = last + 1, .rows = 0, .since_ns = 0});
  }
  return Status::Ok();
}

// Before one more row.  With a smaller bound than before, several generations go.
void CatalogHistory::MakeRoom() {
  if (generations_.empty() || generations_.back().rows >= RowsPerGeneration()) {
    const uint32_t id = generations_.empty() ? 1 : generations_.back().id + 1;
    generations_.push_back({.id = id, .rows = 0, .since_ns = 0});
  }
  while (generations_.size() > 1 &&
         (rows() + 1 > rows_max_ || generations_.size() > kGenerationsMax)) {
    generations_.erase(generations_.begin());
  }
}

void CatalogHistory::Add(const ChunkName& name, const GoneRow& row, RowBatch* batch) {
  if (rows_max_ == 0) return;
  MakeRoom();
  batch->Put(HistoryKey(generations_.back().id, name, next_number_), catalog::Value(row));
  ++next_number_;
  if (generations_.back().rows++ == 0) generations_.back().since_ns = row.wall_ns;
  changed_ = true;
}

void CatalogHistory::EndBatch(RowBatch* batch) {
  if (!changed_) return;
  changed_ = false;
  erasing_below_ = generations_.front().id;
  if (erasing_below_ > erased_below_) {
    batch->EraseRange(catalog::HistoryPrefix(erased_below_),
                      catalog::HistoryPrefix(erasing_below_));
  }
  batch->Put(catalog::KindStart(catalog::Kind::kGenerations), Bookkeeping());
}

void CatalogHistory::Written(bool ok) {
  if (ok) erased_below_ = std::max(erased_below_, erasing_below_);
  if (!ok && erasing_below_ != 0) changed_ = true;  // what it erased is erased again
}

// next number, then {generation, rows, since} each, the oldest first.
std::string CatalogHistory::Bookkeeping() const {
  std::string value;
  catalog::AppendBig64(next_number_, &value);
  for (const Generation& generation : generations_) {
    catalog::AppendBig32(generation.id, &value);
    catalog::AppendBig64(generation.rows, &value);
    catalog::AppendBig64(static_cast<uint64_t>(generation.since_ns), &value);
  }
  return value;
}

bool CatalogHistory::ParseBookkeeping(std::string_view value) {
  if (value.size() < 8 || (value.size() - 8) % kGenerationBytes != 0) return false;
  next_number_ = catalog::ReadBig64(value);
  value.remove_prefix(8);
  for (; !value.empty(); value.remove_prefix(kGenerationBytes)) {
    const Generation next{.id = catalog::ReadBig32(value),
                          .rows = catalog::ReadBig64(value.substr(4)),
                          .since_ns = static_cast<int64_t>(catalog::ReadBig64(value.substr(12)))};
    if (!generations_.empty() && next.id <= generations_.back().id) return false;
    generations_.push_back(next);
  }
  return true;
}

Result<std::vector<GoneEntry>> CatalogHistory::Find(const RowStore& store,
                                                    const ChunkName& name) const {
  std::vector<GoneEntry> found;
  for (size_t at = generations_.size(); at-- > 0 && found.size() < kHistoryAnswerMax;) {
    const std::string prefix = catalog::HistoryPrefix(generations_[at].id, name);
    std::vector<GoneEntry> entries;
    RowStore::ScanCounts counts;
    const Status scanned = store.Scan(
        prefix, catalog::PrefixEnd(prefix), RowStore::Extent::kFew,
        [&entries, &prefix](std::string_view key, std::string_view value) {
          GoneEntry entry;
          if (key.size() != prefix.size() + 8 || !catalog::Parse(value, &entry.row)) return true;
          entry.number = catalog::ReadBig64(key.substr(prefix.size()));
          if (entries.size() == kHistoryAnswerMax) entries.erase(entries.begin());
          entries.push_back(entry);
          return true;
        },
        &counts);
    if (!scanned.ok()) return scanned;
    found.insert(found.end(), entries.rbegin(), entries.rend());
  }
  if (found.size() > kHistoryAnswerMax) found.resize(kHistoryAnswerMax);
  return found;
}

}  // namespace terrace
