#pragma once

// Small tools of the workloads: quantiles, seeded randomness, progress, page size of a daemon.
//
// Threads: values.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "client/core/client.h"
#include "storage/base/limits.h"

namespace terrace {

// REQUIRES: not empty.  Reorders `samples`.
inline double Quantile(std::vector<double>& samples, double share) {
  const auto at = static_cast<size_t>(share * static_cast<double>(samples.size() - 1));
  std::nth_element(samples.begin(), samples.begin() + static_cast<ptrdiff_t>(at), samples.end());
  return samples[at];
}

inline double Median(std::vector<double> samples) { return Quantile(samples, 0.5); }

class Random {  // SplitMix64
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t Below(uint64_t bound) { return Next() % bound; }

 private:
  uint64_t state_;
};

inline void Progress(const std::string& words) {
  std::fprintf(stderr, "bench: %s\n", words.c_str());
}

// A number of the first tenant's status, by JSON pointer from there ("/counters/puts"); 0 when the
// daemon does not answer or says nothing of it.
double TenantNumber(Client& client, const std::string& pointer);

inline uint64_t PageBytes(Client& client) {
  return static_cast<uint64_t>(TenantNumber(client, "/tiers/0/page_bytes"));
}

// Until the daemon has touched every page of its DRAM; false when `wait_ns` have passed before.
bool AwaitPopulated(Client& client, int64_t wait_ns);

// Bytes that this process has mapped by pages of 2 MiB, whatever was asked for.
uint64_t HugeMappedBytes();

// The key of number `n`, 32 bytes.
shm::ChunkKey NumberedKey(uint64_t n);

// The workloads.  `folder`: where a private daemon may put its socket.  Each answers its exit code.

struct HitOptions {
  std::string socket;  // empty: a private daemon
  uint64_t entries = 1'000'000;
  uint64_t index_slots = 0;
  bool json = false;
};
int RunHit(const std::string& folder, const HitOptions& options);

struct PutBenchOptions {
  std::string socket;  // empty: a private daemon
  std::vector<uint32_t> clients = {1, 2, 4};
  uint32_t rounds = 9;
  bool json = false;
};
int RunPutBench(const std::string& folder, const PutBenchOptions& options);

struct ChurnOptions {
  double pools = 10;  // of puts, before the sizes change; with `nvme` logs of them
  uint64_t nvme_bytes = 4 * kGiB;
  bool json = false;
};
int RunChurn(const std::string& folder, const ChurnOptions& options);
// With an NVMe tier of nvme_bytes in `folder`; answers 1 when du was above that.
int RunChurnNvme(const std::string& folder, const ChurnOptions& options);

struct TraceOptions {
  std::string file;
  std::vector<double> shares = {0.02, 0.05, 0.10};
  uint64_t nvme_bytes = 0;  // of a tier in the run's folder; 0: DRAM alone, beside LRU
  bool json = false;
};
int RunTrace(const std::string& folder, const TraceOptions& options);

struct NvmeBenchOptions {
  uint64_t bytes = 4 * kGiB;  // of the tier; fio's file is as large
  uint32_t rounds = 9;
  bool json = false;
};
int RunNvmeBench(const std::string& folder, const NvmeBenchOptions& options);

struct CodecBenchOptions {
  std::string kv;  // a file of scripts/dump-demo-kv
  // A chunk.  The demo's model has 192 channels: its 256 tokens make frames of 96 KiB, as larger
  // models' 64 do.
  uint32_t tokens = 256;
  uint32_t rounds = 9;
  bool json = false;
};
int RunCodec(const CodecBenchOptions& options);

}  // namespace terrace
