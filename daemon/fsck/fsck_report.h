#pragma once

// What fsck found, in words or as JSON, and how far it is.
//
// Threads: one.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "daemon/history/catalog_rebuild.h"
#include "storage/io/device_files.h"
#include "storage/tier/log_check.h"

namespace terrace {

// As fsck(8): the sum of what applies.
inline constexpr int kFsckClean = 0;
inline constexpr int kFsckMended = 1;
inline constexpr int kFsckLeft = 4;
inline constexpr int kFsckFailed = 8;
inline constexpr int kFsckUsage = 16;
inline constexpr int kFsckCancelled = 32;

// Findings that are told one by one, of each log; the rest is counted.
inline constexpr size_t kFsckFindingsMax = 1000;

// One finding where people look for it.
struct FsckFinding {
  LogFinding finding;
  std::string file;
  uint64_t file_offset = 0;
  std::string namespace_label;  // empty: unknown
};

struct FsckLog {
  std::string tenant;
  std::vector<std::string> files;
  Status status;  // of the whole check
  LogCheckReport report;
  std::vector<FsckFinding> findings;
  uint64_t findings_left_out = 0;

  int code() const;
};

struct FsckCatalog {
  CatalogVerdict verdict;
  bool asked = false;  // to make it anew
  Status rebuilt_status;
  CatalogRebuilt rebuilt;

  int code() const;
};

struct FsckResult {
  std::vector<FsckLog> logs;
  FsckCatalog catalog;
  std::vector<std::string> notes;

  int code() const;
};

// Where a byte of the device lies: its file's number and the offset there.
struct FilePlace {
  size_t file = 0;
  uint64_t offset = 0;
};
FilePlace PlaceInFiles(uint64_t offset, uint64_t stripe_bytes, size_t file_count);

// One line each, as it is found.
void PrintFinding(const FsckFinding& finding);
void PrintLog(const FsckLog& log);
void PrintCatalog(const FsckCatalog& catalog);
void PrintJson(const FsckResult& result);

// A line that is written over, on a terminal; nothing elsewhere.
class FsckProgress {
 public:
  explicit FsckProgress(bool wanted);
  ~FsckProgress() { Clear(); }
  void Show(const std::string& log, const LogCheckReport& report);
  void Clear();

 private:
  const bool wanted_;
  bool shown_ = false;
  int64_t shown_ns_ = 0;
};

}  // namespace terrace
