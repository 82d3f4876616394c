#include "daemon/app/nvme_device.h"

#include "daemon/app/nvme_path.h"
#include "storage/base/log.h"
#include "storage/engine/nvme_tier.h"
#include "storage/io/open_device.h"
#include "storage/tier/log_probe.h"

namespace terrace {
namespace {

// Others need some room too, and a file system without any is slow.
constexpr uint64_t kFreeBytesMin = 256 * kMiB;

NvmeFault FaultOf(FilesFault fault) {
  switch (fault) {
    case FilesFault::kNone: return NvmeFault::kNone;
    case FilesFault::kSettings: return NvmeFault::kSettings;
    case FilesFault::kNotOurs: return NvmeFault::kOthers;
    case FilesFault::kMedium: return NvmeFault::kDevice;
  }
  return NvmeFault::kDevice;
}

NvmeFault FaultOf(LogFound found) {
  switch (found) {
    case LogFound::kNothing:
    case LogFound::kLog: return NvmeFault::kNone;
    case LogFound::kOtherFiles: return NvmeFault::kSettings;
    case LogFound::kOthers: return NvmeFault::kOthers;
    case LogFound::kDamaged:
    case LogFound::kUnreadable: return NvmeFault::kDevice;
  }
  return NvmeFault::kDevice;
}

// As the settings take it: "128MiB".
std::string SettingOf(uint64_t bytes) {
  std::string text = FormatSize(bytes);
  std::erase(text, ' ');
  return text;
}

class Opener {
 public:
  Opener(const Config& config, const std::string& tenant, uint64_t bytes)
      : config_(config), tenant_(tenant) {
    options_.files.capacity_bytes = bytes;
    options_.files.free_bytes_min = kFreeBytesMin;
  }

  NvmeDevice Open(const Clock& clock) {
    if (!NamePaths()) return std::move(made_);
    FilesFault fault = FilesFault::kNone;
    Result<DeviceFiles> files = DeviceFiles::OpenPaths(options_.files.paths, &fault);
    if (!files.ok()) return Refuse(FaultOf(fault), files.status());
    const LogProbe probe = ProbeLog(*files, NvmeSetId(tenant_), tenant_);
    if (!probe.why.ok()) return Refuse(FaultOf(probe.found), probe.why);

    const bool exists = probe.found == LogFound::kLog;
    if (exists && !KeepCut(probe.identity)) return std::move(made_);
    if (!exists) MakeCut();
    if (Status taken = files->TakeRoom(options_.files, &fault); !taken.ok()) {
      return Refuse(FaultOf(fault), taken);
    }
    Result<OpenedDevice> opened = OpenDevice(*std::move(files), options_, clock);
    if (!opened.ok()) return Refuse(NvmeFault::kDevice, opened.status());
    for (const std::string& note : opened->notes) Note(note);
    made_.device = std::move(opened->device);
    return std::move(made_);
  }

 private:
  std::string Named(const std::string& text) const {
    return "nvme of tenant '" + tenant_ + "': " + text;
  }

  NvmeDevice Refuse(NvmeFault fault, const Status& why) {
    return {.fault = fault,
            .why = Status(why.code(), Named(why.message())),
            .device = nullptr,
            .segment_bytes = 0,
            .note = ""};
  }

  void Note(const std::string& text) {
    LogWarning(Named(text));
    if (!made_.note.empty()) made_.note += "; ";
    made_.note += text;
  }

  bool NamePaths() {
    for (const std::string& path : config_.nvme) {
      // Made here, it would be a file in memory.
      if (NvmePlaceOf(path) == NvmePlace::kDevice && !NvmePathExists(path)) {
        made_ = Refuse(NvmeFault::kDevice,
                       Status(StatusCode::kIoError, path + ": there is no such device"));
        return false;
      }
      options_.files.paths.push_back(NvmeFileOf(path, tenant_));
    }
    return true;
  }

  void MakeCut() {
    made_.segment_bytes = NvmeSegmentBytes(config_, options_.files.capacity_bytes);
    options_.files.stripe_bytes = NvmeStripeBytes(made_.segment_bytes, options_.files.paths.size());
  }

  // The log's own cut.  False with a fault in made_.
  bool KeepCut(const LogIdentity& identity) {
    const std::string& path = options_.files.paths[0];
    const uint64_t wished = config_.nvme_segment_bytes;
    if (wished != 0 && wished != identity.segment_bytes) {
      const std::string own = SettingOf(identity.segment_bytes);
      made_ = Refuse(NvmeFault::kSettings,
                     Status(StatusCode::kInvalid,
                            "nvme_segment = \"" + SettingOf(wished) + "\", and the log in " + path +
                                " has segments of " + own + ": set nvme_segment = \"" + own +
                                "\" or \"auto\", or remove the log to start anew"));
      return false;
    }
    const size_t file_count = options_.files.paths.size();
    made_.segment_bytes = identity.segment_bytes;
    options_.files.stripe_bytes = file_count > 1 ? identity.stripe_bytes : identity.segment_bytes;
    const uint64_t own_bytes =
        NvmeDeviceBytes(identity.segment_count, identity.segment_bytes, file_count);
    uint64_t& bytes = options_.files.capacity_bytes;
    if (bytes != 0 && bytes < own_bytes) {
      Note("nvme_bytes gives it " + FormatSize(bytes) + ", and the log in " + path + " keeps its " +
           FormatSize(own_bytes) + ": remove it to start anew with less");
      bytes = own_bytes;
    }
    return true;
  }

  const Config& config_;
  const std::string& tenant_;
  OpenOptions options_;
  NvmeDevice made_;
};

}  // namespace

NvmeDevice OpenNvmeDevice(const Config& config, const std::string& tenant, uint64_t bytes,
                          const Clock& clock) {
  return Opener(config, tenant, bytes).Open(clock);
}

}  // namespace terrace
