#include "bench/nvme_traffic.h"

#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <numeric>
#include <thread>
#include <utility>

#include "bench/measure.h"
#include "storage/base/clock.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

constexpr uint32_t kPutBatch = 16;
constexpr size_t kRemoveBatch = 256;
constexpr double kMeasuredShare = 0.8;
// A look costs the daemon some 0.1 ms.
constexpr uint32_t kLookUs = 3000;
constexpr int64_t kRoomNs = 2 * kNsPerSecond;
constexpr int64_t kWrittenNs = 60 * kNsPerSecond;

// One thread's share of the gets.
class Getter {
 public:
  Getter(Namespace& ns, const Payloads& payloads, ChunkSet& set, std::atomic<int64_t>& left,
         bool read)
      : ns_(ns), payloads_(payloads), set_(set), left_(left), read_(read) {}

  void Run(uint32_t keys_max) {
    while (true) {
      const auto wanted = static_cast<int64_t>(keys_max);
      const int64_t before = left_.fetch_sub(wanted);
      if (before <= 0) return;
      Choose(static_cast<size_t>(std::min(before, wanted)));
      if (keys_.empty()) return;
      Look(ns_.Get(keys_));
    }
  }

  Gotten gotten;

 private:
  // In DRAM are some that came by the last round.
  void Choose(size_t count) {
    numbers_.clear();
    keys_.clear();
    for (uint64_t tries = 0; keys_.size() < count && tries < 2 * set_.count(); ++tries) {
      const uint64_t number = set_.Next();
      const shm::ChunkKey key = NumberedKey(number);
      const MatchResult match = ns_.Match(std::span(&key, 1));
      const KeyState state = match.states.empty() ? KeyState::kAbsent : match.states.front();
      if (state != KeyState::kNvme) {
        gotten.missed += state == KeyState::kAbsent ? 1 : 0;
        continue;
      }
      numbers_.push_back(number);
      keys_.push_back(key);
    }
  }

  void Look(const std::vector<GetResult>& results) {
    for (size_t i = 0; i < results.size(); ++i) {
      if (results[i].status != StatusCode::kOk) {
        ++gotten.missed;
        continue;
      }
      ++gotten.chunks;
      const auto bytes = results[i].pin.bytes();
      if (read_) {
        gotten.wrong_bytes += payloads_.CountWrong(numbers_[i], set_.payload_bytes(), bytes);
      } else if (bytes.size() != set_.payload_bytes()) {
        ++gotten.wrong_bytes;
      }
    }
  }

  Namespace& ns_;
  const Payloads& payloads_;
  ChunkSet& set_;
  std::atomic<int64_t>& left_;
  const bool read_;
  std::vector<uint64_t> numbers_;
  std::vector<shm::ChunkKey> keys_;
};

double Seconds(int64_t since_ns) {
  return static_cast<double>(MonotonicNs() - since_ns) / kNsPerSecond;
}

}  // namespace

NvmeNumbers ReadNvmeNumbers(Client& client) {
  NvmeNumbers numbers;
  const Result<std::string> text = client.StatusJson();
  if (!text.ok()) return numbers;
  boost::system::error_code error;
  const boost::json::value status = boost::json::parse(*text, error);
  if (error) return numbers;
  const std::pair<const char*, double*> wanted[] = {{"demoted", &numbers.demoted},
                                                    {"demoted_bytes", &numbers.demoted_bytes},
                                                    {"demote_queue", &numbers.demote_queue},
                                                    {"demoting", &numbers.demoting},
                                                    {"loads", &numbers.loads},
                                                    {"load_bytes", &numbers.load_bytes},
                                                    {"written_bytes", &numbers.written_bytes},
                                                    {"reclaims", &numbers.reclaims}};
  const boost::json::value* const moved = status.find_pointer("/tenants/0/counters/moved", error);
  if (moved != nullptr && moved->is_number()) numbers.dram_moved = moved->to_number<double>();
  for (const auto& [name, into] : wanted) {
    const boost::json::value* const found =
        status.find_pointer(std::string("/tenants/0/tiers/1/") + name, error);
    if (found != nullptr && found->is_number()) *into = found->to_number<double>();
  }
  return numbers;
}

ChunkSet::ChunkSet(uint64_t first, uint64_t count, uint32_t payload_bytes)
    : first_(first), payload_bytes_(payload_bytes), order_(count) {
  std::iota(order_.begin(), order_.end(), first);
  Random random(first + 1);
  for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random.Below(i)]);
}

