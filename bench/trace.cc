// `terrace bench trace`: a request trace through two client processes, one request at a time in
// trace order.  Each block is a chunk of 64 KiB; every hit is compared byte for byte.
//
// With an NVMe tier the trace waits while much waits to be written: it has no times of its own, and
// what a disk can keep up with is another question (`terrace bench nvme`).

#include <sys/socket.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <memory>
#include <unordered_set>

#include "bench/bench_daemon.h"
#include "bench/measure.h"
#include "bench/nvme_traffic.h"
#include "bench/payloads.h"
#include "bench/workers.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

constexpr uint32_t kPayload = 64 * kKiB;
constexpr uint64_t kSegment = 2 * kMiB;
constexpr uint64_t kRecordsASegment = kSegment / (kPayload + kPageBytes);
constexpr int kClients = 2;
constexpr uint64_t kOpenSegments = 3 * kClients + 3;  // of the sessions and of survivors
constexpr int64_t kWrittenNs = 60 * kNsPerSecond;
constexpr uint32_t kLookUs = 200;
constexpr uint64_t kRequestsALook = 2;
// An engine that waits rather for a slow disk than computes.
constexpr GetOptions kGet{.timeout_ns = 10 * kNsPerSecond};

using Request = std::vector<uint64_t>;

struct Answer {
  uint64_t prefix = 0, from_nvme = 0, wrong = 0;  // blocks, those of them that NVMe had, bytes
  uint64_t failed = 0;  // puts that ended neither ok, nor exists, nor busy
};

class Player {
 public:
  Player(const std::string& socket, const Payloads& payloads) : payloads_(payloads) {
    ClientOptions options;
    options.socket = socket;
    options.client_name = "bench trace";
    client_ = Client::Create(options);
    const int64_t until = MonotonicNs() + 10 * kNsPerSecond;
    while (!client_->available() && MonotonicNs() < until) usleep(1000);
    NamespaceIdentity identity;
    identity.label = "trace";
    Result<std::shared_ptr<Namespace>> ns = client_->Register(identity);
    if (ns.ok()) ns_ = *ns;
  }

  // What an engine does: match, read the prefix, compute and put the rest.
  Answer Play(const Request& request) {
    Answer answer;
    if (ns_ == nullptr) return {.failed = request.size()};
    std::vector<shm::ChunkKey> keys;
    for (const uint64_t id : request) keys.push_back(NumberedKey(id));
    const MatchResult match = ns_->Match(keys);
    std::vector<GetResult> got = ns_->Get(std::span(keys).first(match.prefix), kGet);
    while (answer.prefix < got.size() && got[answer.prefix].status == StatusCode::kOk) {
      answer.from_nvme += match.states[answer.prefix] == KeyState::kNvme ? 1 : 0;
      answer.wrong +=
          payloads_.CountWrong(request[answer.prefix], kPayload, got[answer.prefix].pin.bytes());
      ++answer.prefix;
    }
    got.clear();
    std::vector<PutItem> items;
    for (size_t i = answer.prefix; i < request.size(); ++i) {
      items.push_back({.key = keys[i], .payload = payloads_.Of(request[i], kPayload)});
    }
    for (const StatusCode put : ns_->Put(items)) {
      if (put == StatusCode::kOk || put == StatusCode::kExists || put == StatusCode::kBusy)
        continue;
      ++answer.failed;
    }
    return answer;
  }

 private:
  const Payloads& payloads_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<Namespace> ns_;
};

// Starts a client process that plays the requests it is named, by number; answers our end, or -1.
int Launch(Workers& workers, const std::string& socket, const std::vector<Request>& requests,
           const Payloads& payloads) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) != 0) return -1;
  workers.Start([&] {
    close(ends[0]);
    Player player(socket, payloads);
    uint64_t number = 0;
    while (read(ends[1], &number, sizeof number) == sizeof number) {
      const Answer answer = player.Play(requests[number]);
      if (write(ends[1], &answer, sizeof answer) != sizeof answer) break;
    }
  });
  close(ends[1]);
  return ends[0];
}

struct Outcome {
  double ratio = 0, nvme_ratio = 0, moved_per_put = 0;
  double written_bytes = 0, evicted_nvme = 0;  // of the NVMe tier
  uint64_t wrong = 0, failed = 0;
  bool ok = false;
};

