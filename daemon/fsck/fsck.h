#pragma once

// Checks the logs of a daemon that is down, mends them, and makes its catalog anew.
//
// A log is opened as the daemon opens it: locked, so that neither runs while the other does; but
// nothing is made, sized or written unless `repair` says so.
//
// Threads: main.

#include <functional>
#include <string>
#include <vector>

namespace terrace {

struct FsckOptions {
  std::string config;             // terraced's file
  std::vector<std::string> nvme;  // in place of its paths
  std::string catalog;            // in place of its folder; "off": none
  bool quick = false;             // payloads are not read
  bool repair = false;
  bool rebuild = false;  // the catalog
  bool json = false;
};

// Says what it finds on standard output.  The exit code (fsck_report.h).  `go_on` false ends it
// between two writes.
int RunFsck(const FsckOptions& options, const std::function<bool()>& go_on);

}  // namespace terrace
