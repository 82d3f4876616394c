#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "client/core/client.h"
#include "storage/base/clock.h"
#include "tests/support/chunks.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/soon.h"

namespace terrace {
namespace {

class ClientFaults : public testing::Test {
 protected:
  ClientFaults() {
    Result<std::unique_ptr<Client>> client =
        Client::Connect({.socket = daemon_.socket(), .client_name = "under-test"});
    EXPECT_TRUE(client.ok()) << client.status().ToString();
    client_ = *std::move(client);
    Result<std::shared_ptr<Namespace>> names = client_->Register(Identity());
    EXPECT_TRUE(names.ok()) << names.status().ToString();
    names_ = *std::move(names);
  }

  StatusCode PutOne(uint32_t key, int64_t timeout_ns = 10 * kNsPerSecond) {
    const PutItem item{.key = Key(key), .payload = payload_};
    return names_->Put(std::span(&item, 1), timeout_ns).front();
  }

  const std::vector<std::byte> payload_ = std::vector<std::byte>(10'000, std::byte{0x5a});
  DaemonFixture daemon_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<Namespace> names_;
};

TEST_F(ClientFaults, AKilledDaemonIsUnavailableAtOnceAndAPinKeepsItsBytes) {
  ASSERT_EQ(PutOne(1), StatusCode::kOk);
  Pin pin;
  ASSERT_EQ(names_->GetOne(Key(1), &pin), StatusCode::kOk);
  daemon_.Kill();
  ASSERT_TRUE(Soon([this] { return !client_->available(); }));
  const int64_t began_ns = MonotonicNs();
  Pin other;
  EXPECT_EQ(names_->GetOne(Key(1), &other), StatusCode::kUnavailable);
  EXPECT_EQ(PutOne(2), StatusCode::kUnavailable);
  EXPECT_EQ(names_->Match(std::vector{Key(1)}).status, StatusCode::kUnavailable);
  EXPECT_EQ(names_->Get(std::vector{Key(1)}).front().status, StatusCode::kUnavailable);
  EXPECT_EQ(names_->Remove(std::vector{Key(1)}).front(), StatusCode::kUnavailable);
  EXPECT_EQ(client_->StatusJson().status().code(), StatusCode::kUnavailable);
  EXPECT_LT(MonotonicNs() - began_ns, kNsPerSecond);
  EXPECT_EQ(std::memcmp(pin.bytes().data(), payload_.data(), payload_.size()), 0);
  EXPECT_TRUE(pin.Verify().ok());
}

TEST_F(ClientFaults, WorksAgainOnceTheDaemonIsBack) {
  ASSERT_EQ(PutOne(1), StatusCode::kOk);
  Pin old;
  ASSERT_EQ(names_->GetOne(Key(1), &old), StatusCode::kOk);
  for (int round = 0; round < 3; ++round) {
    daemon_.Kill();
    daemon_.Start();
    // The same Namespace, registered again by the library.
    ASSERT_TRUE(Soon([this] { return PutOne(1) == StatusCode::kOk; })) << round;
    Pin pin;
    ASSERT_EQ(names_->GetOne(Key(1), &pin), StatusCode::kOk);
    EXPECT_TRUE(pin.Verify().ok());
  }
  EXPECT_TRUE(old.Verify().ok());
}

TEST_F(ClientFaults, WithoutReconnectADaemonThatIsBackStaysUnavailable) {
  const auto once =
      Client::Connect({.socket = daemon_.socket(), .client_name = "once", .reconnect = false});
  ASSERT_TRUE(once.ok());
  daemon_.Kill();
  daemon_.Start();
  ASSERT_TRUE(Soon([this] { return PutOne(1) == StatusCode::kOk; }));  // the other one does
  EXPECT_FALSE(Soon([&] { return (*once)->available(); }, 100 * kNsPerMs));
  EXPECT_EQ((*once)->StatusJson().status().code(), StatusCode::kUnavailable);
}

TEST_F(ClientFaults, ADrainedDaemonIsUnavailable) {
  daemon_.Terminate();
  EXPECT_TRUE(Soon([this] { return PutOne(1) == StatusCode::kUnavailable; }));
}

TEST_F(ClientFaults, AKillEndsWaitsAtOnce) {
  const PutRequest request{.key = Key(1), .payload_bytes = 4096};
  Result<PutTicket> ticket = names_->BeginPut(std::span(&request, 1));
  ASSERT_TRUE(ticket.ok());
  ASSERT_EQ(ticket->Wait()[0].status, StatusCode::kOk);
  std::atomic<bool> waiting{false};
  std::thread reader([&] {
    waiting = true;
    const auto got = names_->Get(std::vector{Key(1)},
                                 {.timeout_ns = 600 * kNsPerSecond, .wait_for_filling = true});
    EXPECT_EQ(got.front().status, StatusCode::kUnavailable);
  });
  ASSERT_TRUE(Soon([&] { return waiting.load(); }));
  daemon_.Kill();
  const int64_t began_ns = MonotonicNs();
  reader.join();
  EXPECT_LT(MonotonicNs() - began_ns, 20 * kNsPerSecond);
  ticket->Fill(0, payload_.data());  // into memory that is still mapped
  EXPECT_EQ(ticket->Commit().front(), StatusCode::kUnavailable);
}

TEST_F(ClientFaults, AStoppedDaemonCostsTheDeadlineAndNoMore) {
  ASSERT_EQ(PutOne(1), StatusCode::kOk);
  daemon_.Pause();
  // A hit needs no daemon.
  Pin pin;
  EXPECT_EQ(names_->GetOne(Key(1), &pin), StatusCode::kOk);
  EXPECT_EQ(names_->Match(std::vector{Key(1), Key(2)}).prefix, 1u);
  const int64_t began_ns = MonotonicNs();
  EXPECT_EQ(PutOne(2, 100 * kNsPerMs), StatusCode::kDeadline);
  EXPECT_EQ(names_->Prefetch(std::vector{Key(2)}, 100 * kNsPerMs).front(), StatusCode::kDeadline);
  EXPECT_LT(MonotonicNs() - began_ns, 5 * kNsPerSecond);
  daemon_.Resume();
  // The late grant of key 2 is given back by the library.
  EXPECT_TRUE(Soon([this] { return PutOne(2) == StatusCode::kOk; }));
}

TEST_F(ClientFaults, AControlCallToAStoppedDaemonEnds) {
  daemon_.Pause();
  EXPECT_EQ(client_->StatusJson().status().code(), StatusCode::kDeadline);
  daemon_.Resume();
  EXPECT_TRUE(client_->StatusJson().ok());
}

TEST_F(ClientFaults, TheLastPinOfAClosedClientEndsTheSession) {
  ASSERT_EQ(PutOne(1), StatusCode::kOk);
  Pin pin;
  ASSERT_EQ(names_->GetOne(Key(1), &pin), StatusCode::kOk);
  client_.reset();
  pin.Release();  // the last use: unmaps and closes
  const auto watcher = Client::Connect({.socket = daemon_.socket(), .client_name = "watcher"});
  ASSERT_TRUE(watcher.ok());
  // The daemon forgets the session once its doorbell is closed.
  EXPECT_TRUE(Soon([&] {
    const Result<std::string> status = (*watcher)->StatusJson();
    return status.ok() && status->find("under-test") == std::string::npos;
  }));
}

TEST_F(ClientFaults, AForkedChildConnectsAnewAndTheParentGoesOn) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer knows no threads in the child of a process with threads";
#endif
  ASSERT_EQ(PutOne(1), StatusCode::kOk);
  Pin pin;
  ASSERT_EQ(names_->GetOne(Key(1), &pin), StatusCode::kOk);
  const pid_t child = fork();
  if (child == 0) {
    pin.Release();  // the parent's pin stays
    Pin mine;
    if (names_->GetOne(Key(1), &mine) != StatusCode::kOk) _exit(1);
    if (!mine.Verify().ok()) _exit(2);
    if (PutOne(2) != StatusCode::kOk) _exit(3);
    mine.Release();
    names_.reset();
    client_.reset();
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(pin.Verify().ok());
  Pin childs;
  EXPECT_EQ(names_->GetOne(Key(2), &childs), StatusCode::kOk);
  EXPECT_EQ(PutOne(3), StatusCode::kOk);
}

TEST_F(ClientFaults, ClosingEndsTheSessionAlthoughAForkedChildLives) {
  ASSERT_EQ(PutOne(1), StatusCode::kOk);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    // Holds copies of all that the parent has open, until the parent says so.
    close(ends[1]);
    char byte = 0;
    _exit(read(ends[0], &byte, 1) == 0 ? 0 : 1);
  }
  close(ends[0]);
  client_.reset();
  const auto watcher = Client::Connect({.socket = daemon_.socket(), .client_name = "watcher"});
  ASSERT_TRUE(watcher.ok());
  EXPECT_TRUE(Soon([&] {
    const Result<std::string> status = (*watcher)->StatusJson();
    return status.ok() && status->find("under-test") == std::string::npos;
  }));
  close(ends[1]);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(ClientFaults, ADamagedChunkIsRemovedSoThatAPutHealsIt) {
  // Damaged through the mapping that it was written by.
  const PutRequest request{.key = Key(1), .payload_bytes = static_cast<uint32_t>(payload_.size())};
  Result<PutTicket> ticket = names_->BeginPut(std::span(&request, 1));
  ASSERT_TRUE(ticket.ok());
  const PutTicket::Grant grant = ticket->Wait()[0];
  ASSERT_EQ(grant.status, StatusCode::kOk);
  ticket->Fill(0, payload_.data());
  ticket->CommitAsync();
  ASSERT_TRUE(Soon([&] { return names_->Match(std::vector{Key(1)}).prefix == 1; }));
  grant.payload[payload_.size() / 2] ^= std::byte{1};
  EXPECT_EQ(ticket->Finish().front(), StatusCode::kOk);

  const auto verified = [this] {
    return names_->Get(std::vector{Key(1)}, {.verify = true}).front().status;
  };
  EXPECT_EQ(verified(), StatusCode::kCorrupt);
  EXPECT_TRUE(Soon([this] { return names_->Match(std::vector{Key(1)}).prefix == 0; }));
  EXPECT_EQ(PutOne(1), StatusCode::kOk);
  EXPECT_EQ(verified(), StatusCode::kOk);
}

TEST_F(ClientFaults, NamespacesThatAreGoneLeaveNothingBehind) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's allocator does not count";
#endif
  const auto register_some = [this](int count) {
    for (int i = 0; i < count; ++i) ASSERT_TRUE(client_->Register(Identity()).ok());
  };
  register_some(100);  // what is allocated once
  const size_t before = mallinfo2().uordblks;
  register_some(2000);
  const size_t after = mallinfo2().uordblks;
  EXPECT_LT(after, before + 2000 * 100);  // a state has some hundred bytes
}

TEST_F(ClientFaults, WithoutATimeoutConnectingGoesOnBehind) {
  const auto hasty =
      Client::Create({.socket = daemon_.socket(), .client_name = "hasty", .connect_timeout_ns = 0});
  EXPECT_TRUE(Soon([&] { return hasty->available(); }));
  EXPECT_TRUE(hasty->Register(Identity()).ok());
}

TEST_F(ClientFaults, CreateWithoutADaemonWorksOnceThereIsOne) {
  daemon_.Kill();
  const auto late = Client::Create({.socket = daemon_.socket(), .client_name = "late"});
  EXPECT_EQ(late->Register(Identity("late")).status().code(), StatusCode::kUnavailable);
  daemon_.Start();
  EXPECT_TRUE(Soon([&] { return late->Register(Identity("late")).ok(); }));
}

}  // namespace
}  // namespace terrace