struct Setup {
  std::string name;       // for progress
  uint64_t capacity = 0;  // of DRAM, in blocks
  std::string policy = "gittins";
  uint64_t nvme_bytes = 0;  // 0: DRAM alone
};

Result<BenchDaemon> StartDaemon(const std::string& folder, const Setup& setup) {
  const uint64_t segments =
      (setup.capacity + kRecordsASegment - 1) / kRecordsASegment + kOpenSegments;
  std::vector<std::string> words = {"--dram",    std::to_string(segments * kSegment),
                                    "--segment", std::to_string(kSegment),
                                    "--policy",  setup.policy};
  if (setup.nvme_bytes != 0) {
    // Whole and fresh each time: what it has in it counts as a hit.
    const std::string log = folder + "/trace.terrace";
    unlink(log.c_str());
    words.insert(words.end(), {"--nvme", log, "--nvme-bytes", std::to_string(setup.nvme_bytes)});
  }
  return BenchDaemon::Start(folder, words);
}

// Until no more than an eighth of DRAM waits to be written.  False after a minute.
bool AwaitRoom(Client& client, uint64_t capacity) {
  const int64_t until_ns = MonotonicNs() + kWrittenNs;
  const auto most = static_cast<double>(capacity / 8);
  for (;;) {
    const NvmeNumbers numbers = ReadNvmeNumbers(client);
    if (numbers.demote_queue + numbers.demoting <= most) return true;
    if (MonotonicNs() >= until_ns) return false;
    usleep(kLookUs);
  }
}

// What the daemon counted.
void ReadCounters(Client& client, Outcome* outcome) {
  const double puts = TenantNumber(client, "/counters/puts");
  outcome->moved_per_put = puts > 0 ? TenantNumber(client, "/counters/moved") / puts : 0;
  outcome->written_bytes = ReadNvmeNumbers(client).written_bytes;
  outcome->evicted_nvme = TenantNumber(client, "/tiers/1/evicted");
}

Outcome Replay(const std::string& folder, const std::vector<Request>& requests,
               const Payloads& payloads, const Setup& setup) {
  Outcome outcome;
  const Result<BenchDaemon> daemon = StartDaemon(folder, setup);
  if (!daemon.ok()) {
    std::fprintf(stderr, "terrace bench: %s\n", daemon.status().message().c_str());
    return outcome;
  }
  Workers workers;
  std::vector<UniqueFd> ends;
  ends.reserve(kClients);
  for (int i = 0; i < kClients; ++i) {
    ends.emplace_back(Launch(workers, daemon->socket(), requests, payloads));
  }
  // After the forks: it has threads.
  ClientOptions options;
  options.socket = daemon->socket();
  const Result<std::unique_ptr<Client>> client = Client::Connect(options);
  if (!client.ok()) return outcome;
  if (setup.nvme_bytes != 0 && TenantNumber(**client, "/tiers/1/bytes") == 0) {
    std::fprintf(stderr, "terrace bench: the NVMe tier is off; the daemon says why above\n");
    return outcome;
  }
  uint64_t hits = 0, from_nvme = 0, references = 0;
  for (uint64_t number = 0; number < requests.size(); ++number) {
    const int end = ends[number % kClients].get();
    Answer answer;
    if (write(end, &number, sizeof number) != sizeof number ||
        read(end, &answer, sizeof answer) != sizeof answer) {
      std::fprintf(stderr, "terrace bench: a client died at request %lu\n", number);
      return outcome;
    }
    hits += answer.prefix;
    from_nvme += answer.from_nvme;
    outcome.wrong += answer.wrong;
    outcome.failed += answer.failed;
    references += requests[number].size();
    if (number % 4000 == 3999) {
      Progress(setup.name + ": " + std::to_string(number + 1) + " requests");
    }
    const bool look = setup.nvme_bytes != 0 && number % kRequestsALook == 0;
    if (look && !AwaitRoom(**client, setup.capacity)) {
      std::fprintf(stderr, "terrace bench: nothing is written to NVMe for a minute\n");
      return outcome;
    }
  }
  ends.clear();
  workers.Join();
  ReadCounters(**client, &outcome);
  outcome.ratio = static_cast<double>(hits) / static_cast<double>(references);
  outcome.nvme_ratio = static_cast<double>(from_nvme) / static_cast<double>(references);
  outcome.ok = true;
  return outcome;
}

