#pragma once

// Catalogs in folders of their own, rows that can be told from their number, and calls that wait.
//
// Threads: one owner.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "storage/catalog/catalog.h"

namespace terrace {

// Removed with all that is in it.
class TestFolder {
 public:
  TestFolder();
  ~TestFolder();
  std::string path(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

ChunkName NumberedName(uint64_t number, uint32_t namespace_id = 1);
// Attributes included; `life` tells rows of one name apart.
ChunkRow NumberedRow(uint64_t number, uint32_t life = 0);
// Of NumberedName; UINT64_MAX for another.
uint64_t NumberOf(const ChunkName& name);
GoneRow NumberedGone(uint64_t number);

CatalogOptions SmallCatalog(const std::string& folder);

// Ends the test's process when it cannot be opened.
std::unique_ptr<Catalog> OpenCatalog(const CatalogOptions& options);

Status CommitNow(Catalog& catalog, CatalogUpdate update);
Status FlushNow(Catalog& catalog);
std::vector<GoneEntry> FindGoneNow(Catalog& catalog, const ChunkName& name);

struct LoadedChunks {
  std::map<uint64_t, ChunkRow> rows;  // by NumberOf
  uint64_t damaged = 0;
  Status status;
};
LoadedChunks Load(const Catalog& catalog);

}  // namespace terrace
