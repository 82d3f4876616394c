// `terrace bench hit`: lookup + pin + first byte of a chunk in DRAM, from another process than the
// daemon, against dependent random accesses to other lines of the same payloads.

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <boost/json.hpp>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>

#include "bench/bench_daemon.h"
#include "bench/measure.h"
#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/mem/machine_memory.h"

namespace terrace {
namespace {

constexpr uint32_t kPayloadBytes = 4096;
constexpr uint32_t kSamples = 200'000;
constexpr uint32_t kMatchKeys = 256;
constexpr int kCountedHits = 10'000;
constexpr uint64_t kNotCounted = UINT64_MAX;

std::atomic<uint64_t> trapped_calls{0};

// Runs `work` on a thread in which every system call but those of its end traps, and counts.
template <typename Work>
uint64_t CountSystemCalls(Work work) {
  struct sigaction action {};
  action.sa_handler = [](int) { trapped_calls.fetch_add(1); };
  sigaction(SIGSYS, &action, nullptr);
  trapped_calls = 0;
  std::thread([&work] {
    // The thread's end frees, and the first use of the heap maps an arena: before the filter.
    const auto touched = std::make_unique<char[]>(64);
    asm volatile("" : : "r"(touched.get()) : "memory");
    sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigprocmask, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rseq, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog program{.len = std::size(filter), .filter = filter};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) {
      trapped_calls = kNotCounted;
      return;
    }
    work();
  }).join();
  return trapped_calls;
}

// Keeps the calling process on the n-th of the CPUs that it may use; false when it has fewer.
bool StayOn(uint32_t n) {
  cpu_set_t may, one;
  CPU_ZERO(&may);
  CPU_ZERO(&one);
  if (sched_getaffinity(0, sizeof may, &may) != 0) return false;
  for (size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &may) || n-- != 0) continue;
    CPU_SET(cpu, &one);
    return sched_setaffinity(0, sizeof one, &one) == 0;
  }
  return false;
}

// A byte there and back between two processes on two CPUs; 0 where there is only one.
double SocketPingNs() {
  cpu_set_t before;
  if (sched_getaffinity(0, sizeof before, &before) != 0 || CPU_COUNT(&before) < 2) return 0;
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return 0;
  const pid_t echo = fork();
  char byte = 0;
  if (echo == 0) {
    close(ends[0]);
    (void)StayOn(1);
    while (read(ends[1], &byte, 1) == 1 && write(ends[1], &byte, 1) == 1) {
    }
    _exit(0);
  }
  close(ends[1]);
  (void)StayOn(0);
  std::vector<double> samples;
  for (int i = 0; i < 5000; ++i) {
    const int64_t began = MonotonicNs();
    if (write(ends[0], &byte, 1) != 1 || read(ends[0], &byte, 1) != 1) break;
    samples.push_back(static_cast<double>(MonotonicNs() - began));
  }
  close(ends[0]);
  waitpid(echo, nullptr, 0);
  (void)sched_setaffinity(0, sizeof before, &before);
  return samples.empty() ? 0 : Median(std::move(samples));
}

struct Hits {
  double p50 = 0, p99 = 0, dram_random = 0, match256_us = 0;
  uint64_t system_calls = 0, misses = 0;
};

StatusCode Fill(Namespace& ns, uint64_t entries) {
  const std::vector<std::byte> payload(kPayloadBytes, std::byte{1});
  std::vector<PutItem> batch;
  for (uint64_t n = 0; n < entries; ++n) {
    batch.push_back({.key = NumberedKey(n), .payload = payload});
    if (batch.size() < kBatchKeysMax && n + 1 < entries) continue;
    for (const StatusCode code : ns.Put(batch)) {
      if (code != StatusCode::kOk) return code;
    }
    batch.clear();
    if ((n + 1) % (kBatchKeysMax * 1000) == 0) Progress("put " + std::to_string(n + 1));
  }
  return StatusCode::kOk;
}

// Timed one by one; the clock's own cost is taken off.
Hits Measure(Namespace& ns, uint64_t entries) {
  Hits hits;
  Random random(7);
  std::vector<double> samples, empty;
  std::vector<const std::byte*> lines;
  uint64_t sum = 0;
  for (uint32_t i = 0; i < kSamples; ++i) {
    const shm::ChunkKey key = NumberedKey(random.Below(entries));
    Pin pin;
    const int64_t began = MonotonicNs();
    const StatusCode found = ns.GetOne(key, &pin);
    if (found != StatusCode::kOk) {
      ++hits.misses;
      continue;
    }
    sum += static_cast<uint64_t>(pin.bytes()[0]);
    const int64_t ended = MonotonicNs();
    const int64_t after = MonotonicNs();
    samples.push_back(static_cast<double>(ended - began));
    empty.push_back(static_cast<double>(after - ended));
    lines.push_back(pin.bytes().data());
  }
  if (samples.empty()) return hits;
  const double clock = Median(empty);
  hits.p50 = std::max(Quantile(samples, 0.5) - clock, 1.0);
  hits.p99 = std::max(Quantile(samples, 0.99) - clock, 1.0);

  // Each address depends on the byte before: nothing overlaps.  Other lines of the same chunks, so
  // that what the hits left in the caches does not help.
  volatile uint64_t unknown = 0;
  const uint64_t mask = unknown;  // zero, which the compiler cannot know
  uint64_t carry = 0;
  const int64_t began = MonotonicNs();
  for (const std::byte* line : lines) {
    carry = static_cast<uint64_t>(*(line + 2048 + (carry & mask)));
    asm volatile("" : "+r"(carry));
  }
  hits.dram_random = static_cast<double>(MonotonicNs() - began) / static_cast<double>(lines.size());

  std::vector<double> matches;
  for (int round = 0; round < 2000; ++round) {
    std::vector<shm::ChunkKey> keys;
    for (uint32_t i = 0; i < kMatchKeys; ++i) keys.push_back(NumberedKey(random.Below(entries)));
    const int64_t start = MonotonicNs();
    const MatchResult match = ns.Match(keys);
    matches.push_back(static_cast<double>(MonotonicNs() - start) / 1000);
    if (match.prefix != kMatchKeys) ++hits.misses;
  }
  hits.match256_us = Median(matches);
  hits.system_calls = CountSystemCalls([&] {
    for (int i = 0; i < kCountedHits; ++i) {
      Pin pin;
      if (ns.GetOne(NumberedKey(random.Below(entries)), &pin) != StatusCode::kOk) ++hits.misses;
    }
  });
  asm volatile("" : : "r"(sum));
  return hits;
}

