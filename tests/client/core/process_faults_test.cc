// Client processes that are killed or stopped at a chosen step, and what the others see of it.

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/core/client.h"
#include "storage/base/limits.h"
#include "tests/support/chunks.h"
#include "tests/support/client_process.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_status.h"
#include "tests/support/soon.h"

namespace terrace {
namespace {

constexpr uint32_t kBytes = 100'000;
constexpr uint64_t kPoolBytes = 32 * kMiB;
constexpr uint32_t kChunksAPool = kPoolBytes / kBytes;

class ProcessFaults : public testing::Test {
 protected:
  // LRU goes through the whole pool; the default would take the newest of chunks that nobody uses.
  explicit ProcessFaults(uint64_t pool_bytes = kPoolBytes)
      : daemon_({"--dram", std::to_string(pool_bytes), "--segment", "2MiB", "--policy", "lru"}) {
    Result<std::unique_ptr<Client>> client =
        Client::Connect({.socket = daemon_.socket(), .client_name = "witness"});
    EXPECT_TRUE(client.ok()) << client.status().ToString();
    client_ = *std::move(client);
    Result<std::shared_ptr<Namespace>> names = client_->Register(Identity());
    EXPECT_TRUE(names.ok()) << names.status().ToString();
    names_ = *std::move(names);
  }

  StatusCode Put(uint32_t number) {
    const auto payload = Payload(number, kBytes);
    const PutItem item{.key = Key(number), .payload = payload};
    return names_->Put(std::span(&item, 1)).front();
  }

  // Chunks first, first + 1, ..., each of which must find room.
  void Churn(uint32_t first, uint32_t count) {
    for (uint32_t number = first; number < first + count; ++number) {
      ASSERT_EQ(Put(number), StatusCode::kOk) << number;
    }
  }

  void ExpectRight(uint32_t number) {
    Pin pin;
    ASSERT_EQ(names_->GetOne(Key(number), &pin), StatusCode::kOk) << number;
    EXPECT_TRUE(Equal(pin.bytes(), Payload(number, kBytes))) << number;
  }

  // How many of the chunks are still there; each of these must be right.
  uint32_t CountRight(uint32_t first, uint32_t count) {
    uint32_t hits = 0;
    for (uint32_t number = first; number < first + count; ++number) {
      Pin pin;
      if (names_->GetOne(Key(number), &pin) != StatusCode::kOk) continue;
      ++hits;
      EXPECT_TRUE(Equal(pin.bytes(), Payload(number, kBytes))) << number;
    }
    return hits;
  }

  DaemonStatus Status() { return ReadStatus(*client_); }

  DaemonFixture daemon_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<Namespace> names_;
};

// -- SIGKILL --------------------------------------------------------------------------------------

constexpr uint32_t kPinnedChunk = 1;  // the witness' own

// Where a client dies, and what it then holds; -1: the daemon may be on either side of it.
struct Step {
  const char* name;
  std::vector<const char*> commands;  // chunks and sizes are added to them
  int claims, pins;
  int committed;
};

const Step kSteps[] = {
    {"before begin", {}, 0, 0, 0},
    {"begun", {"begin"}, 1, 0, 0},
    {"half copied", {"begin", "half 0"}, 1, 0, 0},
    {"copying", {"begin", "copy 0"}, 1, 0, 0},
    {"copied", {"begin", "fill 0"}, 1, 0, 0},
    {"commit submitted", {"begin", "fill 0", "submit"}, -1, 0, -1},
    {"committed", {"begin", "fill 0", "submit", "finish"}, 0, 0, 1},
    {"pinned", {"get"}, 0, 1, 0},
    {"pinning", {"pinning"}, 0, -1, 0},
};

// One client on its way to a step.
struct Victim {
  const Step& step;
  uint32_t number;  // of the chunk that it puts
  ClientProcess client;
  pid_t pid;

