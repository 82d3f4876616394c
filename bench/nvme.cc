// `terrace bench nvme`: gets and write-behind of the NVMe tier against fio on the same file system,
// in turns: records of 68 KiB and 1,028 KiB (a chunk and its header), on files that were written
// from end to end before.  What is in DRAM is not asked for.

#include <sys/statvfs.h>

#include <algorithm>
#include <boost/json.hpp>
#include <map>
#include <optional>
#include <thread>

#include "bench/bench_daemon.h"
#include "bench/fio.h"
#include "bench/measure.h"
#include "bench/nvme_traffic.h"
#include "bench/payloads.h"
#include "bench/population.h"
#include "bench/ring.h"
#include "storage/base/clock.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

constexpr uint32_t kLarge = 1 * kMiB, kSmall = 64 * kKiB;
constexpr uint64_t kHeader = 4 * kKiB;
constexpr GetDepth kLargeDepth{.calls = 4, .keys = 1};  // 4 chunks in flight
constexpr GetDepth kSmallDepth{.calls = 2, .keys = 8};  // 16
constexpr uint64_t kLargeFirst = 1, kSmallFirst = 100'000, kPutFirst = 200'000;
constexpr uint64_t kHugePage = 2 * kMiB;
constexpr int64_t kPopulateNs = 60 * kNsPerSecond;
// Chunks of the Zipf mix, as a multiple of what its log holds; and how many logs' worth of writes
// come before those that count, and these.
constexpr double kMixWanted = 4, kMixLogsBefore = 1.25, kMixLogs = 2;
constexpr uint32_t kMixChunkMax = 4 * kMiB;
constexpr double kMissedShareMax = 0.01;
constexpr uint64_t kRingBytesMax = 1 * kGiB;

// By the size of the log.
// Half a segment of a smaller pool would not hold a record of 1,028 KiB.
uint64_t DramBytes(uint64_t bytes) { return std::max(bytes / 8, 64 * kMiB); }
uint64_t TurnBytes(uint64_t bytes) { return bytes / 8; }

struct Tier {
  BenchDaemon daemon;
  std::unique_ptr<Client> client;
  std::shared_ptr<Namespace> ns;
};

Result<Tier> OpenTier(const std::string& folder, const std::string& log, uint64_t log_bytes,
                      uint64_t dram_bytes) {
  Result<BenchDaemon> daemon =
      BenchDaemon::Start(folder, {"--dram", std::to_string(dram_bytes), "--nvme", log,
                                  "--nvme-bytes", std::to_string(log_bytes)});
  if (!daemon.ok()) return daemon.status();
  ClientOptions wanted;
  wanted.socket = daemon->socket();
  wanted.client_name = "bench nvme";
  Result<std::unique_ptr<Client>> client = Client::Connect(wanted);
  if (!client.ok()) return client.status();
  NamespaceIdentity identity;
  identity.label = "nvme";
  Result<std::shared_ptr<Namespace>> ns = (*client)->Register(identity);
  if (!ns.ok()) return ns.status();
  if (!AwaitPopulated(**client, kPopulateNs)) Progress("the pool is not populated after a minute");
  return Tier{.daemon = *std::move(daemon), .client = *std::move(client), .ns = *std::move(ns)};
}

// What was measured in the rounds, in MB/s of records, and what went wrong.
struct Found {
  std::map<std::string, std::vector<double>> mbps;
  uint64_t missed = 0, gets = 0, wrong_bytes = 0, refused = 0, not_loaded = 0;
  uint64_t page_bytes = 0;
  double write_amplification = 0;
  double dram_moved = 0;         // during gets
  double read_budget_bytes = 0;  // as the start tuned it

  double Median(const std::string& name) const { return terrace::Median(mbps.at(name)); }
  bool right() const {
    return wrong_bytes == 0 && refused == 0 &&
           static_cast<double>(missed + not_loaded) <= kMissedShareMax * static_cast<double>(gets);
  }
};