int Fail(const std::string& words) {
  std::fprintf(stderr, "terrace bench: %s\n", words.c_str());
  return 1;
}

Result<BenchDaemon> DaemonFor(const std::string& folder, const HitOptions& options) {
  if (!options.socket.empty()) return BenchDaemon::Borrow(options.socket);
  constexpr uint64_t kSegment = 32 * kMiB;
  const uint64_t pool =
      (options.entries * 2 * kPageBytes / kSegment + 8) * kSegment;  // and the open ones
  const Result<MachineMemory> machine = ReadMachineMemory();
  if (!machine.ok()) return machine.status();
  const Status fits = CheckDramBytes(pool, *machine, true);
  if (!fits.ok()) return Status(fits.code(), fits.message() + ": or use fewer --entries");
  std::vector<std::string> arguments = {"--dram", std::to_string(pool), "--segment", "32MiB"};
  if (options.index_slots != 0) {
    arguments.insert(arguments.end(), {"--index-slots", std::to_string(options.index_slots)});
  }
  return BenchDaemon::Start(folder, arguments);
}

}  // namespace

int RunHit(const std::string& folder, const HitOptions& options) {
  Result<BenchDaemon> daemon = DaemonFor(folder, options);
  if (!daemon.ok()) return Fail(daemon.status().message());
  ClientOptions wanted;
  wanted.socket = daemon->socket();
  Result<std::unique_ptr<Client>> client = Client::Connect(wanted);
  if (!client.ok()) return Fail(client.status().message());
  NamespaceIdentity identity;
  identity.label = "bench";
  Result<std::shared_ptr<Namespace>> ns = (*client)->Register(identity);
  if (!ns.ok()) return Fail(ns.status().message());

  Progress("putting " + std::to_string(options.entries) + " chunks of 4 KiB");
  const StatusCode filled = Fill(**ns, options.entries);
  if (filled != StatusCode::kOk) return Fail("a put ended " + std::string(StatusCodeName(filled)));
  const Hits hits = Measure(**ns, options.entries);
  // Transparent huge pages are a wish: what counts is what this process has mapped by now.
  const bool huge = HugeMappedBytes() >= options.entries * 2 * kPageBytes / 10 * 9;
  const uint64_t pages = huge ? PageBytes(**client) : kPageBytes;
  const double ping = SocketPingNs();
  const double ratio = hits.dram_random > 0 ? hits.p50 / hits.dram_random : 0;
  std::optional<double> calls;
  if (hits.system_calls != kNotCounted) {
    calls = static_cast<double>(hits.system_calls) / kCountedHits;
  }
  if (options.json) {
    const boost::json::object out{
        {"entries", options.entries},
        {"p50_ns", hits.p50},
        {"p99_ns", hits.p99},
        {"dram_random_ns", hits.dram_random},
        {"p50_vs_dram_random", ratio},
        {"socket_ping_ns", ping},
        {"match256_us", hits.match256_us},
        {"syscalls_per_op", calls.has_value() ? boost::json::value(*calls) : nullptr},
        {"misses", hits.misses},
        {"page_bytes", pages},
        {"judged", pages == kHugePageBytes}};
    std::printf("%s\n", boost::json::serialize(out).c_str());
  } else {
    std::printf("hit among %lu chunks: p50 %.0f ns, p99 %.0f ns\n", options.entries, hits.p50,
                hits.p99);
    std::printf("dependent random access %.0f ns: %.2f of them a hit\n", hits.dram_random, ratio);
    std::printf("match of 256 keys %.1f us; socket ping between two CPUs %.0f ns\n",
                hits.match256_us, ping);
    std::printf("system calls a hit: %s\n",
                calls.has_value() ? std::to_string(*calls).c_str() : "cannot be counted here");
    if (pages != kHugePageBytes) {
      std::printf("not judged: %lu-byte pages; `terrace doctor` prints the two lines\n", pages);
    }
  }
  return hits.misses == 0 && calls.value_or(0) == 0 ? 0 : 1;
}

}  // namespace terrace
