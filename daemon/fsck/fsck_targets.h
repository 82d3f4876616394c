#pragma once

// Which logs are to be checked: the files of each tenant, by the daemon's own settings or by paths.
//
// Threads: one; looks at the file system.

#include <string>
#include <vector>

#include "storage/base/result.h"

namespace terrace {

struct FsckTarget {
  std::string tenant;  // empty: the log says it
  std::vector<std::string> files;
};

struct FsckTargets {
  std::vector<FsckTarget> logs;
  std::string catalog;             // folder; empty: none
  std::vector<std::string> notes;  // for people: what is not there
};

// `config`: terraced's file, may be empty; `nvme` in place of its paths, where given; `catalog` in
// place of its folder.  kInvalid, naming value and mend, when nothing is named or a path cannot be.
Result<FsckTargets> FindTargets(const std::string& config, const std::vector<std::string>& nvme,
                                const std::string& catalog);

}  // namespace terrace
