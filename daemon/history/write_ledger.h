#pragma once

// How much each tenant's NVMe log has written, by day (UTC) and since ever, kept in the catalog: a
// restart is no licence to write another day's bytes, and wear can be looked up.
//
// A day's row is written anew with each Note: what one write lost the next one makes up for, and
// what came after the last Note before a kill -9 is not counted.
//
// Threads: Note belongs to one; the rest may be called before the first Note.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace terrace {

class Catalog;

// Days that are kept.
inline constexpr uint32_t kLedgerDaysMax = 32;

class WriteLedger {
 public:
  // Reads what was kept.  Null: keeps nothing.  Borrows the catalog.
  explicit WriteLedger(Catalog* catalog);

  // On the day of `wall_ms`, in all lives; since ever.
  uint64_t WrittenOn(std::string_view tenant, int64_t wall_ms) const;
  uint64_t WrittenEver(std::string_view tenant) const;

  // `bytes` since the daemon started, never less than before.
  void Note(std::string_view tenant, uint64_t bytes, int64_t wall_ms);

 private:
  struct Written {
    std::map<uint32_t, uint64_t> days;  // kEnduranceTotal among them
    uint64_t noted = 0;                 // of this life
  };

  Catalog* const catalog_;
  std::map<uint32_t, Written> written_;  // by the tenant's tag
};

// How much of a day's allowance `written` bytes since its beginning (UTC) are ahead of the clock.
uint64_t OverdrawnBytes(uint64_t written, uint64_t a_day, int64_t wall_ms);

}  // namespace terrace
