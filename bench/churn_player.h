#pragma once

// The client of `terrace bench churn`: requests drawn from a population, each hit compared byte for
// byte, each miss put, as an engine would.
//
// Threads: one.

#include <cstdint>
#include <memory>

#include "bench/payloads.h"
#include "bench/population.h"
#include "client/core/client.h"

namespace terrace {

struct ChurnTally {
  uint64_t requests = 0, hits = 0, put_bytes = 0, wrong_bytes = 0, refused_not_busy = 0;

  double ratio() const {
    return requests == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(requests);
  }
};

// What a put does while the pool is full of what cannot leave.
enum class WhenBusy : uint8_t {
  kGoOn,
  kWait,  // up to 2 s: what waits to be written to NVMe has left by then
};

class ChurnPlayer {
 public:
  ChurnPlayer(std::shared_ptr<Namespace> ns, const Payloads& payloads, WhenBusy when_busy)
      : ns_(std::move(ns)), payloads_(payloads), when_busy_(when_busy) {}

  // Requests of the population, until `put_bytes` were put or `requests_max` were made, or the
  // daemon has died.
  ChurnTally Play(const Population& population, Random& random, double put_bytes,
                  uint64_t requests_max);

 private:
  void Request(uint64_t number, uint32_t bytes, ChurnTally* tally);
  StatusCode Put(const PutItem& item);

  std::shared_ptr<Namespace> ns_;
  const Payloads& payloads_;
  const WhenBusy when_busy_;
  bool gone_ = false;
};

}  // namespace terrace