class Rounds {
 public:
  Rounds(Tier& tier, const Fio& fio, Ring& ring, std::string fio_file, uint64_t bytes,
         const Payloads& payloads, Found* found)
      : tier_(tier),
        fio_(fio),
        ring_(ring),
        fio_file_(std::move(fio_file)),
        bytes_(bytes),
        payloads_(payloads),
        found_(*found),
        large_(kLargeFirst, bytes * 3 / 8 / kLarge, kLarge),
        small_(kSmallFirst, bytes / 8 / kSmall, kSmall),
        putter_(*tier.client, *tier.ns, payloads, kPutFirst, kLarge,
                static_cast<uint32_t>(DramBytes(bytes) / 6 / kLarge)) {}

  bool Fill() {
    putter_.Fill(small_);
    putter_.Fill(large_);
    return putter_.AwaitWritten();
  }

  Status Round() {
    const uint64_t large_count = TurnBytes(bytes_) / kLarge, small_count = large_count * 8;
    if (Status read = FioRead("fio_read_1m", large_, 4); !read.ok()) return read;
    if (Status read = RingRead("ring_read_1m", large_, 4); !read.ok()) return read;
    LeadIn(large_, kLargeDepth);
    Get("get_1m", large_, kLargeDepth, large_count, false);
    Get("payload_get_1m", large_, kLargeDepth, large_count, true);
    if (Status read = FioRead("fio_read_64k", small_, 16); !read.ok()) return read;
    if (Status read = RingRead("ring_read_64k", small_, 16); !read.ok()) return read;
    Get("get_64k", small_, kSmallDepth, small_count, false);
    if (Status written = FioWrite(); !written.ok()) return written;
    if (Status written = RingWrite(); !written.ok()) return written;
    Note("demote", putter_.Write(large_count), kLarge);
    if (!putter_.AwaitWritten()) return Status(StatusCode::kDeadline, "nothing is written");
    putter_.Forget();
    LeadIn(large_, kLargeDepth);
    Get("read_alone", large_, kLargeDepth, large_count, false);
    std::atomic<bool> stop{false};
    std::thread writes([&] { putter_.WriteUntil(stop); });
    Get("read_while_demoting", large_, kLargeDepth, large_count, false);
    stop = true;
    writes.join();
    found_.refused = putter_.refused();
    if (!putter_.AwaitWritten()) return Status(StatusCode::kDeadline, "nothing is written");
    putter_.Forget();
    return tier_.client->available() ? Status::Ok()
                                     : Status(StatusCode::kUnavailable, "the daemon has ended");
  }

 private:
  Status RunFio(const std::string& name, FioJob job) {
    job.file = fio_file_;
    job.io_bytes = TurnBytes(bytes_);
    const Result<double> rate = fio_.Run(job);
    if (rate.ok()) found_.mbps[name].push_back(*rate / 1e6);
    return rate.status();
  }

  // Over as much of its file as the chunks take in the log.
  Status FioRead(const std::string& name, const ChunkSet& set, uint32_t depth) {
    FioJob job{.file = "", .pattern = "randread", .block_bytes = set.payload_bytes() + kHeader};
    job.depth = depth;
    job.range_bytes = set.count() * job.block_bytes;
    return RunFio(name, job);
  }

  Status RingRead(const std::string& name, const ChunkSet& set, uint32_t depth) {
    const uint64_t block_bytes = set.payload_bytes() + kHeader;
    return Noted(name, ring_.Run({.kind = IoKind::kRead,
                                  .block_bytes = block_bytes,
                                  .depth = depth,
                                  .range_bytes = set.count() * block_bytes,
                                  .io_bytes = TurnBytes(bytes_)}));
  }

  Status RingWrite() {
    return Noted("ring_write_1m", ring_.Run({.kind = IoKind::kWrite,
                                             .block_bytes = kLarge + kHeader,
                                             .depth = 4,
                                             .range_bytes = bytes_,
                                             .io_bytes = TurnBytes(bytes_)}));
  }

  Status Noted(const std::string& name, const Result<double>& rate) {
    if (rate.ok()) found_.mbps[name].push_back(*rate / 1e6);
    return rate.status();
  }

