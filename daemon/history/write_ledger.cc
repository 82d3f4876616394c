#include "daemon/history/write_ledger.h"

#include <algorithm>

#include "storage/base/log.h"
#include "storage/catalog/catalog.h"
#include "storage/engine/chunk_history.h"

namespace terrace {
namespace {

constexpr int64_t kMsPerDay = 86'400'000;

// From 1, for 0 names all days.
uint32_t DayOf(int64_t wall_ms) {
  return static_cast<uint32_t>(std::clamp<int64_t>(wall_ms / kMsPerDay, 1, UINT32_MAX));
}

}  // namespace

WriteLedger::WriteLedger(Catalog* catalog) : catalog_(catalog) {
  if (catalog_ == nullptr) return;
  const Result<CatalogState> state = catalog_->LoadState();
  if (!state.ok()) {
    LogWarning("what the NVMe logs wrote before cannot be read: " + state.status().ToString());
    return;
  }
  for (const EnduranceRow& row : state->endurance) {
    written_[row.device].days[row.day] = row.written_bytes;
  }
}

uint64_t WriteLedger::WrittenOn(std::string_view tenant, int64_t wall_ms) const {
  const auto of = written_.find(LabelTag(tenant));
  if (of == written_.end()) return 0;
  const auto day = of->second.days.find(DayOf(wall_ms));
  return day == of->second.days.end() ? 0 : day->second;
}

uint64_t WriteLedger::WrittenEver(std::string_view tenant) const {
  const auto of = written_.find(LabelTag(tenant));
  if (of == written_.end()) return 0;
  const auto total = of->second.days.find(kEnduranceTotal);
  return total == of->second.days.end() ? 0 : total->second;
}

void WriteLedger::Note(std::string_view tenant, uint64_t bytes, int64_t wall_ms) {
  if (catalog_ == nullptr) return;
  const uint32_t device = LabelTag(tenant), day = DayOf(wall_ms);
  Written& written = written_[device];
  if (bytes <= written.noted) return;
  const uint64_t more = bytes - written.noted;
  written.noted = bytes;
  CatalogUpdate update;
  for (const uint32_t of : {day, kEnduranceTotal}) {
    uint64_t& counted = written.days[of];
    counted += more;
    update.Put(EnduranceRow{.device = device, .day = of, .written_bytes = counted});
  }
  for (auto old = written.days.upper_bound(kEnduranceTotal);
       old != written.days.end() && old->first + kLedgerDaysMax <= day;) {
    update.EraseEndurance(device, old->first);
    old = written.days.erase(old);
  }
  const Status begun = catalog_->Commit(std::move(update), [](const Status& committed) {
    if (!committed.ok()) LogWarning("bytes written to NVMe are not noted: " + committed.ToString());
  });
  if (!begun.ok()) LogWarning("bytes written to NVMe are not noted: " + begun.ToString());
}

uint64_t OverdrawnBytes(uint64_t written, uint64_t a_day, int64_t wall_ms) {
  const auto share = static_cast<double>(wall_ms % kMsPerDay) / static_cast<double>(kMsPerDay);
  const auto earned = static_cast<uint64_t>(static_cast<double>(a_day) * share);
  return written - std::min(written, earned);
}

}  // namespace terrace
