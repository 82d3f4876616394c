// Checks of a configuration as a whole.

#include <unistd.h>

#include <algorithm>

#include "daemon/app/config.h"
#include "daemon/app/nvme_path.h"
#include "storage/engine/chunk_store.h"
#include "storage/mem/machine_memory.h"
#include "storage/tier/log_layout.h"

namespace terrace {
namespace {

Status CheckNames(const Config& config) {
  for (size_t i = 0; i < config.tenants.size(); ++i) {
    const TenantConfig& tenant = config.tenants[i];
    if (tenant.name == "default") {
      return Status(StatusCode::kInvalid, "tenant 'default' exists by itself: use another name");
    }
    if (tenant.name.size() > kLogTenantBytes) {
      return Status(StatusCode::kInvalid, "tenant '" + tenant.name + "' has a name of " +
                                              std::to_string(tenant.name.size()) + " bytes: use " +
                                              std::to_string(kLogTenantBytes) + " at most");
    }
    for (size_t j = 0; j < i; ++j) {
      if (config.tenants[j].name != tenant.name) continue;
      return Status(StatusCode::kInvalid, "two tenants are named '" + tenant.name + "'");
    }
  }
  return Status::Ok();
}

Status CheckUids(const Config& config) {
  for (size_t i = 0; i < config.tenants.size(); ++i) {
    const TenantConfig& tenant = config.tenants[i];
    for (size_t j = 0; j < i; ++j) {
      const std::vector<uid_t>& earlier = config.tenants[j].uids;
      for (const uid_t uid : tenant.uids) {
        if (std::count(earlier.begin(), earlier.end(), uid) == 0) continue;
        return Status(StatusCode::kInvalid, "uid " + std::to_string(uid) + " is in tenant '" +
                                                config.tenants[j].name + "' and in tenant '" +
                                                tenant.name + "': name it in one of them");
      }
    }
  }
  return Status::Ok();
}

// As the tenant's store does when it is made.
Status CheckStore(const std::string& tenant, uint64_t dram_bytes, const Config& config) {
  ChunkStoreOptions options;
  options.dram_bytes = dram_bytes;
  options.segment_bytes = config.segment_bytes;
  options.index_slots = config.index_slots;
  Status sized = ChunkStore::FillSizes(&options);
  if (sized.ok()) return sized;
  return Status(sized.code(), "tenant '" + tenant + "': " + sized.message());
}

uint64_t SharesOf(const Config& config) {
  uint64_t shares = 0;
  for (const TenantConfig& tenant : config.tenants) {
    // A sum that would wrap is too large for every pool.
    shares += std::min(tenant.dram_bytes, UINT64_MAX - shares);
  }
  return shares;
}

// What "auto" gives at most, however much memory is free.
uint64_t AutoDramBytesMax() {
  const auto pages = static_cast<uint64_t>(std::max(sysconf(_SC_PHYS_PAGES), 0L));
  const auto page_bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return std::min(pages * page_bytes / 4, kAutoDramBytesMax);
}

Status CheckSizes(const Config& config) {
  const bool automatic = config.dram_bytes == 0;
  const uint64_t dram_bytes = automatic ? AutoDramBytesMax() : config.dram_bytes;
  const uint64_t shares = SharesOf(config);
  if (shares >= dram_bytes) {
    const std::string dram = automatic ? "\"auto\", at most " : "";
    return Status(StatusCode::kInvalid, "the tenants' shares are " + FormatSize(shares) +
                                            " of dram = " + dram + FormatSize(dram_bytes) +
                                            ": leave room for the default tenant");
  }
  for (const TenantConfig& tenant : config.tenants) {
    Status fits = CheckStore(tenant.name, tenant.dram_bytes, config);
    if (!fits.ok()) return fits;
  }
  if (automatic) return Status::Ok();
  // A machine whose memory has no end.
  constexpr MachineMemory kEndless{.available_bytes = MachineMemory::kUnlimited};
  Status in_range = CheckDramBytes(dram_bytes, kEndless, config.huge_pages);
  if (!in_range.ok()) return in_range;
  return CheckStore("default", dram_bytes - shares, config);
}

bool SharesNvme(const Config& config) {
  return std::any_of(config.tenants.begin(), config.tenants.end(),
                     [](const TenantConfig& tenant) { return tenant.nvme_bytes != 0; });
}

// What says something of a tier that is nowhere.
Status CheckNoNvme(const Config& config) {
  std::string said;
  if (config.nvme_bytes != 0) said = "there is nvme_bytes";
  if (config.nvme_segment_bytes != 0) said = "there is nvme_segment";
  if (config.nvme_admission != NvmeAdmission::kAlways) said = "there is nvme_admission";
  if (config.nvme_encode) said = "there is nvme_codec";
  if (config.nvme_scrub_days != Config().nvme_scrub_days) said = "there is nvme_scrub_days";
  if (SharesNvme(config)) said = "a tenant has nvme_bytes";
  if (said.empty()) return Status::Ok();
  return Status(
      StatusCode::kInvalid,
      said + ", and there is no nvme: name a path, such as nvme = [\"/var/lib/terrace/\"]");
}

Status CheckNvmePaths(const Config& config) {
  for (size_t i = 0; i < config.nvme.size(); ++i) {
    const std::string& path = config.nvme[i];
    const NvmePlace place = NvmePlaceOf(path);
    if (place == NvmePlace::kUnclear) {
      return Status(StatusCode::kInvalid,
                    "nvme = " + path +
                        ": there is nothing: make the folder first, or end a folder's name in "
                        "\"/\" and a new file's in \".terrace\"");
    }
    if (place != NvmePlace::kFolder && SharesNvme(config)) {
      return Status(StatusCode::kInvalid,
                    "nvme = " + path +
                        ": where a [[tenant]] has nvme_bytes it must be a folder, in which each "
                        "tenant gets a file of its own");
    }
    if (std::count(config.nvme.begin(), config.nvme.end(), path) > 1) {
      return Status(StatusCode::kInvalid, "nvme names " + path + " twice: name it once");
    }
  }
  return Status::Ok();
}

// 0 bytes: all of block devices, whose size is known where they are.
Status CheckNvmeShare(const std::string& tenant, uint64_t bytes, const Config& config) {
  if (bytes == 0) return Status::Ok();
  const uint64_t segment_bytes = NvmeSegmentBytes(config, bytes);
  const size_t file_count = config.nvme.size();
  // A stripe of each file goes where the file system counts its own blocks to it.
  const uint64_t needed = NvmeDeviceBytes(kNvmeSegmentsMin, segment_bytes, file_count) +
                          NvmeStripeBytes(segment_bytes, file_count) * file_count;
  if (bytes >= needed) return Status::Ok();
  const uint64_t catalog_bytes = tenant == "default" ? CatalogBytesOf(config) : 0;
  const std::string beside =
      catalog_bytes == 0 ? "" : " beside the catalog's " + FormatSize(catalog_bytes);
  const std::string lower = config.nvme_segment_bytes != 0
                                ? ", or lower nvme_segment = " + FormatSize(segment_bytes)
                                : "";
  return Status(StatusCode::kInvalid, "tenant '" + tenant + "' has " + FormatSize(bytes) +
                                          " of nvme_bytes" + beside + ": give it " +
                                          FormatSize(needed) + " or more" + lower);
}

Status CheckNvme(const Config& config) {
  if (config.nvme.empty()) return CheckNoNvme(config);
  if (Status paths = CheckNvmePaths(config); !paths.ok()) return paths;
  uint64_t shares = 0;
  for (const TenantConfig& tenant : config.tenants) {
    Status fits = CheckNvmeShare(tenant.name, tenant.nvme_bytes, config);
    if (!fits.ok()) return fits;
    // A sum that would wrap is too large for every disk.
    shares += std::min(tenant.nvme_bytes, UINT64_MAX - shares);
  }
  const uint64_t nvme_bytes = NvmeBytesOf(config);
  if (nvme_bytes == 0) return Status::Ok();
  const uint64_t catalog_bytes = CatalogBytesOf(config);
  if (shares >= nvme_bytes - std::min(catalog_bytes, nvme_bytes)) {
    const std::string catalog =
        catalog_bytes == 0 ? "" : ", and the catalog's is " + FormatSize(catalog_bytes);
    return Status(StatusCode::kInvalid, "the tenants' shares are " + FormatSize(shares) +
                                            " of nvme_bytes = " + FormatSize(nvme_bytes) + catalog +
                                            ": leave room for the default tenant");
  }
  return CheckNvmeShare("default", nvme_bytes - catalog_bytes - shares, config);
}

std::string OctalMode(uint32_t mode) {
  std::string digits;
  for (int shift = 6; shift >= 0; shift -= 3) {
    digits += static_cast<char>('0' + ((mode >> shift) & 7));
  }
  return "0o" + digits;
}

}  // namespace

Status CheckConfig(const Config& config) {
  for (const Status& status :
       {CheckNames(config), CheckUids(config), CheckSizes(config), CheckNvme(config)}) {
    if (!status.ok()) return status;
  }
  return Status::Ok();
}

std::vector<std::string> ConfigWarnings(const Config& config) {
  std::vector<std::string> warnings;
  for (const std::string& path : config.nvme) {
    if (NvmePlaceOf(path) == NvmePlace::kFile || NvmePathExists(path)) continue;
    warnings.push_back("nvme = " + path + " is not there: without it the NVMe tier is off");
  }
  // The group may be there for them; whether it is, only its members' list says.
  constexpr uint32_t kOthersMayConnect = 0022;
  if ((config.socket_mode & kOthersMayConnect) != 0) return warnings;
  for (const TenantConfig& tenant : config.tenants) {
    const auto shut_out = std::find_if(tenant.uids.begin(), tenant.uids.end(),
                                       [](uid_t uid) { return uid != 0 && uid != geteuid(); });
    if (shut_out == tenant.uids.end()) continue;
    warnings.push_back("tenant '" + tenant.name + "' has uid " + std::to_string(*shut_out) +
                       ", but socket_mode = " + OctalMode(config.socket_mode) +
                       " lets only the daemon's user and root connect: set socket_mode = 0o666");
  }
  return warnings;
}

}  // namespace terrace
