// The daemon killed again and again under load: what its clients are told, and when.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "client/core/client.h"
#include "client/core/session.h"
#include "storage/base/clock.h"
#include "tests/support/chunks.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/soon.h"

namespace terrace {
namespace {

constexpr uint32_t kBytes = 60'000;
constexpr uint32_t kKeys = 16;  // a worker
constexpr int64_t kTimeoutNs = 2 * kNsPerSecond;

// A thread that puts and gets keys of its own, without end.
class Worker {
 public:
  Worker(const std::string& socket, bool shared_memory, uint32_t first) : first_(first) {
    Result<std::unique_ptr<Client>> client = Client::Connect(
        {.socket = socket, .client_name = "worker", .shared_memory = shared_memory});
    EXPECT_TRUE(client.ok()) << client.status().ToString();
    client_ = *std::move(client);
    Result<std::shared_ptr<Namespace>> names = client_->Register(Identity());
    EXPECT_TRUE(names.ok()) << names.status().ToString();
    names_ = *std::move(names);
    thread_ = std::thread([this] { Run(); });
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() {
    stop_.store(true);
    thread_.join();
  }

  uint64_t good() const { return good_.load(); }                // put, got, and the bytes right
  uint64_t unavailable() const { return unavailable_.load(); }  // calls that said so

 private:
  void Run() {
    for (uint32_t n = 0; !stop_.load(); ++n) {
      const uint32_t number = first_ + n % kKeys;
      const bool put = PutOne(number);
      const bool got = GetOne(number);
      if (put && got) good_.fetch_add(1);
      // Leaves the processor to the daemon that starts.
      if (!put && !got) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  bool PutOne(uint32_t number) {
    const auto payload = Payload(number, kBytes);
    const PutItem item{.key = Key(number), .payload = payload};
    const int64_t began_ns = MonotonicNs();
    const StatusCode put = names_->Put(std::span(&item, 1), kTimeoutNs).front();
    ExpectInTime(began_ns, "put", put);
    if (put == StatusCode::kOk || put == StatusCode::kExists) return true;
    ExpectUnavailable("put", put);
    return false;
  }

  // The pin before this one is let go of last: its bytes are right, whoever died since.
  bool GetOne(uint32_t number) {
    const shm::ChunkKey key = Key(number);
    const int64_t began_ns = MonotonicNs();
    GetResult got = std::move(names_->Get(std::span(&key, 1), {.timeout_ns = kTimeoutNs}).front());
    ExpectInTime(began_ns, "get", got.status);
    if (held_.held()) ExpectBytes(held_, held_number_);
    if (got.status == StatusCode::kOk) {
      ExpectBytes(got.pin, number);
      held_ = std::move(got.pin);
      held_number_ = number;
      return true;
    }
    // A put that failed leaves nothing to be found.
    if (got.status != StatusCode::kNotFound) ExpectUnavailable("get", got.status);
    return false;
  }

  static void ExpectBytes(const Pin& pin, uint32_t number) {
    EXPECT_TRUE(Equal(pin.bytes(), Payload(number, kBytes))) << number;
  }

  static void ExpectInTime(int64_t began_ns, const char* call, StatusCode code) {
    EXPECT_LE(MonotonicNs() - began_ns, kTimeoutNs + kAnswerSlackNs)
        << call << ": " << StatusCodeName(code);
  }

  void ExpectUnavailable(const char* call, StatusCode code) {
    EXPECT_EQ(code, StatusCode::kUnavailable) << call << ": " << StatusCodeName(code);
    unavailable_.fetch_add(1);
  }

  // Constant after construction.
  const uint32_t first_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<Namespace> names_;

  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> good_{0}, unavailable_{0};

  // Owned by the thread.
  Pin held_;
  uint32_t held_number_ = 0;

  std::thread thread_;
};

TEST(DaemonKills, UnderLoadAreUnavailableInTimeAndPassOnceItIsBack) {
  constexpr uint32_t kRounds = 20;
  DaemonFixture daemon({"--dram", "32MiB", "--segment", "2MiB"});
  std::vector<std::unique_ptr<Worker>> workers;
  for (uint32_t i = 0; i < 3; ++i) {
    const bool shared_memory = i < 2;  // and one in messages
    workers.push_back(std::make_unique<Worker>(daemon.socket(), shared_memory, i * 1000));
  }
  // Every worker's count grows by this much.
  const auto grows = [&](uint64_t (Worker::*count)() const, uint64_t by) {
    std::vector<uint64_t> before;
    for (const auto& worker : workers) before.push_back((*worker.*count)());
    return Soon([&] {
      for (size_t i = 0; i < workers.size(); ++i) {
        if ((*workers[i].*count)() < before[i] + by) return false;
      }
      return true;
    });
  };
  for (uint32_t round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(round);
    ASSERT_TRUE(grows(&Worker::good, kKeys + 10));
    daemon.Kill();
    ASSERT_TRUE(grows(&Worker::unavailable, 3));
    daemon.Start();
    if (round % 2 == 0) continue;
    // Again, while the clients are coming back.
    daemon.Kill();
    daemon.Start();
  }
  EXPECT_TRUE(grows(&Worker::good, kKeys + 10));
}

}  // namespace
}  // namespace terrace
