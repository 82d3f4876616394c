#include "client/core/client.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <numeric>
#include <optional>
#include <random>
#include <thread>

#include "storage/base/clock.h"
#include "tests/support/chunks.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/soon.h"

namespace terrace {
namespace {

std::vector<shm::ChunkKey> Keys(uint32_t first, size_t count) {
  std::vector<shm::ChunkKey> keys;
  for (size_t i = 0; i < count; ++i) keys.push_back(Key(first + static_cast<uint32_t>(i)));
  return keys;
}

// Every flow, over shared memory and in messages.
class ClientFlows : public testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<Client> Connect() {
    Result<std::unique_ptr<Client>> client = Client::Connect(
        {.socket = daemon_.socket(), .client_name = "test", .shared_memory = GetParam()});
    EXPECT_TRUE(client.ok()) << client.status().ToString();
    return *std::move(client);
  }
  std::shared_ptr<Namespace> Register(Client& client, const std::string& label = "test") {
    Result<std::shared_ptr<Namespace>> registered = client.Register(Identity(label));
    EXPECT_TRUE(registered.ok()) << registered.status().ToString();
    return *std::move(registered);
  }

  DaemonFixture daemon_;
};

INSTANTIATE_TEST_SUITE_P(Planes, ClientFlows, testing::Values(true, false), [](const auto& plane) {
  return std::string(plane.param ? "SharedMemory" : "Messages");
});

TEST_P(ClientFlows, GetGivesTheBytesOfPut) {
  const auto client = Connect();
  const auto names = Register(*client);
  const std::vector<size_t> sizes{4096, 4097, 65536, 65537, 300'000, 1'000'000};
  for (uint32_t i = 0; i < sizes.size(); ++i) {
    const auto payload = Payload(i, sizes[i]);
    const PutItem item{.key = Key(i), .payload = payload};
    EXPECT_EQ(names->Put(std::span(&item, 1)), std::vector{StatusCode::kOk}) << sizes[i];
  }
  std::vector<GetResult> results =
      names->Get(Keys(0, sizes.size()), {.timeout_ns = kNsPerSecond, .verify = true});
  for (uint32_t i = 0; i < sizes.size(); ++i) {
    ASSERT_EQ(results[i].status, StatusCode::kOk) << i;
    EXPECT_TRUE(Equal(results[i].pin.bytes(), Payload(i, sizes[i]))) << i;
  }
}

TEST_P(ClientFlows, PutIfAbsentAnswersExists) {
  const auto client = Connect();
  const auto names = Register(*client);
  const auto first = Payload(1, 5000), second = Payload(2, 5000);
  const PutItem one{.key = Key(7), .payload = first}, other{.key = Key(7), .payload = second};
  EXPECT_EQ(names->Put(std::span(&one, 1)).front(), StatusCode::kOk);
  EXPECT_EQ(names->Put(std::span(&other, 1)).front(), StatusCode::kExists);
  Pin pin;
  ASSERT_EQ(names->GetOne(Key(7), &pin), StatusCode::kOk);
  EXPECT_TRUE(Equal(pin.bytes(), first));
}

TEST_P(ClientFlows, MatchAnswersThePrefixThatIsReady) {
  const auto client = Connect();
  const auto names = Register(*client);
  const auto payload = Payload(3, 4096);
  for (const uint32_t key : {10u, 11u, 13u}) {
    const PutItem item{.key = Key(key), .payload = payload};
    ASSERT_EQ(names->Put(std::span(&item, 1)).front(), StatusCode::kOk);
  }
  const MatchResult matched = names->Match(Keys(10, 4));
  EXPECT_EQ(matched.status, StatusCode::kOk);
  EXPECT_EQ(matched.prefix, 2u);
  EXPECT_EQ(matched.states,
            (std::vector{KeyState::kReady, KeyState::kReady, KeyState::kAbsent, KeyState::kReady}));
}

TEST_P(ClientFlows, BatchesOfMoreThan256KeysAreCut) {
  const auto client = Connect();
  const auto names = Register(*client);
  const auto payload = Payload(4, 4096);
  std::vector<PutItem> items;
  for (const shm::ChunkKey& key : Keys(0, 600)) items.push_back({.key = key, .payload = payload});
  const std::vector<StatusCode> put = names->Put(items);
  EXPECT_EQ(std::count(put.begin(), put.end(), StatusCode::kOk), 600);
  EXPECT_EQ(names->Match(Keys(0, 601)).prefix, 600u);
  const std::vector<GetResult> got = names->Get(Keys(0, 601));
  ASSERT_EQ(got.size(), 601u);
  for (size_t i = 0; i < 600; ++i) {
    ASSERT_EQ(got[i].status, StatusCode::kOk) << i;
    ASSERT_TRUE(Equal(got[i].pin.bytes(), payload)) << i;
  }
  EXPECT_EQ(got[600].status, StatusCode::kNotFound);
}

TEST_P(ClientFlows, RemovedKeysAreMisses) {
  const auto client = Connect();
  const auto names = Register(*client);
  const auto payload = Payload(5, 4096);
  const PutItem item{.key = Key(1), .payload = payload};
  ASSERT_EQ(names->Put(std::span(&item, 1)).front(), StatusCode::kOk);
  EXPECT_EQ(names->Lease(Keys(1, 2), kNsPerSecond),
            (std::vector{StatusCode::kOk, StatusCode::kNotFound}));
  EXPECT_EQ(names->Prefetch(Keys(1, 2)), (std::vector{StatusCode::kOk, StatusCode::kNotFound}));
  EXPECT_EQ(names->Remove(Keys(1, 2)), (std::vector{StatusCode::kOk, StatusCode::kNotFound}));
  Pin pin;
  EXPECT_EQ(names->GetOne(Key(1), &pin), StatusCode::kNotFound);
  EXPECT_FALSE(pin.held());
}

TEST_P(ClientFlows, AnotherClientSeesWhatOnePut) {
  const auto writer = Connect(), reader = Connect();
  const auto to = Register(*writer), from = Register(*reader);
  const auto payload = Payload(6, 100'000);
  const PutItem item{.key = Key(1), .payload = payload};
  ASSERT_EQ(to->Put(std::span(&item, 1)).front(), StatusCode::kOk);
  Pin pin;
  ASSERT_EQ(from->GetOne(Key(1), &pin), StatusCode::kOk);
  EXPECT_TRUE(pin.Verify().ok());
  EXPECT_TRUE(Equal(pin.bytes(), payload));
}

TEST_P(ClientFlows, NamespacesShareNothing) {
  const auto client = Connect();
  const auto one = Register(*client, "one"), other = Register(*client, "other");
  const auto payload = Payload(7, 4096);
  const PutItem item{.key = Key(1), .payload = payload};
  ASSERT_EQ(one->Put(std::span(&item, 1)).front(), StatusCode::kOk);
  Pin pin;
  EXPECT_EQ(other->GetOne(Key(1), &pin), StatusCode::kNotFound);
}

TEST_P(ClientFlows, AnotherIdentityUnderALabelIsRefused) {
  const auto client = Connect();
  const auto names = Register(*client);
  NamespaceIdentity other = Identity();
  other.model = "another model";
  const Result<std::shared_ptr<Namespace>> refused = client->Register(other);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), StatusCode::kInvalid);
  EXPECT_NE(refused.status().message().find("model"), std::string::npos);
}

TEST_P(ClientFlows, AnEpochBumpHidesAndTheNamespaceWorksOn) {
  const auto client = Connect();
  const auto names = Register(*client);
  const auto payload = Payload(8, 4096);
  const PutItem item{.key = Key(1), .payload = payload};
  ASSERT_EQ(names->Put(std::span(&item, 1)).front(), StatusCode::kOk);
  ASSERT_TRUE(client->BumpEpoch("test").ok());
  Pin pin;
  EXPECT_NE(names->GetOne(Key(1), &pin), StatusCode::kOk);
  // Registering again is asked for by the first call that found the id stale.
  const int64_t until_ns = MonotonicNs() + 10 * kNsPerSecond;
  StatusCode put = StatusCode::kStale;
  while (put == StatusCode::kStale && MonotonicNs() < until_ns) {
    put = names->Put(std::span(&item, 1)).front();
  }
  EXPECT_EQ(put, StatusCode::kOk);
}

TEST_P(ClientFlows, EachCallFindsOutThatTheEpochEnded) {
  const auto client = Connect();
  const auto names = Register(*client);
  const auto keys = Keys(1, 2);
  const std::pair<const char*, std::function<StatusCode()>> calls[] = {
      {"match", [&] { return names->Match(keys).status; }},
      {"get", [&] { return names->Get(keys).front().status; }},
      {"prefetch", [&] { return names->Prefetch(keys).front(); }},
      {"remove", [&] { return names->Remove(keys).front(); }},
      {"lease", [&] { return names->Lease(keys, kNsPerSecond).front(); }},
  };
  for (const auto& [name, call] : calls) {
    ASSERT_TRUE(client->BumpEpoch("test").ok());
    EXPECT_EQ(call(), StatusCode::kStale) << name;
    EXPECT_TRUE(Soon([&call = call] { return call() != StatusCode::kStale; })) << name;
  }
}

TEST_P(ClientFlows, LookingInsideListsWhatWasPut) {
  const auto client = Connect();
  const auto names = Register(*client);
  const auto payload = Payload(9, 5000);
  const PutItem item{.key = Key(42, 3), .payload = payload};
  ASSERT_EQ(names->Put(std::span(&item, 1)).front(), StatusCode::kOk);

  uint64_t cursor = 0;
  const Result<std::vector<ListedChunk>> listed = client->List(&cursor, 4096);
  ASSERT_TRUE(listed.ok());
  ASSERT_EQ(listed->size(), 1u);
  EXPECT_EQ(listed->front().key, Key(42, 3));
  EXPECT_EQ(listed->front().payload_bytes, 5000u);

  const Result<ListedChunk> described = client->Describe("test", Key(42, 3));
  ASSERT_TRUE(described.ok());
  EXPECT_EQ(described->state, KeyState::kReady);
  EXPECT_EQ(client->Describe("test", Key(43)).status().code(), StatusCode::kNotFound);

  const Result<std::vector<ListedNamespace>> namespaces = client->Namespaces();
  ASSERT_TRUE(namespaces.ok());
  ASSERT_EQ(namespaces->size(), 1u);
  EXPECT_EQ(namespaces->front().identity.model, "model");
  EXPECT_EQ(namespaces->front().chunk_count, 1u);

  const Result<std::string> status = client->StatusJson();
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(status->front(), '{');

  const Result<uint64_t> cleared = client->ClearNamespace("test");
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(*cleared, 1u);
}

TEST_P(ClientFlows, PinsOutliveTheClient) {
  auto client = Connect();
  auto names = Register(*client);
  const auto payload = Payload(10, 50'000);
  const PutItem item{.key = Key(1), .payload = payload};
  ASSERT_EQ(names->Put(std::span(&item, 1)).front(), StatusCode::kOk);
  Pin pin;
  ASSERT_EQ(names->GetOne(Key(1), &pin), StatusCode::kOk);
  client.reset();
  Pin other;
  EXPECT_EQ(names->GetOne(Key(1), &other), StatusCode::kUnavailable);
  names.reset();
  EXPECT_TRUE(Equal(pin.bytes(), payload));
  EXPECT_TRUE(pin.Verify().ok());
}

// -- Tickets --------------------------------------------------------------------------------------

class Tickets : public ClientFlows {};
INSTANTIATE_TEST_SUITE_P(Planes, Tickets, testing::Values(true, false), [](const auto& plane) {
  return std::string(plane.param ? "SharedMemory" : "Messages");
});

TEST_P(Tickets, TwoInFlightPublishWhatWasFilledAndAbortTheRest) {
  const auto client = Connect();
  const auto names = Register(*client);
  const auto payload = Payload(11, 70'000);
  std::vector<PutRequest> first, second;
  for (uint32_t i = 0; i < 4; ++i) first.push_back({.key = Key(i), .payload_bytes = 70'000});
  for (uint32_t i = 4; i < 8; ++i) second.push_back({.key = Key(i), .payload_bytes = 70'000});
  Result<PutTicket> one = names->BeginPut(first), two = names->BeginPut(second);
  ASSERT_TRUE(one.ok() && two.ok());
  for (PutTicket* ticket : {&*one, &*two}) {
    const auto grants = ticket->Wait();
    ASSERT_EQ(grants.size(), 4u);
    for (size_t i = 0; i < 4; ++i) ASSERT_EQ(grants[i].status, StatusCode::kOk);
    ticket->Fill(0, payload.data());
    ticket->Fill(1, payload.data());
    std::memcpy(grants[2].payload, payload.data(), payload.size());
    ticket->Seal(2);
    ticket->CommitAsync();
  }
  for (PutTicket* ticket : {&*one, &*two}) {
    EXPECT_EQ(ticket->Finish(), (std::vector{StatusCode::kOk, StatusCode::kOk, StatusCode::kOk,
                                             StatusCode::kCancelled}));
  }
  const MatchResult matched = names->Match(Keys(0, 8));
  EXPECT_EQ(matched.prefix, 3u);
  EXPECT_EQ(matched.states[6], KeyState::kReady);
  EXPECT_EQ(matched.states[7], KeyState::kAbsent);
  for (GetResult& got : names->Get(Keys(4, 3), {.verify = true})) {
    ASSERT_EQ(got.status, StatusCode::kOk);
    EXPECT_TRUE(Equal(got.pin.bytes(), payload));
  }
}

TEST(SharedTickets, ADroppedTicketGivesItsClaimsBack) {
  DaemonFixture daemon;
  auto client = Client::Connect({.socket = daemon.socket(), .client_name = "test"});
  ASSERT_TRUE(client.ok());
  const auto names = *(*client)->Register(Identity());
  const PutRequest request{.key = Key(1), .payload_bytes = 4096};
  {
    Result<PutTicket> ticket = names->BeginPut(std::span(&request, 1));
    ASSERT_TRUE(ticket.ok());
    ASSERT_EQ(ticket->Wait()[0].status, StatusCode::kOk);
    EXPECT_EQ(names->Match(Keys(1, 1)).states.front(), KeyState::kFilling);
  }
  { const Result<PutTicket> never_waited_for = names->BeginPut(std::span(&request, 1)); }
  const int64_t until_ns = MonotonicNs() + 10 * kNsPerSecond;
  const auto payload = Payload(12, 4096);
  const PutItem item{.key = Key(1), .payload = payload};
  StatusCode put = StatusCode::kExists;
  while (put == StatusCode::kExists && MonotonicNs() < until_ns) {
    put = names->Put(std::span(&item, 1)).front();
  }
  EXPECT_EQ(put, StatusCode::kOk);
}

TEST(SharedTickets, AFilledTicketPastItsDeadlineIsRefused) {
  DaemonFixture daemon;
  auto client = Client::Connect({.socket = daemon.socket(), .client_name = "test"});
  ASSERT_TRUE(client.ok());
  const auto names = *(*client)->Register(Identity());
  const auto payload = Payload(13, 4096);
  const PutRequest request{.key = Key(1), .payload_bytes = 4096};
  Result<PutTicket> ticket = names->BeginPut(std::span(&request, 1), 100 * kNsPerMs);
  ASSERT_TRUE(ticket.ok());
  ASSERT_EQ(ticket->Wait()[0].status, StatusCode::kOk);
  std::memset(ticket->Wait()[0].payload, 0, 4096);
  const int64_t end_ns = MonotonicNs() + 150 * kNsPerMs;
  while (MonotonicNs() < end_ns) std::this_thread::yield();
  ticket->Fill(0, payload.data());
  EXPECT_EQ(ticket->Wait()[0].payload[0], std::byte{0});  // not written to any more
  EXPECT_EQ(ticket->Commit().front(), StatusCode::kDeadline);
  EXPECT_EQ(names->Match(Keys(1, 1)).states.front(), KeyState::kAbsent);
}

TEST(SharedTickets, AGetWaitsForTheKeyBeingFilled) {
  DaemonFixture daemon;
  auto client = Client::Connect({.socket = daemon.socket(), .client_name = "test"});
  ASSERT_TRUE(client.ok());
  const auto names = *(*client)->Register(Identity());
  const auto payload = Payload(14, 20'000);
  const PutRequest request{.key = Key(1), .payload_bytes = 20'000};
  Result<PutTicket> ticket = names->BeginPut(std::span(&request, 1));
  ASSERT_TRUE(ticket.ok());
  ASSERT_EQ(ticket->Wait()[0].status, StatusCode::kOk);
  EXPECT_EQ(names->Get(Keys(1, 1), {.timeout_ns = kNsPerSecond}).front().status, StatusCode::kBusy);
  EXPECT_EQ(names->Get(Keys(1, 1), {.timeout_ns = 20 * kNsPerMs, .wait_for_filling = true})
                .front()
                .status,
            StatusCode::kDeadline);
  std::vector<GetResult> got;
  std::thread reader([&] {
    got = names->Get(Keys(1, 1), {.timeout_ns = 20 * kNsPerSecond, .wait_for_filling = true});
  });
  ticket->Fill(0, payload.data());
  EXPECT_EQ(ticket->Commit().front(), StatusCode::kOk);
  reader.join();
  ASSERT_EQ(got.front().status, StatusCode::kOk);
  EXPECT_TRUE(Equal(got.front().pin.bytes(), payload));
}

TEST(Threads, PutAndGetTogetherAndEveryByteIsRight) {
  DaemonFixture daemon;
  auto client = Client::Connect({.socket = daemon.socket(), .client_name = "test"});
  ASSERT_TRUE(client.ok());
  const auto names = *(*client)->Register(Identity());
  constexpr uint32_t kThreads = 4, kRounds = 60, kKeys = 200;
  std::atomic<uint64_t> hits{0}, wrong{0};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::minstd_rand random(t + 1);
      for (uint32_t round = 0; round < kRounds; ++round) {
        std::vector<uint32_t> numbers;
        std::vector<std::vector<std::byte>> payloads;
        std::vector<PutItem> items;
        std::vector<shm::ChunkKey> keys;
        for (int i = 0; i < 8; ++i) numbers.push_back(static_cast<uint32_t>(random() % kKeys));
        for (const uint32_t n : numbers) payloads.push_back(Payload(n, 4096 + n * 700));
        for (size_t i = 0; i < numbers.size(); ++i) {
          keys.push_back(Key(numbers[i]));
          items.push_back({.key = keys.back(), .payload = payloads[i]});
        }
        names->Put(items);
        std::vector<GetResult> got = names->Get(keys);
        for (size_t i = 0; i < got.size(); ++i) {
          if (got[i].status != StatusCode::kOk) continue;
          ++hits;
          if (!Equal(got[i].pin.bytes(), payloads[i])) ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0u);
  EXPECT_GT(hits.load(), uint64_t{kThreads} * kRounds);
}

TEST(Connect, WithoutADaemonNamesTheSocket) {
  const auto client = Client::Connect(
      {.socket = "/tmp/terrace-nobody-serves-here.sock", .connect_timeout_ns = 30 * kNsPerMs});
  ASSERT_FALSE(client.ok());
  EXPECT_EQ(client.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(client.status().message().find("/tmp/terrace-nobody-serves-here.sock"),
            std::string::npos);
}

}  // namespace
}  // namespace terrace
