#include "daemon/fsck/fsck.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>

#include "daemon/fsck/fsck_report.h"
#include "daemon/fsck/fsck_targets.h"
#include "storage/base/clock.h"
#include "storage/engine/namespace_codec.h"
#include "storage/engine/nvme_tier.h"
#include "storage/io/open_device.h"
#include "storage/tier/log_probe.h"

namespace terrace {
namespace {

// Who holds the lock of a file, as the kernel lists it: " (pid 4711)", or nothing.
std::string HolderOf(const std::string& path) {
  struct stat at {};
  if (stat(path.c_str(), &at) != 0) return "";
  char wanted[64];
  std::snprintf(wanted, sizeof wanted, "%02x:%02x:%lu", major(at.st_dev), minor(at.st_dev),
                static_cast<unsigned long>(at.st_ino));
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    std::istringstream words(line);
    std::string number, kind, mode, access, pid, inode;
    words >> number >> kind >> mode >> access >> pid >> inode;
    if (kind == "FLOCK" && inode == wanted) return " (pid " + pid + ")";
  }
  return "";
}

class LogRun {
 public:
  LogRun(const FsckOptions& options, const FsckTarget& target, const std::function<bool()>& go_on)
      : options_(options), go_on_(go_on), progress_(!options.json) {
    log_.tenant = target.tenant;
    log_.files = target.files;
  }

  FsckLog Run() {
    log_.status = OpenAndCheck();
    progress_.Clear();
    return std::move(log_);
  }

  const std::vector<std::string>& blobs() const { return blobs_; }

 private:
  Result<DeviceFiles> Open() const {
    FilesFault fault = FilesFault::kNone;
    Result<DeviceFiles> files = DeviceFiles::OpenPaths(
        log_.files, &fault, options_.repair ? FilesUse::kMend : FilesUse::kLook);
    if (files.status().code() != StatusCode::kBusy) return files;
    std::string holder;
    for (const std::string& file : log_.files) {
      if (holder.empty()) holder = HolderOf(file);
    }
    return Status(StatusCode::kBusy,
                  files.status().message() + holder +
                      ": a daemon that runs holds the lock of its log: stop terraced first");
  }

  Status OpenAndCheck() {
    Result<DeviceFiles> files = Open();
    if (!files.ok()) return files.status();
    if (options_.repair && !files->writable()) {
      return Status(StatusCode::kDenied, log_.files[0] + " cannot be written: run as its owner");
    }
    const Result<LogIdentity> identity = PeekLog(*files);
    if (identity.status().code() == StatusCode::kNotFound) return Status::Ok();  // nothing yet
    if (!identity.ok()) return identity.status();
    if (log_.tenant.empty()) log_.tenant = identity->tenant;
    const LogProbe probe = ProbeLog(*files, NvmeSetId(log_.tenant), log_.tenant);
    if (!probe.why.ok()) return probe.why;
    const size_t file_count = log_.files.size();
    const uint64_t stripe_bytes = file_count > 1 ? identity->stripe_bytes : identity->segment_bytes;
    if (Status kept = files->KeepRoom(stripe_bytes); !kept.ok()) {
      return Status(StatusCode::kCorrupt, kept.message());
    }
    OpenOptions open;
    open.buffer_count = 1;
    Result<OpenedDevice> device = OpenDevice(*std::move(files), open, clock_);
    if (!device.ok()) return device.status();
    return Check(*device->device, stripe_bytes);
  }

  Status Check(BlockDevice& device, uint64_t stripe_bytes) {
    LogCheckOptions check;
    check.payloads = !options_.quick;
    check.repair = options_.repair;
    check.go_on = go_on_;
    check.progress = [this](const LogCheckReport& report) {
      progress_.Show(log_.files[0], report);
    };
    check.on_finding = [this, stripe_bytes](const LogFinding& finding) {
      Find(finding, stripe_bytes);
    };
    Status checked = CheckLog(device, check, &log_.report, &blobs_);
    device.Drain();
    return checked;
  }

  void Find(const LogFinding& finding, uint64_t stripe_bytes) {
    if (log_.findings.size() >= kFsckFindingsMax) {
      ++log_.findings_left_out;
      return;
    }
    const FilePlace place = PlaceInFiles(finding.offset, stripe_bytes, log_.files.size());
    FsckFinding found{.finding = finding,
                      .file = log_.files[place.file],
                      .file_offset = place.offset,
                      .namespace_label = ""};
    if (finding.record.has_value()) found.namespace_label = LabelOf(finding.record->namespace_id);
    if (!options_.json) {
      progress_.Clear();
      PrintFinding(found);
    }
    log_.findings.push_back(std::move(found));
  }