  // A pool whose memory clients wrote takes fresh memory for what comes from NVMe, once.
  void LeadIn(ChunkSet& set, GetDepth depth) {
    const uint64_t count = DramBytes(bytes_) / set.payload_bytes();
    found_.missed += GetFromNvme(*tier_.ns, payloads_, set, depth, count, false).missed;
    found_.gets += count;
  }

  // Front to back, as segments are written, and on from where it was.
  Status FioWrite() {
    FioJob job{.file = "", .pattern = "write", .block_bytes = kLarge + kHeader, .depth = 4};
    job.offset = fio_written_;
    job.range_bytes = TurnBytes(bytes_);
    fio_written_ = (fio_written_ + job.range_bytes) % bytes_;
    return RunFio("fio_write_1m", job);
  }

  void Note(const std::string& name, double records_per_s, uint64_t payload_bytes) {
    found_.mbps[name].push_back(records_per_s * static_cast<double>(payload_bytes + kHeader) / 1e6);
  }

  void Get(const std::string& name, ChunkSet& set, GetDepth depth, uint64_t count, bool read) {
    const NvmeNumbers before = ReadNvmeNumbers(*tier_.client);
    const Gotten gotten = GetFromNvme(*tier_.ns, payloads_, set, depth, count, read);
    const NvmeNumbers after = ReadNvmeNumbers(*tier_.client);
    const double loaded = after.loads - before.loads;
    found_.dram_moved += after.dram_moved - before.dram_moved;
    // Only what came from the device counts.
    const double share =
        gotten.chunks == 0 ? 0 : std::min(1.0, loaded / static_cast<double>(gotten.chunks));
    Note(name, gotten.chunks_per_s * share, set.payload_bytes());
    found_.gets += count;
    found_.missed += gotten.missed;
    found_.wrong_bytes += gotten.wrong_bytes;
    found_.not_loaded += static_cast<uint64_t>((1 - share) * static_cast<double>(gotten.chunks));
  }

  Tier& tier_;
  const Fio& fio_;
  Ring& ring_;
  const std::string fio_file_;
  const uint64_t bytes_;
  const Payloads& payloads_;
  Found& found_;
  ChunkSet large_, small_;
  Putter putter_;
  uint64_t fio_written_ = 0;
};

// Requests of a Zipf law, a miss is put, until the log was written over several times.
class Mix {
 public:
  Mix(Tier& tier, const Payloads& payloads, uint64_t log_bytes)
      : tier_(tier),
        payloads_(payloads),
        log_bytes_(static_cast<double>(log_bytes)),
        population_(0, kSmall, std::min(kMixChunkMax, tier.client->chunk_bytes_max()),
                    kMixWanted * log_bytes_) {}

  // Bytes to the device for each byte of payload that left DRAM for it.
  double WriteAmplification(Found* found) {
    WriteLogs(kMixLogsBefore, found);
    const NvmeNumbers before = ReadNvmeNumbers(*tier_.client);
    WriteLogs(kMixLogs, found);
    const NvmeNumbers after = ReadNvmeNumbers(*tier_.client);
    const double demoted = after.demoted_bytes - before.demoted_bytes;
    return demoted == 0 ? 0 : (after.written_bytes - before.written_bytes) / demoted;
  }

 private:
  void WriteLogs(double logs, Found* found) {
    const double until = ReadNvmeNumbers(*tier_.client).written_bytes + logs * log_bytes_;
    for (uint32_t i = 0; tier_.client->available(); ++i) {
      if (i % 64 == 0 && ReadNvmeNumbers(*tier_.client).written_bytes >= until) return;
      const uint64_t number = population_.Draw(random_);
      const uint32_t bytes = population_.BytesOf(number);
      const shm::ChunkKey key = NumberedKey(number);
      std::vector<GetResult> got = tier_.ns->Get(std::span(&key, 1));
      if (got.front().status == StatusCode::kOk) {
        found->wrong_bytes += payloads_.CountWrong(number, bytes, got.front().pin.bytes());
        continue;
      }
      const PutItem item{.key = key, .payload = payloads_.Of(number, bytes)};
      (void)tier_.ns->Put(std::span(&item, 1));  // a busy pool is part of the mix
    }
  }

  Tier& tier_;
  const Payloads& payloads_;
  const double log_bytes_;
  const Population population_;
  Random random_{11};
};

