// `terrace bench put`: chunks of 1 MiB in batches of 16, two batches in flight, against the same
// copy with hash into the same segments (claimed before, given up after), by the same number of
// processes, in turns.

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/json.hpp>
#include <cstring>
#include <memory>

#include "bench/bench_daemon.h"
#include "bench/measure.h"
#include "bench/workers.h"
#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/record/copy_hash.h"
#include "storage/record/record.h"

namespace terrace {
namespace {

constexpr uint32_t kChunk = 1 * kMiB;
constexpr uint32_t kBatch = 16;
constexpr uint32_t kBatches = 24;  // a turn: 384 MiB a process
constexpr uint64_t kSegment = 64 * kMiB;

// The claims of a copy turn take half of it at most.
constexpr uint64_t PoolBytes(uint32_t clients) {
  return std::max<uint64_t>(3 * kGiB, uint64_t{2} * clients * kBatches * kBatch * kChunk);
}

constexpr int kWarmRounds = 8;
constexpr int64_t kPopulateNs = 60 * kNsPerSecond;

enum class Mode : uint32_t { kPut, kCopyHash, kMemcpy, kEnd };

// Shared by the parent and its workers.  A turn: the parent names it, the workers prepare and say
// that they are ready, the parent lets them go, they say that they are done.
struct Board {
  std::atomic<Mode> mode{Mode::kPut};
  std::atomic<uint32_t> named{0}, started{0};  // turns
  std::atomic<uint32_t> ready{0}, done{0};     // workers
  std::atomic<uint64_t> failures{0};
  std::atomic<uint64_t> key{0};
};

class Worker {
 public:
  Worker(Board& board, const std::string& socket) : board_(board) {
    ClientOptions options;
    options.socket = socket;
    options.client_name = "bench put";
    client_ = Client::Create(options);
    const int64_t until = MonotonicNs() + 10 * kNsPerSecond;
    while (!client_->available() && MonotonicNs() < until) usleep(1000);
    NamespaceIdentity identity;
    identity.label = "bench";
    Result<std::shared_ptr<Namespace>> ns = client_->Register(identity);
    if (ns.ok()) ns_ = *ns;
    source_.assign(size_t{kChunk} * kBatch, std::byte{7});
  }

  void Run() {
    for (uint32_t turn = 1;; ++turn) {
      while (board_.named.load() < turn) usleep(200);
      const Mode mode = board_.mode.load();
      if (mode == Mode::kEnd) return;
      if (mode != Mode::kPut) Claim();
      board_.ready.fetch_add(1);
      while (board_.started.load() < turn) usleep(50);
      switch (mode) {
        case Mode::kPut: Puts(); break;
        case Mode::kCopyHash: Copies(true); break;
        case Mode::kMemcpy: Copies(false); break;
        case Mode::kEnd: break;
      }
      board_.done.fetch_add(1);
      claimed_.clear();
    }
  }

 private:
  Result<PutTicket> Begin() {
    std::vector<PutRequest> requests;
    for (uint32_t i = 0; i < kBatch; ++i) {
      requests.push_back({.key = NumberedKey(board_.key.fetch_add(1)), .payload_bytes = kChunk});
    }
    return ns_->BeginPut(requests);
  }

  void Puts() {
    if (ns_ == nullptr) {
      board_.failures.fetch_add(1);
      return;
    }
    std::vector<PutTicket> committing;
    Result<PutTicket> next = Begin();
    for (uint32_t batch = 0; batch < kBatches; ++batch) {
      if (!next.ok()) {
        board_.failures.fetch_add(kBatch);
        return;
      }
      PutTicket ticket = *std::move(next);
      next = batch + 1 < kBatches ? Begin() : Status(StatusCode::kNotFound);
      const auto grants = ticket.Wait();
      for (uint32_t i = 0; i < kBatch; ++i) {
        if (grants[i].status != StatusCode::kOk) continue;
        ticket.Fill(i, source_.data() + size_t{i} * kChunk);
      }
      ticket.CommitAsync();
      committing.push_back(std::move(ticket));
      if (committing.size() < 2) continue;
      Finish(committing.front());
      committing.erase(committing.begin());
    }
    for (PutTicket& ticket : committing) Finish(ticket);
  }

  void Finish(PutTicket& ticket) {
    for (const StatusCode code : ticket.Finish()) {
      if (code != StatusCode::kOk) board_.failures.fetch_add(1);
    }
  }

  // The room of a turn's chunks, for copies that nobody will commit.
  void Claim() {
    for (uint32_t batch = 0; batch < kBatches; ++batch) {
      Result<PutTicket> ticket = ns_ == nullptr ? Status(StatusCode::kUnavailable) : Begin();
      if (!ticket.ok()) {
        board_.failures.fetch_add(kBatch);
        continue;
      }
      for (const PutTicket::Grant& grant : ticket->Wait()) {
        if (grant.status != StatusCode::kOk) board_.failures.fetch_add(1);
      }
      claimed_.push_back(*std::move(ticket));
    }
  }

