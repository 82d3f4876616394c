#include "bench/churn_player.h"

#include <unistd.h>

#include "storage/base/clock.h"

namespace terrace {
namespace {

constexpr uint32_t kLookUs = 500;
constexpr int64_t kRoomNs = 2 * kNsPerSecond;

}  // namespace

ChurnTally ChurnPlayer::Play(const Population& population, Random& random, double put_bytes,
                             uint64_t requests_max) {
  ChurnTally tally;
  while (static_cast<double>(tally.put_bytes) < put_bytes && tally.requests < requests_max &&
         !gone_) {
    const uint64_t number = population.Draw(random);
    Request(number, population.BytesOf(number), &tally);
  }
  return tally;
}

void ChurnPlayer::Request(uint64_t number, uint32_t bytes, ChurnTally* tally) {
  ++tally->requests;
  const shm::ChunkKey key = NumberedKey(number);
  Pin pin;
  const StatusCode found = ns_->GetOne(key, &pin);
  if (found == StatusCode::kOk) {
    ++tally->hits;
    tally->wrong_bytes += payloads_.CountWrong(number, bytes, pin.bytes());
    return;
  }
  if (found != StatusCode::kNotFound && found != StatusCode::kBusy) ++tally->refused_not_busy;
  gone_ |= found == StatusCode::kUnavailable;
  const StatusCode put = Put({.key = key, .payload = payloads_.Of(number, bytes)});
  if (put == StatusCode::kOk) tally->put_bytes += bytes;
  if (put != StatusCode::kOk && put != StatusCode::kExists && put != StatusCode::kBusy) {
    ++tally->refused_not_busy;
  }
}

StatusCode ChurnPlayer::Put(const PutItem& item) {
  StatusCode put = ns_->Put(std::span(&item, 1)).front();
  if (when_busy_ == WhenBusy::kGoOn) return put;
  const int64_t until_ns = MonotonicNs() + kRoomNs;
  while (put == StatusCode::kBusy && MonotonicNs() < until_ns) {
    usleep(kLookUs);
    put = ns_->Put(std::span(&item, 1)).front();
  }
  return put;
}

}  // namespace terrace