Gotten GetFromNvme(Namespace& ns, const Payloads& payloads, ChunkSet& set, GetDepth depth,
                   uint64_t count, bool read) {
  std::atomic<int64_t> left{static_cast<int64_t>(count)};
  std::vector<Getter> getters;
  for (uint32_t i = 0; i < depth.calls; ++i) getters.emplace_back(ns, payloads, set, left, read);
  const int64_t began_ns = MonotonicNs();
  std::vector<std::thread> threads;
  for (Getter& getter : getters) {
    threads.emplace_back([&getter, depth] { getter.Run(depth.keys); });
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds = Seconds(began_ns);
  Gotten all;
  for (const Getter& getter : getters) {
    all.chunks += getter.gotten.chunks;
    all.missed += getter.gotten.missed;
    all.wrong_bytes += getter.gotten.wrong_bytes;
  }
  all.chunks_per_s = static_cast<double>(all.chunks) / seconds;
  return all;
}

Putter::Putter(Client& client, Namespace& ns, const Payloads& payloads, uint64_t first,
               uint32_t payload_bytes, uint32_t queue_max)
    : client_(client),
      ns_(ns),
      payloads_(payloads),
      forgotten_(first),
      next_(first),
      payload_bytes_(payload_bytes),
      queue_max_(queue_max),
      burst_(3 * queue_max) {}

void Putter::PutBatch(uint64_t first, uint32_t count, uint32_t bytes) {
  std::vector<PutItem> items;
  for (uint64_t number = first; number < first + count; ++number) {
    items.push_back({.key = NumberedKey(number), .payload = payloads_.Of(number, bytes)});
  }
  // A pool full of what waits to be written has room again soon.
  const int64_t until_ns = MonotonicNs() + kRoomNs;
  while (!items.empty()) {
    const std::vector<StatusCode> codes = ns_.Put(items);
    std::vector<PutItem> busy;
    for (size_t i = 0; i < items.size(); ++i) {
      if (codes[i] == StatusCode::kBusy && MonotonicNs() < until_ns) {
        busy.push_back(items[i]);
      } else if (codes[i] != StatusCode::kOk) {
        ++refused_;
      }
    }
    items = std::move(busy);
    if (!items.empty()) usleep(kLookUs);
  }
}

NvmeNumbers Putter::AwaitQueue() {
  while (true) {
    const NvmeNumbers now = ReadNvmeNumbers(client_);
    if (now.demote_queue <= queue_max_ || !client_.available()) return now;
    usleep(kLookUs);
  }
}

double Putter::Write(uint64_t count) {
  double written = 0, seconds = 0;
  while (written < static_cast<double>(count) && client_.available()) {
    for (uint32_t put = 0; put < burst_; put += kPutBatch, next_ += kPutBatch) {
      PutBatch(next_, kPutBatch, payload_bytes_);
    }
    const NvmeNumbers began = ReadNvmeNumbers(client_);
    const int64_t began_ns = MonotonicNs();
    const double waiting = began.demote_queue + began.demoting;
    if (waiting < kPutBatch) {  // written while it was put: slower puts than writes
      written += burst_;
      continue;
    }
    NvmeNumbers now = began;
    // The last ones wait for company.
    while (now.demoted - began.demoted < kMeasuredShare * waiting && client_.available()) {
      usleep(kLookUs);
      now = ReadNvmeNumbers(client_);
    }
    seconds += Seconds(began_ns);
    written += now.demoted - began.demoted;
    measured_ += now.demoted - began.demoted;
    if (!AwaitWritten()) return 0;
  }
  const double rate = seconds == 0 ? 0 : std::exchange(measured_, 0) / seconds;
  return rate;
}

void Putter::WriteUntil(const std::atomic<bool>& stop) {
  while (!stop.load() && client_.available()) {
    PutBatch(next_, kPutBatch, payload_bytes_);
    next_ += kPutBatch;
    while (!stop.load() && ReadNvmeNumbers(client_).demote_queue > queue_max_) usleep(kLookUs);
  }
}

void Putter::Fill(const ChunkSet& set) {
  const auto mib = std::max<uint64_t>(1, kMiB / set.payload_bytes());
  const auto batch = static_cast<uint32_t>(std::min<uint64_t>(kPutBatch * mib, 256));
  for (uint64_t at = 0; at < set.count() && client_.available(); at += batch) {
    const auto count = static_cast<uint32_t>(std::min<uint64_t>(batch, set.count() - at));
    PutBatch(set.first() + at, count, set.payload_bytes());
    AwaitQueue();
  }
}

void Putter::Forget() {
  std::vector<shm::ChunkKey> keys;
  for (; forgotten_ < next_; ++forgotten_) {
    keys.push_back(NumberedKey(forgotten_));
    if (keys.size() < kRemoveBatch && forgotten_ + 1 < next_) continue;
    (void)ns_.Remove(keys);  // some have left by themselves
    keys.clear();
  }
}

bool Putter::AwaitWritten() {
  const int64_t until_ns = MonotonicNs() + kWrittenNs;
  while (MonotonicNs() < until_ns && client_.available()) {
    const NvmeNumbers now = ReadNvmeNumbers(client_);
    if (now.demote_queue == 0 && now.demoting == 0) return true;
    usleep(kLookUs);
  }
  return false;
}

}  // namespace terrace