  Victim(const DaemonFixture& daemon, const Step& at, uint32_t chunk)
      : step(at), number(chunk), client(daemon.socket(), at.name), pid(client.process().pid()) {
    for (const std::string command : step.commands) {
      std::string whole = command;
      if (command == "begin") {
        whole += " 60000 " + std::to_string(kBytes) + " " + std::to_string(number);
      }
      if (command == "get" || command == "pinning") whole += " " + std::to_string(kPinnedChunk);
      const std::string answer = client.Ask(whole);
      EXPECT_TRUE(answer == "ok" || answer == "done" || answer == "running")
          << step.name << ": " << whole << ": " << answer;
    }
  }

  void ExpectHolds(const DaemonStatus& status) const {
    SCOPED_TRACE(step.name);
    const SessionStatus* const session = status.Find(pid);
    ASSERT_NE(session, nullptr);
    if (step.claims >= 0) {
      EXPECT_EQ(session->claims, static_cast<uint64_t>(step.claims));
    }
    if (step.pins >= 0) {
      EXPECT_EQ(session->pins, static_cast<uint64_t>(step.pins));
    }
  }
};

// In a pool so large that nothing is reclaimed before the end: the daemon opens no segment of its
// own, so every open one is leased to a session.
class ClientDeaths : public ProcessFaults {
 protected:
  static constexpr uint64_t kLargePoolBytes = 4 * kPoolBytes;

  ClientDeaths() : ProcessFaults(kLargePoolBytes) {}

  // The witness puts the same key, and everybody reads right bytes.
  void ExpectKeyServes(const Victim& victim) {
    SCOPED_TRACE(victim.step.name);
    const StatusCode put = Put(victim.number);
    const bool committed = put == StatusCode::kExists;
    EXPECT_TRUE(committed || put == StatusCode::kOk) << StatusCodeName(put);
    if (victim.step.committed >= 0) {
      EXPECT_EQ(committed, victim.step.committed == 1);
    }
    ExpectRight(victim.number);
  }

