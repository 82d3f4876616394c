#pragma once

// The catalog's folder: who holds it, what is in it, the number of the last synced commit, and the
// damaged ones that are kept beside it.
//
//   FOLDER         the store's files, and SYNCED
//   FOLDER.new     a new one until it is whole
//   FOLDER.lock    held for life by the one process that has it open, whose pid stands in it
//   FOLDER.bad-N   set aside, the newest under the highest N
//
// SYNCED says outside of the store how far its synced rows reached: a store that has lost its
// newest ones (a log cut short by damage looks like one that a crash ended) is told by it.
//
// Threads: one owner.

#include <cstdint>
#include <string>

#include "storage/base/fd.h"
#include "storage/base/lock_file.h"
#include "storage/base/result.h"

namespace terrace {

class CatalogFolder {
 public:
  // Takes the lock; makes the folder above when it is missing.  kBusy names the process that holds
  // it.
  static Result<CatalogFolder> Take(const std::string& folder);

  // There is something in it: a store, or what damage left of one.
  Result<bool> Occupied() const;
  // A new one is made in new_path(), which BeginNew leaves empty; EndNew adds SYNCED and
  // puts it in its place.  REQUIRES: not Occupied(); the store in new_path() is closed by then.
  std::string new_path() const { return path_ + ".new"; }
  Status BeginNew();
  Status EndNew();
  // Renames it to a free FOLDER.bad-N and answers that; of those, at most `kept_max` stay.
  // REQUIRES: kept_max >= 1; the store is closed.
  Result<std::string> SetAside(uint32_t kept_max);

  // Opens SYNCED and reads it.  kCorrupt: it is damaged, but WriteSynced heals it.  kNotFound.
  Result<uint64_t> OpenSynced();
  // Stable when Ok.  REQUIRES: OpenSynced was Ok or kCorrupt.
  Status WriteSynced(uint64_t commit);

  const std::string& path() const { return path_; }

 private:
  CatalogFolder(std::string path, LockFile lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  std::string path_;
  LockFile lock_;
  UniqueFd synced_;
};

}  // namespace terrace
