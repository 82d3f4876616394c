// `terrace bench churn --nvme`: the churn on a log that holds a fraction of what is put, with what
// the tier takes of the file system (its log, and its catalog) looked at all along.

#include <boost/json.hpp>
#include <filesystem>
#include <memory>
#include <optional>

#include "bench/bench_daemon.h"
#include "bench/churn_player.h"
#include "bench/disk_use.h"
#include "bench/measure.h"
#include "bench/nvme_traffic.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

constexpr double kLogsWanted = 4;  // what all chunks of a population come to
constexpr double kLogsAfter = 2;   // of puts, after the sizes changed, and after the restart
constexpr uint32_t kLeast = 64 * kKiB;
constexpr uint32_t kSmallMost = 512 * kKiB;
constexpr uint64_t kSmallFirst = 1'000'000'007;  // as in the DRAM churn
constexpr double kNoLimit = 1e300;

struct Phase {
  ChurnTally tally;
  double loads = 0;  // hits that came from NVMe

  double nvme_ratio() const {
    return tally.requests == 0 ? 0 : loads / static_cast<double>(tally.requests);
  }
};

struct Churned {
  Phase mixed, small, restarted, dram;  // dram: the mixed requests without the tier
  uint64_t cap_bytes = 0, du_bytes = 0, du_samples = 0, catalog_bytes = 0;
  double written_bytes = 0, reclaims = 0;

  uint64_t Sum(uint64_t ChurnTally::*field) const {
    return mixed.tally.*field + small.tally.*field + restarted.tally.*field + dram.tally.*field;
  }
  // A log that was never full says nothing.
  bool right() const {
    return du_bytes <= cap_bytes && Sum(&ChurnTally::wrong_bytes) == 0 &&
           Sum(&ChurnTally::refused_not_busy) == 0 && reclaims > 0;
  }
};

class Run {
 public:
  Run(std::string folder, const ChurnOptions& options)
      : folder_(std::move(folder)),
        log_folder_(folder_ + "/nvme"),
        options_(options),
        payloads_(kChunkBytesMax),
        wanted_bytes_(kLogsWanted * static_cast<double>(options.nvme_bytes)),
        small_(kSmallFirst, kLeast, kSmallMost, wanted_bytes_) {}

  Status Play(Churned* churned) {
    std::error_code error;
    std::filesystem::create_directory(log_folder_, error);
    if (error) return Status(StatusCode::kIoError, log_folder_ + ": " + error.message());
    churned->cap_bytes = options_.nvme_bytes;
    const auto bytes = static_cast<double>(options_.nvme_bytes);
    {
      const DiskWatch watch(log_folder_);
      Progress("mixed sizes");
      if (Status started = Start(true); !started.ok()) return started;
      mixed_.emplace(0, kLeast, MixedMost(), wanted_bytes_);
      churned->mixed = Requests(*mixed_, kSeed, options_.pools * bytes, UINT64_MAX);
      Progress("smaller sizes in the same log");
      churned->small = Requests(small_, kSeed + 1, kLogsAfter * bytes, UINT64_MAX);
      Note(churned);
      Progress("the same after a restart");
      if (Status started = Start(true); !started.ok()) return started;
      churned->restarted = Requests(small_, kSeed + 2, kLogsAfter * bytes, UINT64_MAX);
      Note(churned);
      Stop();
      churned->du_bytes = watch.most_bytes();
      churned->du_samples = watch.samples();
    }
    churned->catalog_bytes = DiskBytes(log_folder_ + "/catalog");
    Progress("the mixed sizes without the log");
    if (Status started = Start(false); !started.ok()) return started;
    churned->dram = Requests(*mixed_, kSeed, kNoLimit, churned->mixed.tally.requests);
    Stop();
    return Status::Ok();
  }

 private:
  static constexpr uint64_t kSeed = 3;

  void Stop() {
    ns_.reset();
    client_.reset();
    daemon_.reset();
  }

  Status Start(bool nvme) {
    Stop();
    const uint64_t dram = std::max(options_.nvme_bytes / 8, 128 * kMiB);
    std::vector<std::string> words = {"--dram", std::to_string(dram)};
    if (nvme) {
      words.insert(words.end(), {"--nvme", log_folder_ + "/", "--nvme-bytes",
                                 std::to_string(options_.nvme_bytes)});
    }
    Result<BenchDaemon> daemon = BenchDaemon::Start(folder_, words);
    if (!daemon.ok()) return daemon.status();
    daemon_.emplace(*std::move(daemon));
    ClientOptions wanted;
    wanted.socket = daemon_->socket();
    wanted.client_name = "bench churn";
    Result<std::unique_ptr<Client>> client = Client::Connect(wanted);
    if (!client.ok()) return client.status();
    client_ = *std::move(client);
    NamespaceIdentity identity;
    identity.label = "churn";
    Result<std::shared_ptr<Namespace>> ns = client_->Register(identity);
    if (!ns.ok()) return ns.status();
    ns_ = *std::move(ns);
    segment_bytes_ = TenantNumber(*client_, "/tiers/1/segment_bytes");
    if (!nvme || TenantNumber(*client_, "/tiers/1/bytes") > 0) return Status::Ok();
    return Status(StatusCode::kNoSpace, "the tier is off; what the daemon says stands above");
  }