  void Copies(bool hash) {
    uint64_t leaves[shm::kLeafCountMax];
    for (PutTicket& ticket : claimed_) {
      const auto grants = ticket.Wait();
      for (uint32_t i = 0; i < kBatch; ++i) {
        if (grants[i].status != StatusCode::kOk) continue;
        const std::byte* const source = source_.data() + size_t{i} * kChunk;
        if (hash) {
          CopyAndHash(grants[i].payload, source, kChunk, leaves);
        } else {
          std::memcpy(grants[i].payload, source, kChunk);
        }
      }
    }
  }

  Board& board_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<Namespace> ns_;
  std::vector<std::byte> source_;
  std::vector<PutTicket> claimed_;
};

struct Rates {
  double put = 0, copy_hash = 0, memcpy = 0;
  uint64_t failures = 0;
};

// Waits until all workers have said so; false when one has ended instead.
bool Await(Workers& workers, const std::atomic<uint32_t>& said, uint32_t clients) {
  for (uint32_t looks = 1; said.load() < clients; ++looks) {
    usleep(100);
    if (looks % 1000 == 0 && !workers.AllRun()) return false;
  }
  return true;
}

// Answers the bytes a nanosecond of all workers together; 0 when one has ended.
double Turn(Board& board, Workers& workers, uint32_t clients, Mode mode) {
  board.ready = 0;
  board.done = 0;
  board.mode = mode;
  const uint32_t turn = board.named.fetch_add(1) + 1;
  if (mode == Mode::kEnd || !Await(workers, board.ready, clients)) return 0;
  const int64_t began = MonotonicNs();
  board.started = turn;
  if (!Await(workers, board.done, clients)) return 0;
  const auto bytes = static_cast<double>(uint64_t{clients} * kBatches * kBatch * kChunk);
  return bytes / static_cast<double>(MonotonicNs() - began);
}

Rates MeasurePuts(const std::string& socket, uint32_t clients, uint32_t rounds) {
  void* shared =
      mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* board = new (shared) Board;
  board->key = uint64_t{clients} << 40;
  Workers workers;
  for (uint32_t i = 0; i < clients; ++i) workers.Start([&] { Worker(*board, socket).Run(); });
  std::vector<double> puts, hashes, copies;
  // The first rounds map most segments writable in every worker: what is left makes puts slower.
  for (int warm = 0; warm < kWarmRounds; ++warm) (void)Turn(*board, workers, clients, Mode::kPut);
  for (uint32_t round = 0; round < rounds; ++round) {
    puts.push_back(Turn(*board, workers, clients, Mode::kPut));
    hashes.push_back(Turn(*board, workers, clients, Mode::kCopyHash));
    copies.push_back(Turn(*board, workers, clients, Mode::kMemcpy));
  }
  if (!workers.AllRun()) board->failures.fetch_add(1);
  (void)Turn(*board, workers, clients, Mode::kEnd);
  workers.Join();
  const Rates rates{.put = Median(puts),
                    .copy_hash = Median(hashes),
                    .memcpy = Median(copies),
                    .failures = board->failures};
  munmap(shared, sizeof(Board));
  return rates;
}

}  // namespace

int RunPutBench(const std::string& folder, const PutBenchOptions& options) {
  boost::json::array out;
  uint64_t failures = 0;
  for (const uint32_t clients : options.clients) {
    Progress(std::to_string(clients) + " client processes");
    const Result<BenchDaemon> daemon =
        options.socket.empty()
            ? BenchDaemon::Start(folder, {"--dram", std::to_string(PoolBytes(clients)), "--segment",
                                          std::to_string(kSegment)})
            : BenchDaemon::Borrow(options.socket);
    if (!daemon.ok()) {
      std::fprintf(stderr, "terrace bench: %s\n", daemon.status().message().c_str());
      return 1;
    }
    ClientOptions wanted;
    wanted.socket = daemon->socket();
    {
      Result<std::unique_ptr<Client>> client = Client::Connect(wanted);
      if (!client.ok()) {
        std::fprintf(stderr, "terrace bench: %s\n", client.status().message().c_str());
        return 1;
      }
      if (!AwaitPopulated(**client, kPopulateNs)) {
        Progress("not judged: the pool is not populated yet after a minute");
      }
    }
    const Rates rates = MeasurePuts(daemon->socket(), clients, options.rounds);
    failures += rates.failures;
    const double ratio = rates.put / rates.copy_hash;
    if (options.json) {
      out.push_back(boost::json::object{{"clients", clients},
                                        {"gbps", rates.put},
                                        {"copy_hash_gbps", rates.copy_hash},
                                        {"memcpy_gbps", rates.memcpy},
                                        {"vs_copy_hash", ratio},
                                        {"failures", rates.failures}});
    } else {
      std::printf("%u clients: put %.1f GB/s, copy with hash %.1f, memcpy %.1f: ratio %.2f\n",
                  clients, rates.put, rates.copy_hash, rates.memcpy, ratio);
    }
  }
  if (options.json) std::printf("%s\n", boost::json::serialize(out).c_str());
  return failures == 0 ? 0 : 1;
}

}  // namespace terrace
