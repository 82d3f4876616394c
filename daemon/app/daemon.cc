#include "daemon/app/daemon.h"

#include <sys/random.h>
#include <sys/un.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>

#include "daemon/app/nvme_device.h"
#include "daemon/app/nvme_path.h"
#include "storage/base/limits.h"
#include "storage/base/log.h"
#include "storage/mem/descriptor_limit.h"
#include "storage/mem/guarded_copy.h"
#include "storage/mem/locked_memory_limit.h"
#include "storage/mem/machine_memory.h"

namespace terrace {
namespace {

// Beside DRAM: write buffers and rings of the tenants' devices, and the codec's memory.
constexpr uint64_t kLockedBytesBeside = 1 * kGiB;

uint64_t RandomWord() {
  uint64_t word = 0;
  while (word == 0) {
    if (getrandom(&word, sizeof word, 0) != sizeof word) word = 0;
  }
  return word;
}

// Larger at every start, as far as the machine's clock goes forward.
uint64_t RealtimeNs() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(std::max<time_t>(now.tv_sec, 1)) * kNsPerSecond +
         static_cast<uint64_t>(now.tv_nsec);
}

Status FillDram(Config* config) {
  const Result<MachineMemory> machine = ReadMachineMemory();
  if (!machine.ok()) return machine.status();
  if (config->dram_bytes == 0) {
    config->dram_bytes = AutoDramBytes(*machine);
    if (config->dram_bytes == 0) {
      return Status(StatusCode::kNoSpace, "dram = \"auto\" finds no memory: set dram");
    }
    return Status::Ok();
  }
  return CheckDramBytes(config->dram_bytes, *machine, config->huge_pages);
}

// Before anything is made on disk.
Status CheckSocketPlace(const std::string& socket) {
  if (socket.size() >= sizeof(sockaddr_un::sun_path)) {
    return Status(StatusCode::kInvalid, "socket = " + socket + ": a path has at most 107 bytes");
  }
  std::error_code error;
  const std::filesystem::file_status there = std::filesystem::status(socket, error);
  if (!std::filesystem::exists(there) || std::filesystem::is_socket(there)) return Status::Ok();
  return Status(StatusCode::kInvalid,
                "socket = " + socket + " is there and is no socket: move it, or use another path");
}

// REQUIRES: the shard has not started.
std::string DescribeMemory(uint64_t dram_bytes, Shard& shard) {
  std::string text = "dram " + FormatSize(dram_bytes);
  for (const std::string& tenant : shard.tenants()) {
    const ChunkStoreStats stats = shard.store(tenant)->stats();
    text += "; tenant " + tenant + ": " + std::to_string(stats.segments.total) + " segments of " +
            FormatSize(stats.segment_bytes) + " on " + FormatSize(stats.page_bytes) + " pages";
    if (!stats.nvme.configured) continue;
    text += stats.nvme.state == NvmeState::kReady
                ? ", nvme " + FormatSize(stats.nvme.bytes) + " by " + stats.nvme.device + " with " +
                      std::to_string(stats.nvme.chunk_count) + " chunks"
                : ", nvme " + std::string(NvmeStateName(stats.nvme.state));
  }
  return text;
}

// REQUIRES: on the shard's thread, or when that has ended.
void NoteWrittenOf(Shard& shard, WriteLedger& ledger) {
  for (const std::string& tenant : shard.tenants()) {
    ledger.Note(tenant, shard.store(tenant)->NvmeBytesWritten(), WallMs());
  }
}

}  // namespace