  // The table is read before the first record.
  std::string LabelOf(uint32_t namespace_id) {
    if (labels_.empty()) {
      std::vector<std::string> damage;
      const Result<StoredNamespaces> stored = DecodeNamespaces(blobs_, &damage);
      labels_[0] = "";
      for (size_t i = 0; stored.ok() && i < stored->all.size(); ++i) {
        labels_[stored->all[i].ref.id] = stored->all[i].spec.label;
      }
    }
    const auto label = labels_.find(namespace_id);
    return label == labels_.end() ? "" : label->second;
  }

  const FsckOptions& options_;
  const std::function<bool()>& go_on_;
  const SystemClock clock_;
  FsckProgress progress_;
  FsckLog log_;
  std::vector<std::string> blobs_;
  std::map<uint32_t, std::string> labels_;
};

// What a log that could not be read to its end would leave out is not made the catalog's truth.
Status WholeLogs(const FsckResult& result) {
  for (const FsckLog& log : result.logs) {
    if (log.status.code() == StatusCode::kCancelled) return log.status;
    if (log.status.ok()) continue;
    return Status(StatusCode::kUnavailable,
                  log.files[0] + " could not be read to its end, and is what it is made of");
  }
  return Status::Ok();
}

struct LogContent {
  std::string tenant;
  std::vector<std::string> blobs;
};

Result<CatalogRebuilt> Rebuild(const CatalogVerdict& found,
                               const std::vector<LogContent>& contents) {
  Result<std::unique_ptr<CatalogRebuild>> rebuild = CatalogRebuild::Begin(found);
  if (!rebuild.ok()) return rebuild.status();
  for (const LogContent& content : contents) {
    if (content.tenant.empty()) continue;  // an empty file
    Status added = (*rebuild)->Add(content.tenant, content.blobs);
    if (!added.ok()) return added;
  }
  return (*rebuild)->End();
}

int Refuse(const FsckOptions& options, const Status& why) {
  if (options.json) {
    std::printf("{\"result\":\"failed\",\"exit_code\":%d}\n", kFsckUsage);
  }
  std::fprintf(stderr, "terrace fsck: %s\n", why.message().c_str());
  return kFsckUsage;
}

}  // namespace

int RunFsck(const FsckOptions& options, const std::function<bool()>& go_on) {
  if (options.repair && options.quick) {
    return Refuse(options, Status(StatusCode::kInvalid,
                                  "--repair and --quick: a mend reads everything: leave one out"));
  }
  const Result<FsckTargets> targets = FindTargets(options.config, options.nvme, options.catalog);
  if (!targets.ok()) return Refuse(options, targets.status());
  if (options.rebuild && targets->catalog.empty()) {
    return Refuse(options, Status(StatusCode::kInvalid,
                                  "--rebuild: no catalog is configured: name its folder by "
                                  "--catalog"));
  }
  FsckResult result;
  result.notes = targets->notes;
  std::vector<LogContent> contents;
  for (const std::string& note : result.notes) {
    if (!options.json) std::printf("%s\n", note.c_str());
  }
  for (const FsckTarget& target : targets->logs) {
    LogRun run(options, target, go_on);
    result.logs.push_back(run.Run());
    if (!options.json) PrintLog(result.logs.back());
    if (options.rebuild) {
      contents.push_back({.tenant = result.logs.back().tenant, .blobs = run.blobs()});
    }
    if (!go_on()) break;
  }
  FsckCatalog& catalog = result.catalog;
  if (!targets->catalog.empty() && go_on()) catalog.verdict = JudgeCatalog(targets->catalog);
  if (options.rebuild) {
    catalog.asked = true;
    catalog.rebuilt_status = WholeLogs(result);
    const bool judged = catalog.verdict.why.ok() || catalog.verdict.damaged;
    if (catalog.rebuilt_status.ok() && !judged) catalog.rebuilt_status = catalog.verdict.why;
    if (catalog.rebuilt_status.ok()) {
      const Result<CatalogRebuilt> rebuilt = Rebuild(catalog.verdict, contents);
      catalog.rebuilt_status = rebuilt.status();
      if (rebuilt.ok()) catalog.rebuilt = *rebuilt;
    }
  }
  if (options.json) {
    PrintJson(result);
  } else {
    PrintCatalog(catalog);
  }
  return result.code();
}

}  // namespace terrace
