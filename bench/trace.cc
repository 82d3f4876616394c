// `terrace bench trace`: a request trace through two client processes, one request at a time in
// trace order.  Each block is a chunk of 64 KiB; every hit is compared byte for byte.

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

using Request = std::vector<uint64_t>;

struct Answer {
  uint64_t prefix = 0, wrong = 0;
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
    const size_t matched = ns_->Match(keys).prefix;
    std::vector<GetResult> got = ns_->Get(std::span(keys).first(matched));
    while (answer.prefix < got.size() && got[answer.prefix].status == StatusCode::kOk) {
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
  double ratio = 0, moved_per_put = 0;
  uint64_t wrong = 0, failed = 0;
  bool ok = false;
};

Outcome Replay(const std::string& folder, const std::vector<Request>& requests, uint64_t capacity,
               const std::string& policy) {
  Outcome outcome;
  const uint64_t segments = (capacity + kRecordsASegment - 1) / kRecordsASegment + kOpenSegments;
  const Result<BenchDaemon> daemon =
      BenchDaemon::Start(folder, {"--dram", std::to_string(segments * kSegment), "--segment",
                                  std::to_string(kSegment), "--policy", policy});
  if (!daemon.ok()) {
    std::fprintf(stderr, "terrace bench: %s\n", daemon.status().message().c_str());
    return outcome;
  }
  const Payloads payloads(kPayload);
  Workers workers;
  std::vector<UniqueFd> ends;
  ends.reserve(kClients);
  for (int i = 0; i < kClients; ++i) {
    ends.emplace_back(Launch(workers, daemon->socket(), requests, payloads));
  }
  uint64_t hits = 0, references = 0;
  for (uint64_t number = 0; number < requests.size(); ++number) {
    const int end = ends[number % kClients].get();
    Answer answer;
    if (write(end, &number, sizeof number) != sizeof number ||
        read(end, &answer, sizeof answer) != sizeof answer) {
      std::fprintf(stderr, "terrace bench: a client died at request %lu\n", number);
      return outcome;
    }
    hits += answer.prefix;
    outcome.wrong += answer.wrong;
    outcome.failed += answer.failed;
    references += requests[number].size();
    if (number % 4000 == 3999) Progress(policy + ": " + std::to_string(number + 1) + " requests");
  }
  ends.clear();
  workers.Join();
  ClientOptions options;
  options.socket = daemon->socket();
  Result<std::unique_ptr<Client>> client = Client::Connect(options);
  if (!client.ok()) return outcome;
  const double put_records = TenantNumber(**client, "/counters/puts") * (kPayload + kPageBytes);
  const double moved_records = TenantNumber(**client, "/counters/moved") * (kPayload + kPageBytes);
  outcome.moved_per_put = put_records > 0 ? moved_records / put_records : 0;
  outcome.ratio = static_cast<double>(hits) / static_cast<double>(references);
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

}  // namespace

int RunTrace(const std::string& folder, const TraceOptions& options) {
  const Result<std::vector<Request>> requests = ReadTrace(options.file);
  if (!requests.ok()) {
    std::fprintf(stderr, "terrace bench: %s\n", requests.status().message().c_str());
    return 2;
  }
  std::unordered_set<uint64_t> distinct;
  for (const Request& request : *requests) distinct.insert(request.begin(), request.end());
  boost::json::array out;
  uint64_t wrong = 0;
  for (const double share : options.shares) {
    const auto capacity =
        static_cast<uint64_t>(std::floor(share * static_cast<double>(distinct.size())));
    const Outcome kept = Replay(folder, *requests, capacity, "gittins");
    const Outcome lru = Replay(folder, *requests, capacity, "lru");
    if (!kept.ok || !lru.ok) return 1;
    wrong += kept.wrong + lru.wrong;
    if (kept.failed + lru.failed != 0) {
      std::fprintf(stderr, "terrace bench: %lu puts failed, and not for busy\n",
                   kept.failed + lru.failed);
      return 1;
    }
    if (options.json) {
      out.push_back(boost::json::object{{"capacity_share", share},
                                        {"prefix_hit_ratio", kept.ratio},
                                        {"lru_prefix_hit_ratio", lru.ratio},
                                        {"moved_per_put", kept.moved_per_put},
                                        {"wrong_bytes", kept.wrong + lru.wrong}});
    } else {
      std::printf("capacity %.2f: prefix hits %.4f, lru %.4f, moved a put %.3f, wrong %lu\n", share,
                  kept.ratio, lru.ratio, kept.moved_per_put, kept.wrong + lru.wrong);
    }
  }
  if (options.json) std::printf("%s\n", boost::json::serialize(out).c_str());
  return wrong == 0 ? 0 : 1;
}

}  // namespace terrace