  // Five at once: a dead process' pins are swept after a grace of a second.
  void KillAt(const std::vector<std::pair<const Step*, uint32_t>>& deaths) {
    const DaemonStatus before = Status();
    std::vector<std::unique_ptr<Victim>> victims;
    for (const auto& [step, number] : deaths) {
      victims.push_back(std::make_unique<Victim>(daemon_, *step, number));
    }
    const DaemonStatus during = Status();
    for (const auto& victim : victims) victim->ExpectHolds(during);
    EXPECT_GT(during.segments_open, before.segments_open);  // leased to the victims

    for (const auto& victim : victims) victim->client.process().Kill();
    // Claims and leases go at once, before the pins.
    ASSERT_TRUE(Soon(
        [&] {
          const DaemonStatus status = Status();
          return status.filling == 0 && status.segments_open <= before.segments_open;
        },
        5 * kNsPerSecond));  // a tail that nobody appends to is sealed after ten
    for (const auto& victim : victims) ExpectKeyServes(*victim);
    ASSERT_TRUE(Soon([&] {
      const DaemonStatus status = Status();
      return std::none_of(victims.begin(), victims.end(),
                          [&](const auto& victim) { return status.Find(victim->pid) != nullptr; });
    }));
    const DaemonStatus after = Status();
    EXPECT_EQ(after.filling, 0u);
    EXPECT_EQ(after.claimed_bytes, 0u);
    ASSERT_EQ(after.sessions.size(), 1u);  // the witness
    EXPECT_EQ(after.sessions.front().pins, 0u);
    ExpectRight(kPinnedChunk);
    for (const auto& victim : victims) ExpectRight(victim->number);
  }
};

TEST_F(ClientDeaths, AtAnyStepLeaveNoPinClaimOrLeaseBehind) {
  constexpr uint32_t kRounds = 50, kAtOnce = 5;
  ASSERT_EQ(Put(kPinnedChunk), StatusCode::kOk);
  for (uint32_t round = 0; round < kRounds && !HasFailure(); round += kAtOnce) {
    SCOPED_TRACE(round);
    std::vector<std::pair<const Step*, uint32_t>> deaths;
    for (uint32_t i = round; i < round + kAtOnce; ++i) {
      deaths.emplace_back(&kSteps[i % std::size(kSteps)], 100 + i);
    }
    KillAt(deaths);
  }
  EXPECT_EQ(Status().reclaims, 0u);
  // All of the pool can be used again.
  Churn(1000, 2 * kLargePoolBytes / kBytes);
  const DaemonStatus after = Status();
  EXPECT_GT(after.reclaims, after.segments_total / 2);
  EXPECT_EQ(after.segments_total, kLargePoolBytes / (2 * kMiB));
  EXPECT_EQ(after.segments_stranded, 0u);
  EXPECT_EQ(after.segments_missing, 0u);
}

// -- SIGSTOP --------------------------------------------------------------------------------------

TEST_F(ProcessFaults, AStoppedClientsPinnedBytesStayWhatTheyAre) {
  ASSERT_EQ(Put(1), StatusCode::kOk);
  ClientProcess reader(daemon_.socket(), "reader");
  ASSERT_EQ(reader.Ask("get 1"), "ok");
  ASSERT_EQ(reader.Ask("same 1"), "same");
  reader.process().Pause();
  // Nothing but the pin holds its segment now.
  ASSERT_EQ(names_->Remove(std::vector{Key(1)}).front(), StatusCode::kOk);
  Churn(1000, 5 * kChunksAPool);
  const DaemonStatus churned = Status();
  // Each segment was rewritten several times over.
  EXPECT_GT(churned.reclaims, 3 * churned.segments_total);
  ASSERT_NE(churned.Find(reader.process().pid()), nullptr);
  EXPECT_EQ(churned.Find(reader.process().pid())->pins, 1u);
  reader.process().Resume();
  EXPECT_EQ(reader.Ask("same 1"), "same");
}

TEST_F(ProcessFaults, AClientStoppedInACopyPastItsDeadlineChangesNoOtherChunk) {
  // More claims than a segment holds: a full one is sealed, and can be reclaimed.
  constexpr uint32_t kClaims = 30, kFirst = 1000, kCount = 10 * kChunksAPool;
  std::string keys, indexes, granted, late;
  for (uint32_t i = 0; i < kClaims; ++i) {
    keys += " " + std::to_string(1 + i);
    indexes += " " + std::to_string(i);
    granted += i == 0 ? "ok" : " ok";
    if (i != 0) late += " deadline";
  }
  ClientProcess writer(daemon_.socket(), "writer");
  ASSERT_EQ(writer.Ask("begin 1000 " + std::to_string(kBytes) + keys), granted);
  ASSERT_EQ(writer.Ask("fill 0"), "done");
  ASSERT_EQ(writer.Ask("copy" + indexes), "running");
  writer.process().Pause();
  ASSERT_TRUE(Soon([this] { return Status().claims_ended == kClaims; }));
  Churn(kFirst, kCount);
  writer.process().Resume();
  // It has gone on copying into all of them when it takes the next command.
  for (uint32_t i = 1; i < kClaims; ++i) {
    ASSERT_EQ(writer.Ask("seal " + std::to_string(i)), "done");
  }
  ASSERT_EQ(writer.Ask("submit"), "done");
  // The first was complete when it was committed, but late; the others never were.
  const std::string ends = writer.Ask("finish");
  EXPECT_TRUE(ends == "stale" + late || ends == "deadline" + late) << ends;
  EXPECT_TRUE(Soon([this] { return Status().stale_commits == 1; }));
  EXPECT_EQ(CountRight(1, kClaims), 0u);
  EXPECT_GT(CountRight(kFirst, kCount), kChunksAPool / 2);
  EXPECT_EQ(Status().filling, 0u);
}

}  // namespace
}  // namespace terrace
