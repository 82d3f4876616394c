#pragma once

// terraced's settings: a TOML file, flags on top, embedded defaults below.  Strict: an unknown key
// or a bad value is an error that names file, line, key and what would be right.
//
// Threads: values.

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "storage/base/log.h"
#include "storage/base/result.h"
#include "storage/engine/nvme_tier.h"

namespace terrace {

struct TenantConfig {
  std::string name;
  std::vector<uid_t> uids;
  uint64_t dram_bytes = 0;
  uint64_t nvme_bytes = 0;  // 0: no NVMe tier
};

struct Config {
  std::string socket;  // empty: DefaultSocket()
  uint32_t socket_mode = 0600;
  uint64_t dram_bytes = 0;          // 0: auto
  uint64_t segment_bytes = 0;       // 0: by the size of the pool
  uint64_t index_slots = 0;         // 0: by the size of the pool
  std::vector<std::string> nvme;    // folders, files or block devices; empty: no NVMe tier
  uint64_t nvme_bytes = 0;          // 0: kNvmeBytesDefault in files, all of block devices
  uint64_t nvme_segment_bytes = 0;  // 0: by nvme_bytes
  NvmeAdmission nvme_admission = NvmeAdmission::kAlways;
  bool nvme_encode = false;       // nvme_codec = "auto"
  uint32_t nvme_scrub_days = 7;   // in which the log is read and checked once; 0: never
  uint64_t nvme_bytes_a_day = 0;  // of kBytesADay
  // Folder of the catalog; empty: CatalogFolderOf(); "off": none.
  std::string catalog;
  std::string policy = "gittins";
  bool huge_pages = true;
  LogLevel log_level = LogLevel::kInfo;
  // Besides "default", which takes the rest of dram and admits the daemon's own user and root.
  std::vector<TenantConfig> tenants;
};

// What files may take when nobody says how much.
inline constexpr uint64_t kNvmeBytesDefault = 32 * kGiB;

// Where the catalog lies: as configured, else "catalog" in the first folder of `nvme` that is there
// (one that is not mounted must not be made).  Empty: none.
std::string CatalogFolderOf(const Config& config);

// $XDG_RUNTIME_DIR/terrace/terraced.sock, or /run/terrace/terraced.sock for root or without it.
std::string DefaultSocket();

// "2GiB", "512 MiB", "4096", "64KiB": bytes.  kInvalid says what is understood.
Result<uint64_t> ParseSize(std::string_view text);
// The shortest exact form in binary units: "2 GiB".
std::string FormatSize(uint64_t bytes);

Result<Config> ParseConfig(std::string_view text, const std::string& file);
Result<Config> LoadConfig(const std::string& file);
// One setting as a flag gives it ("--segment", "32MiB"), by the file's rules.  kInvalid names the
// flag, the value and what would be right.  REQUIRES: the flag is named after its key.
Status ApplyFlag(const std::string& flag, const std::string& value, Config* config);

// Checks that need the whole: the tenants' names and uids, and all sizes as the daemon takes them
// at its start, save for how much memory is free.
Status CheckConfig(const Config& config);
// What is allowed and hardly meant: uids that the socket's mode shuts out.
std::vector<std::string> ConfigWarnings(const Config& config);

}  // namespace terrace
