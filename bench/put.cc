// `terrace bench put`: chunks of 1 MiB in batches of 16, two batches in flight, against the same
// copy with hash into memory that nobody manages, by the same number of processes, in turns.

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <boost/json.hpp>
#include <cstring>
#include <memory>

#include "bench/measure.h"
#include "bench/private_daemon.h"
#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/mem/memory_file.h"
#include "storage/mem/populator.h"
#include "storage/record/copy_hash.h"
#include "storage/record/record.h"

namespace terrace {
namespace {

constexpr uint32_t kChunk = 1 * kMiB;
constexpr uint32_t kBatch = 16;
constexpr uint32_t kBatches = 24;  // a turn: 384 MiB a process
constexpr uint64_t kSegment = 64 * kMiB;

enum Mode : uint32_t { kPutTurn, kCopyHashTurn, kMemcpyTurn, kEnd };

// Shared by the parent and its workers: a turn begins when all are ready.
struct Board {
  std::atomic<uint32_t> turn{0}, ready{0}, done{0};
  std::atomic<uint32_t> mode{kPutTurn};
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
    // As many bytes as a turn writes, on the same kind of pages.
    Result<MemoryFile> target =
        MemoryFile::Create("terrace-bench", uint64_t{kBatch} * kBatches * kChunk, {});
    if (target.ok()) {
      target_ = *std::move(target);
      (void)PopulateNow(target_.mapping().writable_data(), target_.bytes());
    }
  }

  void Run() {
    for (uint32_t turn = 1;; ++turn) {
      board_.ready.fetch_add(1);
      while (board_.turn.load() < turn) usleep(200);
      switch (static_cast<Mode>(board_.mode.load())) {
        case kPutTurn: Puts(); break;
        case kCopyHashTurn: Copies(true); break;
        case kMemcpyTurn: Copies(false); break;
        case kEnd: return;
      }
      board_.done.fetch_add(1);
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
      if (batch + 1 < kBatches) next = Begin();
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

  void Copies(bool hash) {
    uint64_t leaves[shm::kLeafCountMax];
    for (uint32_t batch = 0; batch < kBatches; ++batch) {
      for (uint32_t i = 0; i < kBatch; ++i) {
        uint8_t* to = target_.mapping().writable_data() + uint64_t{batch * kBatch + i} * kChunk;
        if (hash) {
          CopyAndHash(to, source_.data() + size_t{i} * kChunk, kChunk, leaves);
        } else {
          std::memcpy(to, source_.data() + size_t{i} * kChunk, kChunk);
        }
      }
    }
  }

  Board& board_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<Namespace> ns_;
  std::vector<std::byte> source_;
  MemoryFile target_;
};

struct Rates {
  double put = 0, copy_hash = 0, memcpy = 0;
  uint64_t failures = 0;
};

double Turn(Board& board, uint32_t clients, Mode mode, uint32_t turn) {
  while (board.ready.load() < clients) usleep(200);
  board.ready = 0;
  board.done = 0;
  board.mode = mode;
  const int64_t began = MonotonicNs();
  board.turn = turn;
  if (mode == kEnd) return 0;
  while (board.done.load() < clients) usleep(100);
  const auto bytes = static_cast<double>(uint64_t{clients} * kBatches * kBatch * kChunk);
  return bytes / static_cast<double>(MonotonicNs() - began);
}

Rates MeasurePuts(const std::string& socket, uint32_t clients, uint32_t rounds) {
  void* shared =
      mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* board = new (shared) Board;
  board->key = uint64_t{clients} << 40;
  std::vector<pid_t> workers;
  for (uint32_t i = 0; i < clients; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      Worker(*board, socket).Run();
      _exit(0);
    }
    workers.push_back(pid);
  }
  std::vector<double> puts, hashes, copies;
  uint32_t turn = 0;
  // The first rounds map every segment of the pool writable in every worker.
  for (int warm = 0; warm < 4; ++warm) (void)Turn(*board, clients, kPutTurn, ++turn);
  for (uint32_t round = 0; round < rounds; ++round) {
    puts.push_back(Turn(*board, clients, kPutTurn, ++turn));
    hashes.push_back(Turn(*board, clients, kCopyHashTurn, ++turn));
    copies.push_back(Turn(*board, clients, kMemcpyTurn, ++turn));
  }
  (void)Turn(*board, clients, kEnd, ++turn);
  for (const pid_t pid : workers) waitpid(pid, nullptr, 0);
  const Rates rates{.put = Median(puts),
                    .copy_hash = Median(hashes),
                    .memcpy = Median(copies),
                    .failures = board->failures};
  munmap(shared, sizeof(Board));
  return rates;
}

}  // namespace

int RunPutBench(const PutBenchOptions& options) {
  boost::json::array out;
  uint64_t failures = 0;
  for (const uint32_t clients : options.clients) {
    Progress(std::to_string(clients) + " client processes");
    const Result<PrivateDaemon> daemon =
        PrivateDaemon::Start({"--dram", "2GiB", "--segment", std::to_string(kSegment)});
    if (!daemon.ok()) {
      std::fprintf(stderr, "terrace bench: %s\n", daemon.status().message().c_str());
      return 1;
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
