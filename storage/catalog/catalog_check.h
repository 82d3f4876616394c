#pragma once

// A catalog judged from outside, for fsck and for opening.
//
// Threads: blocks on the disk; any thread.

#include <cstdint>
#include <string>

#include "storage/base/result.h"
#include "storage/catalog/catalog_folder.h"
#include "storage/catalog/catalog_rows.h"
#include "storage/catalog/row_store.h"

namespace terrace {

// kCorrupt without a version, kInvalid when it is newer than this program.
Status CheckCatalogVersion(const RowStore& store);

// kCorrupt when one row is damaged.
Result<CatalogState> ReadCatalogState(const RowStore& store);

// Whether the rows of the last synced commit are there; its number.  kCorrupt when they are not.
struct CommitsFound {
  uint64_t number = 0;
  bool mark_damaged = false;  // SYNCED: nothing is known against the rows
};
Result<CommitsFound> CheckCommits(const RowStore& store, CatalogFolder* folder);

struct CatalogReport {
  uint64_t chunks = 0, leases = 0, history = 0, others = 0;  // rows that are good
  uint64_t damaged = 0;                                      // rows that are not
  uint64_t disk_bytes = 0;
};

// Reads every row and changes nothing but the lock.  kBusy: a process has it open; kNotFound: there
// is none; kCorrupt: it cannot be read to its end, or synced rows are missing or damaged; kInvalid:
// newer.
Result<CatalogReport> CheckCatalog(const std::string& folder);

}  // namespace terrace
