#pragma once

// The catalog as fsck sees it: judged, and made anew from what the logs say.
//
// What a log says: where each chunk lies, tenants, namespaces and their next ids.  What it does
// not: why chunks left, what was written on which day, leases.  Of a catalog that is good these
// stay; with one that is not they are set aside.
//
// Threads: one; each call blocks.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "storage/base/result.h"
#include "storage/engine/namespace_codec.h"
#include "storage/record/record.h"

namespace terrace {

class Catalog;

struct CatalogVerdict {
  std::string folder;
  bool there = false;
  bool damaged = false;  // a mend makes it anew
  Status why;            // not Ok: damaged, or it cannot be judged
  uint64_t rows = 0, damaged_rows = 0, disk_bytes = 0;
};

// Changes nothing but the lock.
CatalogVerdict JudgeCatalog(const std::string& folder);

// A chunk as its record's footer entry names it.
struct CatalogChunk {
  RecordIdentity identity;
  LogPlace place;
  uint32_t stored_bytes = 0;
  uint64_t header_checksum = 0;
  uint64_t append_number = 0;
};

struct CatalogRebuilt {
  uint64_t chunks = 0, namespaces = 0, tenants = 0;
  std::string set_aside;  // where the former one lies
};

class CatalogRebuild {
 public:
  // One that is damaged is set aside; a good one keeps what the logs do not say.
  static Result<std::unique_ptr<CatalogRebuild>> Begin(const CatalogVerdict& found);
  ~CatalogRebuild();

  // One tenant's log, whole.  `blobs` is its namespace table.  Chunks of ended epochs are left out;
  // of several of one key the last counts.
  Status Add(const std::string& tenant, const std::vector<std::string>& blobs,
             std::vector<CatalogChunk> chunks);
  // Stable when Ok.
  Result<CatalogRebuilt> End();

 private:
  explicit CatalogRebuild(std::unique_ptr<Catalog> catalog);
  Status Flush();

  std::unique_ptr<Catalog> catalog_;
  CatalogRebuilt rebuilt_;
};

}  // namespace terrace
