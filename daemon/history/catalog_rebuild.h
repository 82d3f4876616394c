#pragma once

// The catalog as fsck sees it: judged, and made anew from what the logs say.
//
// What a log says: tenants, namespaces and their next ids.  What it does not: why chunks left, what
// was written on which day, leases.  Of a catalog that is good these stay; with one that is not
// they are set aside.  Where chunks lie the log itself says at each start, as fast as a catalog
// would; rows for them would take more than the room that the catalog has.
//
// Threads: one; each call blocks.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "storage/base/result.h"
#include "storage/engine/namespace_codec.h"

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

struct CatalogRebuilt {
  uint64_t namespaces = 0, tenants = 0;
  std::string set_aside;  // where the former one lies
};

class CatalogRebuild {
 public:
  // One that is damaged is set aside; a good one keeps what the logs do not say.
  static Result<std::unique_ptr<CatalogRebuild>> Begin(const CatalogVerdict& found);
  ~CatalogRebuild();

  // One tenant.  `blobs` is its log's namespace table.
  Status Add(const std::string& tenant, const std::vector<std::string>& blobs);
  // Stable when Ok.
  Result<CatalogRebuilt> End();

 private:
  explicit CatalogRebuild(std::unique_ptr<Catalog> catalog);
  Status Flush();

  std::unique_ptr<Catalog> catalog_;
  CatalogRebuilt rebuilt_;
};

}  // namespace terrace