  // What both tiers take, several to a segment.
  uint32_t MixedMost() const {
    const auto most = static_cast<uint32_t>(segment_bytes_ / 4);
    return std::clamp(most, kSmallMost, client_->chunk_bytes_max());
  }

  Phase Requests(const Population& population, uint64_t seed, double put_bytes,
                 uint64_t requests_max) {
    ChurnPlayer player(ns_, payloads_, WhenBusy::kWait);
    Random random(seed);
    Phase phase;
    const double before = ReadNvmeNumbers(*client_).loads;
    phase.tally = player.Play(population, random, put_bytes, requests_max);
    phase.loads = ReadNvmeNumbers(*client_).loads - before;
    return phase;
  }

  void Note(Churned* churned) {
    const NvmeNumbers numbers = ReadNvmeNumbers(*client_);
    churned->written_bytes += numbers.written_bytes;
    churned->reclaims += numbers.reclaims;
  }

  // Constant after construction.
  const std::string folder_, log_folder_;
  const ChurnOptions& options_;
  const Payloads payloads_;
  const double wanted_bytes_;
  const Population small_;

  std::optional<Population> mixed_;
  std::optional<BenchDaemon> daemon_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<Namespace> ns_;
  double segment_bytes_ = 0;
};

boost::json::object PhaseJson(const Phase& phase) {
  return {{"requests", phase.tally.requests},
          {"put_bytes", phase.tally.put_bytes},
          {"hit_ratio", phase.tally.ratio()},
          {"nvme_hit_ratio", phase.nvme_ratio()}};
}

void PrintJson(const Churned& churned) {
  const boost::json::object out{{"cap_bytes", churned.cap_bytes},
                                {"du_max_bytes", churned.du_bytes},
                                {"du_samples", churned.du_samples},
                                {"catalog_bytes", churned.catalog_bytes},
                                {"written_bytes", churned.written_bytes},
                                {"reclaims", churned.reclaims},
                                {"wrong_bytes", churned.Sum(&ChurnTally::wrong_bytes)},
                                {"refused_not_busy", churned.Sum(&ChurnTally::refused_not_busy)},
                                {"mixed", PhaseJson(churned.mixed)},
                                {"smaller", PhaseJson(churned.small)},
                                {"restarted", PhaseJson(churned.restarted)},
                                {"dram_alone", PhaseJson(churned.dram)}};
  std::printf("%s\n", boost::json::serialize(out).c_str());
}

void PrintPhase(const char* name, const Phase& phase) {
  std::printf("%-28s %8lu requests, %5.1f GiB put: hits %.4f (NVMe %.4f)\n", name,
              phase.tally.requests, static_cast<double>(phase.tally.put_bytes) / kGiB,
              phase.tally.ratio(), phase.nvme_ratio());
}

void Print(const Churned& churned) {
  PrintPhase("mixed sizes", churned.mixed);
  PrintPhase("the same, DRAM alone", churned.dram);
  PrintPhase("smaller sizes", churned.small);
  PrintPhase("after a restart", churned.restarted);
  std::printf("du %.1f MiB at most, of %.1f MiB that are allowed: %s (%lu looks)\n",
              static_cast<double>(churned.du_bytes) / kMiB,
              static_cast<double>(churned.cap_bytes) / kMiB,
              churned.du_bytes <= churned.cap_bytes ? "within" : "ABOVE", churned.du_samples);
  std::printf("of it the catalog %.1f MiB at the end; written %.1f GiB, %.0f segments reclaimed\n",
              static_cast<double>(churned.catalog_bytes) / kMiB, churned.written_bytes / kGiB,
              churned.reclaims);
  std::printf("wrong bytes %lu; refused, and not for busy: %lu\n",
              churned.Sum(&ChurnTally::wrong_bytes), churned.Sum(&ChurnTally::refused_not_busy));
}

}  // namespace

int RunChurnNvme(const std::string& folder, const ChurnOptions& options) {
  Churned churned;
  if (Status played = Run(folder, options).Play(&churned); !played.ok()) {
    std::fprintf(stderr, "terrace bench: %s\n", played.message().c_str());
    return 1;
  }
  if (options.json) {
    PrintJson(churned);
  } else {
    Print(churned);
  }
  if (churned.reclaims == 0) {
    std::fprintf(stderr, "terrace bench: the log was never full: raise --pools\n");
  }
  return churned.right() ? 0 : 1;
}

}  // namespace terrace