// `zeros`: for a log, which is empty then and written all the same.
Status WriteFile(const Fio& fio, const std::string& file, uint64_t bytes, bool zeros) {
  return fio
      .Run({.file = file,
            .pattern = "write",
            .block_bytes = 4 * kMiB,
            .depth = 4,
            .range_bytes = bytes,
            .io_bytes = bytes,
            .zeros = zeros})
      .status();
}

Status CheckRoom(const std::string& folder, uint64_t bytes) {
  struct statvfs room {};
  if (statvfs(folder.c_str(), &room) != 0) return ErrnoStatus("statvfs " + folder, errno);
  const uint64_t free_bytes = uint64_t{room.f_bavail} * room.f_frsize;
  // fio's file, the log, and the log of the mix; and some that others need.
  const uint64_t needed = bytes * 2 + bytes / 4 + 1 * kGiB;
  if (free_bytes >= needed) return Status::Ok();
  return Status(StatusCode::kNoSpace, folder + " has " + std::to_string(free_bytes / kMiB) +
                                          " MiB free, and " + std::to_string(needed / kMiB) +
                                          " are needed: name another --folder, or less --mib");
}

Status MeasureRounds(const std::string& folder, const Fio& fio, const NvmeBenchOptions& options,
                     const Payloads& payloads, Found* found) {
  const std::string log = folder + "/tier.log", file = folder + "/fio.file";
  Progress("writing two files of " + std::to_string(options.bytes / kMiB) + " MiB");
  for (const std::string& each : {file, log}) {
    Status written = WriteFile(fio, each, options.bytes, each == log);
    if (!written.ok()) return written;
  }
  Result<Ring> ring = Ring::Open(file, std::min(DramBytes(options.bytes), kRingBytesMax));
  if (!ring.ok()) return ring.status();
  std::optional<Result<Tier>> tier;
  for (const bool again : {false, true}) {
    tier.reset();  // one at a time has the log
    tier.emplace(OpenTier(folder, log, options.bytes, DramBytes(options.bytes)));
    if (!tier->ok()) return tier->status();
    Rounds rounds(**tier, fio, *ring, file, options.bytes, payloads, found);
    if (!again) {
      Progress("filling the log; then a start anew, with nothing in DRAM");
      if (!rounds.Fill()) return Status(StatusCode::kDeadline, "the log is not being filled");
      continue;
    }
    found->read_budget_bytes = TenantNumber(*(**tier).client, "/tiers/1/read_budget_bytes");
    found->page_bytes =
        std::min({PageBytes(*(**tier).client), fio.page_bytes(), ring->page_bytes()});
    for (uint32_t round = 1; round <= options.rounds; ++round) {
      Progress("round " + std::to_string(round) + " of " + std::to_string(options.rounds));
      if (Status done = rounds.Round(); !done.ok()) return done;
    }
  }
  return Status::Ok();
}

Status MeasureMix(const std::string& folder, const Fio& fio, const NvmeBenchOptions& options,
                  const Payloads& payloads, Found* found) {
  Progress("a Zipf mix on a log a quarter as large");
  const std::string log = folder + "/mix.log";
  const uint64_t bytes = options.bytes / 4;
  if (Status written = WriteFile(fio, log, bytes, true); !written.ok()) return written;
  Result<Tier> tier = OpenTier(folder, log, bytes, bytes / 4);
  if (!tier.ok()) return tier.status();
  found->write_amplification = Mix(*tier, payloads, bytes).WriteAmplification(found);
  return Status::Ok();
}

struct Ratio {
  const char* name;
  const char* of;
  const char* to;
  double target;  // 0: none
};
constexpr Ratio kRatios[] = {
    {"get_1m_qd4_vs_fio", "get_1m", "fio_read_1m", 0.90},
    {"get_64k_qd16_vs_fio", "get_64k", "fio_read_64k", 0.80},
    {"demote_vs_fio", "demote", "fio_write_1m", 0.90},
    {"read_while_demoting_vs_alone", "read_while_demoting", "read_alone", 0.75},
    {"payload_get_1m_vs_fio", "payload_get_1m", "fio_read_1m", 0},
    {"get_1m_qd4_vs_ring", "get_1m", "ring_read_1m", 0},
    {"get_64k_qd16_vs_ring", "get_64k", "ring_read_64k", 0},
    {"demote_vs_ring", "demote", "ring_write_1m", 0},
};

