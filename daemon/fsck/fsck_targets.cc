#include "daemon/fsck/fsck_targets.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "daemon/app/config.h"
#include "daemon/app/nvme_path.h"

namespace terrace {
namespace {

constexpr char kPrefix[] = "terrace-";
constexpr char kSuffix[] = ".log";

std::string Joined(const std::vector<std::string>& paths) {
  std::string text;
  for (const std::string& path : paths) text += (text.empty() ? "" : ", ") + path;
  return text;
}

Status CheckPath(const std::string& path) {
  if (path.empty()) return Status(StatusCode::kInvalid, "--nvme: an empty path");
  if (NvmePathExists(path)) return Status::Ok();
  return Status(StatusCode::kInvalid, path +
                                          " is not there: name the folder, files or devices of "
                                          "`nvme` in terraced's configuration");
}

// The tenants that have a file in the folder.
std::set<std::string> FilesIn(const std::string& folder) {
  std::set<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && name.ends_with(kSuffix)) names.insert(name);
  }
  return names;
}

// As the daemon names them.
void AddTenant(const Config& config, const std::string& tenant, FsckTargets* targets) {
  FsckTarget target;
  target.tenant = tenant;
  for (const std::string& path : config.nvme) target.files.push_back(NvmeFileOf(path, tenant));
  const bool any = std::any_of(target.files.begin(), target.files.end(), NvmePathExists);
  if (any) {
    targets->logs.push_back(std::move(target));
  } else {
    targets->notes.push_back("tenant '" + tenant + "' has no log yet in " + Joined(config.nvme));
  }
}

Status AddPaths(const std::vector<std::string>& nvme, FsckTargets* targets) {
  for (const std::string& path : nvme) {
    if (Status there = CheckPath(path); !there.ok()) return there;
  }
  const auto folders = std::count_if(nvme.begin(), nvme.end(), [](const std::string& path) {
    return NvmePlaceOf(path) == NvmePlace::kFolder;
  });
  if (folders == 0) {
    targets->logs.push_back({.tenant = "", .files = nvme});
    return Status::Ok();
  }
  if (static_cast<size_t>(folders) != nvme.size()) {
    return Status(StatusCode::kInvalid, Joined(nvme) +
                                            ": folders and files together: check the "
                                            "logs one after the other, or by --config");
  }
  std::set<std::string> names;
  for (const std::string& folder : nvme) names.merge(FilesIn(folder));
  for (const std::string& name : names) {
    FsckTarget target;
    for (const std::string& folder : nvme) {
      target.files.push_back((std::filesystem::path(folder) / name).string());
    }
    targets->logs.push_back(std::move(target));
  }
  if (names.empty()) targets->notes.push_back("no log in " + Joined(nvme));
  return Status::Ok();
}

}  // namespace

Result<FsckTargets> FindTargets(const std::string& config, const std::vector<std::string>& nvme,
                                const std::string& catalog) {
  FsckTargets targets;
  Config settings;
  if (!config.empty()) {
    Result<Config> loaded = LoadConfig(config);
    if (!loaded.ok()) return loaded.status();
    settings = *std::move(loaded);
  }
  if (!nvme.empty()) {
    if (Status added = AddPaths(nvme, &targets); !added.ok()) return added;
    settings.nvme = nvme;
  } else if (config.empty()) {
    return Status(StatusCode::kInvalid,
                  "no log named: use --config /etc/terrace/terraced.toml, or --nvme PATH");
  } else if (settings.nvme.empty()) {
    return Status(StatusCode::kInvalid, config + " sets no nvme: there is no log to check");
  } else {
    for (const TenantConfig& tenant : settings.tenants) {
      if (tenant.nvme_bytes != 0) AddTenant(settings, tenant.name, &targets);
    }
    AddTenant(settings, "default", &targets);
  }
  if (!catalog.empty()) settings.catalog = catalog;
  targets.catalog = CatalogFolderOf(settings);
  return targets;
}

}  // namespace terrace