Result<std::unique_ptr<Daemon>> Daemon::Start(Config config, const std::function<bool()>& go_on) {
  if (config.socket.empty()) config.socket = DefaultSocket();
  for (const Status& status :
       {CheckSocketPlace(config.socket), InstallGuard(), FillDram(&config), CheckConfig(config)}) {
    if (!status.ok()) return status;
  }
  Result<InstanceLock> lock = InstanceLock::Take(config.socket);
  if (!lock.ok()) return lock.status();
  std::unique_ptr<Daemon> daemon(new Daemon(*std::move(lock)));
  daemon->socket_ = config.socket;
  const uint64_t catalog_bytes = CatalogBytesOf(config);
  daemon->archive_ = ChunkArchive::Open(CatalogFolderOf(config),
                                        catalog_bytes != 0 ? catalog_bytes : kArchiveBytesMax);

  ShardOptions shard;
  shard.go_on = go_on;
  ControlOptions control{.socket = config.socket,
                         .socket_mode = config.socket_mode,
                         .tenants = {},
                         .boot_epoch = RandomWord(),
                         .version = TERRACE_VERSION,
                         .archive = daemon->archive_.get()};
  uint64_t rest = config.dram_bytes;
  uint64_t nvme_rest = NvmeBytesOf(config);
  nvme_rest -= std::min(nvme_rest, catalog_bytes);
  const auto add = [&](const std::string& name, uint64_t bytes, std::vector<uid_t> uids) {
    ChunkStoreOptions options;
    options.tenant = name;
    options.dram_bytes = bytes;
    options.segment_bytes = config.segment_bytes;
    options.index_slots = config.index_slots;
    options.policy = config.policy;
    options.memory.best = config.huge_pages ? PageRung::kHugetlb : PageRung::kSmall;
    options.boot_epoch = control.boot_epoch;
    options.seed = RandomWord();
    options.wall_ms = WallMs;
    options.listener = [archive = daemon->archive_.get(), name](const ChunkEvent& event) {
      archive->Note(name, event);
    };
    shard.tenants.push_back(std::move(options));
    control.tenants.push_back({name, std::move(uids)});
  };
  const auto add_nvme = [&](uint64_t bytes) -> Status {
    if (!go_on()) return Status(StatusCode::kCancelled, "the start was broken off");
    ChunkStoreOptions& options = shard.tenants.back();
    NvmeDevice opened = OpenNvmeDevice(config, options.tenant, bytes, daemon->clock_);
    switch (opened.fault) {
      case NvmeFault::kNone: break;
      case NvmeFault::kSettings:
      case NvmeFault::kOthers: return opened.why;
      case NvmeFault::kDevice:
        LogError(opened.why.message() + ": served from memory alone");
        options.nvme.unavailable = opened.why;
        return Status::Ok();
    }
    shard.nvme[options.tenant] = std::move(opened.device);
    options.nvme.segment_bytes = opened.segment_bytes;
    options.nvme.note = opened.note;
    options.nvme.admission = config.nvme_admission;
    options.nvme.bytes_a_day = config.nvme_bytes_a_day;
    const uint64_t today = daemon->archive_->ledger().WrittenOn(options.tenant, WallMs());
    options.nvme.overdrawn_bytes = OverdrawnBytes(today, config.nvme_bytes_a_day, WallMs());
    constexpr int64_t kNsPerDay = int64_t{86'400} * kNsPerSecond;
    options.nvme.scrub_pass_ns = config.nvme_scrub_days * kNsPerDay;
    options.nvme.sequence_floor = RealtimeNs();
    options.nvme.codec_pool = daemon->codec_.get();
    options.nvme.encode = config.nvme_encode;
    return Status::Ok();
  };
  if (!config.nvme.empty()) {
    // What the devices know of DRAM, and their own.  Where it is refused they say so themselves.
    static_cast<void>(RaiseLockedMemoryLimit(config.dram_bytes + kLockedBytesBeside));
    // Also where nothing is to be encoded: the log may hold what was.
    daemon->codec_ = std::make_unique<ThreadCodecPool>(CodecThreadCount());
  }
  for (const TenantConfig& tenant : config.tenants) {
    add(tenant.name, tenant.dram_bytes, tenant.uids);
    rest -= tenant.dram_bytes;
    if (tenant.nvme_bytes == 0) continue;
    if (Status added = add_nvme(tenant.nvme_bytes); !added.ok()) return added;
    nvme_rest -= tenant.nvme_bytes;
  }
  add("default", rest, {geteuid(), 0});
  if (!config.nvme.empty()) {
    if (Status added = add_nvme(nvme_rest); !added.ok()) return added;
  }

  // A descriptor a segment, another while it is sent, and those of sessions.
  Status limit = RaiseDescriptorLimit(2 * kSegmentCountMax + 8 * kSessionCountMax);
  if (!limit.ok()) LogWarning(limit.message());

  Result<std::unique_ptr<Shard>> made = Shard::Create(std::move(shard));
  if (!made.ok()) return made.status();
  daemon->shard_ = *std::move(made);
  daemon->memory_ = DescribeMemory(config.dram_bytes, *daemon->shard_);
  Result<std::unique_ptr<ControlServer>> server =
      ControlServer::Create(std::move(control), *daemon->shard_);
  if (!server.ok()) return server.status();
  daemon->control_ = *std::move(server);
  daemon->shard_->Start();
  daemon->control_->Start();
  return daemon;
}

Daemon::~Daemon() { static_cast<void>(Stop()); }

void Daemon::NoteWritten() {
  shard_->Post([this] { NoteWrittenOf(*shard_, archive_->ledger()); });
}

bool Daemon::Stop() {
  if (control_ != nullptr) control_->Stop();
  if (shard_ != nullptr) shard_->Stop();
  if (shard_ != nullptr && archive_ != nullptr && !std::exchange(stopped_, true) &&
      !shard_->hung()) {
    NoteWrittenOf(*shard_, archive_->ledger());
  }
  if (archive_ != nullptr) archive_->Close();
  return shard_ == nullptr || !shard_->hung();
}

std::string Daemon::Describe() const { return "serving on " + socket_ + ", " + memory_; }

}  // namespace terrace