// The least and the most of the rounds' own ratios.
std::pair<double, double> Spread(const Found& found, const Ratio& ratio) {
  std::vector<double> each;
  for (size_t i = 0; i < found.mbps.at(ratio.of).size(); ++i) {
    each.push_back(found.mbps.at(ratio.of)[i] / found.mbps.at(ratio.to)[i]);
  }
  const auto [least, most] = std::minmax_element(each.begin(), each.end());
  return {*least, *most};
}

void PrintJson(const Found& found) {
  boost::json::object out, spread, mbps;
  for (const Ratio& ratio : kRatios) {
    out[ratio.name] = found.Median(ratio.of) / found.Median(ratio.to);
    const auto [least, most] = Spread(found, ratio);
    spread[ratio.name] = boost::json::array{least, most};
  }
  for (const auto& [name, rates] : found.mbps) mbps[name] = Median(rates);
  out["write_amplification"] = found.write_amplification;
  out["spread"] = std::move(spread);
  out["mbps"] = std::move(mbps);
  out["page_bytes"] = found.page_bytes;
  out["read_budget_bytes"] = found.read_budget_bytes;
  out["judged"] = found.page_bytes == kHugePage;
  out["gets"] = found.gets;
  out["missed"] = found.missed;
  out["not_loaded"] = found.not_loaded;
  out["wrong_bytes"] = found.wrong_bytes;
  out["refused"] = found.refused;
  out["dram_moved_per_get"] = found.dram_moved / static_cast<double>(found.gets);
  std::printf("%s\n", boost::json::serialize(out).c_str());
}

void Print(const Found& found) {
  for (const Ratio& ratio : kRatios) {
    const auto [least, most] = Spread(found, ratio);
    std::printf("%-30s %.2f (%.2f to %.2f): %.0f MB/s to %.0f", ratio.name,
                found.Median(ratio.of) / found.Median(ratio.to), least, most,
                found.Median(ratio.of), found.Median(ratio.to));
    if (ratio.target > 0) std::printf(", wanted %.2f", ratio.target);
    std::printf("\n");
  }
  std::printf("%-30s %.2f, wanted 1.25 at most\n", "write_amplification",
              found.write_amplification);
  std::printf("%.0f KiB of reads in flight; on pages of %lu KiB%s\n",
              found.read_budget_bytes / kKiB, found.page_bytes / kKiB,
              found.page_bytes == kHugePage
                  ? ""
                  : ": not judged, for both sides need pages of 2 MiB (`terrace doctor`)");
  std::printf("%lu gets: %lu missed, %lu not from the device; puts refused %lu; wrong bytes %lu\n",
              found.gets, found.missed, found.not_loaded, found.refused, found.wrong_bytes);
  std::printf("each get made room in DRAM by copying %.2f chunks\n",
              found.dram_moved / static_cast<double>(found.gets));
}

Result<Found> Measure(const std::string& folder, const NvmeBenchOptions& options) {
  const Result<Fio> fio = Fio::Find(folder);
  if (!fio.ok()) return fio.status();
  if (Status room = CheckRoom(folder, options.bytes); !room.ok()) return room;
  const Payloads payloads(kMixChunkMax);
  Found found;
  Status measured = MeasureRounds(folder, *fio, options, payloads, &found);
  if (measured.ok()) measured = MeasureMix(folder, *fio, options, payloads, &found);
  if (!measured.ok()) return measured;
  return found;
}

}  // namespace

int RunNvmeBench(const std::string& folder, const NvmeBenchOptions& options) {
  const Result<Found> found = Measure(folder, options);
  if (!found.ok()) {
    std::fprintf(stderr, "terrace bench: %s\n", found.status().message().c_str());
    return 1;
  }
  if (options.json) {
    PrintJson(*found);
  } else {
    Print(*found);
  }
  return found->right() ? 0 : 1;
}

}  // namespace terrace