Result<std::vector<Request>> ReadTrace(const std::string& file) {
  std::ifstream in(file);
  if (!in) return Status(StatusCode::kInvalid, "cannot read the trace " + file);
  std::vector<Request> requests;
  uint64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    boost::system::error_code error;
    const boost::json::value value = boost::json::parse(line, error);
    const boost::json::value* ids = error ? nullptr : value.find_pointer("/hash_ids", error);
    if (ids == nullptr || !ids->is_array()) {
      return Status(StatusCode::kInvalid,
                    file + ":" + std::to_string(number) + ": no request with hash_ids");
    }
    Request request;
    for (const boost::json::value& id : ids->as_array()) {
      request.push_back(id.to_number<uint64_t>());
    }
    requests.push_back(std::move(request));
  }
  if (in.bad() || requests.empty()) {
    return Status(StatusCode::kInvalid, "no requests in " + file + ": a line each, with hash_ids");
  }
  return requests;
}

struct Share {
  double share = 0;
  Outcome kept, other;  // other: with the NVMe tier, or LRU
};

boost::json::object ShareJson(const Share& found, bool nvme) {
  boost::json::object out{{"capacity_share", found.share},
                          {"prefix_hit_ratio", found.kept.ratio},
                          {"moved_per_put", found.kept.moved_per_put},
                          {"wrong_bytes", found.kept.wrong + found.other.wrong}};
  if (!nvme) {
    out["lru_prefix_hit_ratio"] = found.other.ratio;
    return out;
  }
  out["tiered_prefix_hit_ratio"] = found.other.ratio;
  out["dram_hit_ratio"] = found.other.ratio - found.other.nvme_ratio;
  out["nvme_hit_ratio"] = found.other.nvme_ratio;
  out["nvme_written_bytes"] = found.other.written_bytes;
  out["nvme_evicted"] = found.other.evicted_nvme;
  return out;
}

void Print(const Share& found, bool nvme) {
  const uint64_t wrong = found.kept.wrong + found.other.wrong;
  if (!nvme) {
    std::printf("capacity %.2f: prefix hits %.4f, lru %.4f, moved a put %.3f, wrong %lu\n",
                found.share, found.kept.ratio, found.other.ratio, found.kept.moved_per_put, wrong);
    return;
  }
  std::printf(
      "capacity %.2f: prefix hits %.4f (DRAM %.4f + NVMe %.4f), DRAM alone %.4f; written %.1f GiB, "
      "evicted there %.0f, wrong %lu\n",
      found.share, found.other.ratio, found.other.ratio - found.other.nvme_ratio,
      found.other.nvme_ratio, found.kept.ratio, found.other.written_bytes / kGiB,
      found.other.evicted_nvme, wrong);
}

}  // namespace

int RunTrace(const std::string& folder, const TraceOptions& options) {
  const Result<std::vector<Request>> requests = ReadTrace(options.file);
  if (!requests.ok()) {
    std::fprintf(stderr, "terrace bench: %s\n", requests.status().message().c_str());
    return 2;
  }
  std::unordered_set<uint64_t> distinct;
  for (const Request& request : *requests) distinct.insert(request.begin(), request.end());
  const Payloads payloads(kPayload);
  const bool nvme = options.nvme_bytes != 0;
  boost::json::array out;
  uint64_t wrong = 0;
  for (const double share : options.shares) {
    const auto capacity =
        static_cast<uint64_t>(std::floor(share * static_cast<double>(distinct.size())));
    Setup setup{.name = "DRAM", .capacity = capacity};
    Share found{.share = share, .kept = Replay(folder, *requests, payloads, setup), .other = {}};
    setup.name = nvme ? "DRAM and NVMe" : "LRU";
    setup.nvme_bytes = options.nvme_bytes;
    if (!nvme) setup.policy = "lru";
    found.other = Replay(folder, *requests, payloads, setup);
    if (!found.kept.ok || !found.other.ok) return 1;
    wrong += found.kept.wrong + found.other.wrong;
    if (const uint64_t failed = found.kept.failed + found.other.failed; failed != 0) {
      std::fprintf(stderr, "terrace bench: %lu puts failed, and not for busy\n", failed);
      return 1;
    }
    if (options.json) {
      out.push_back(ShareJson(found, nvme));
    } else {
      Print(found, nvme);
    }
  }
  if (options.json) std::printf("%s\n", boost::json::serialize(out).c_str());
  return wrong == 0 ? 0 : 1;
}

}  // namespace terrace
