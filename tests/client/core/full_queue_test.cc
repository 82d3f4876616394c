#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "client/core/client.h"
#include "client/core/request_queue.h"
#include "storage/base/clock.h"
#include "tests/support/chunks.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_status.h"
#include "tests/support/soon.h"

namespace terrace {
namespace {

constexpr int64_t kShort = 20 * kNsPerMs;

// Requests that the daemon has taken from its one session.
uint64_t RequestsTaken(Client& client) {
  const Result<std::string> text = client.StatusJson();
  if (!text.ok()) return 0;
  const boost::json::value status = boost::json::parse(*text);
  return status.at("sessions").at(0).at("requests").to_number<uint64_t>();
}

TEST(FullQueue, AGetThatGaveUpIsCancelledAndAllIsServedLater) {
  DaemonFixture daemon;
  const auto client = *Client::Connect({.socket = daemon.socket(), .client_name = "under-test"});
  const auto names = *client->Register(Identity());
  const auto begin = [&](uint32_t key, int64_t timeout_ns) {
    const PutRequest request{.key = Key(key), .payload_bytes = 4096};
    return names->BeginPut(std::span(&request, 1), timeout_ns);
  };
  PutTicket written = *begin(0, 60 * kNsPerSecond);
  ASSERT_EQ(written.Wait()[0].status, StatusCode::kOk);

  daemon.Pause();
  std::vector<PutTicket> tickets;
  for (uint32_t key = 1; key < RequestQueue::kInFlightMax; ++key) {
    Result<PutTicket> ticket = begin(key, 60 * kNsPerSecond);
    ASSERT_TRUE(ticket.ok()) << key << ": " << ticket.status().ToString();
    tickets.push_back(*std::move(ticket));
  }
  GetOptions patient;
  patient.wait_for_filling = true;
  patient.timeout_ns = kShort;
  const shm::ChunkKey filling = Key(0);
  EXPECT_EQ(names->Get(std::span(&filling, 1), patient)[0].status, StatusCode::kDeadline);
  EXPECT_EQ(begin(1000, kShort).status().code(), StatusCode::kBusy);

  daemon.Resume();
  for (PutTicket& ticket : tickets) EXPECT_EQ(ticket.Wait()[0].status, StatusCode::kOk);
  // The first put, the others, the get, and its cancel.
  const uint64_t sent = 1 + tickets.size() + 1 + 1;
  EXPECT_TRUE(Soon([&] { return RequestsTaken(*client) == sent; })) << RequestsTaken(*client);
  tickets.clear();
  EXPECT_TRUE(Soon([&] {
    const DaemonStatus status = ReadStatus(*client);
    return status.sessions.at(0).claims == 1 && status.sessions.at(0).pins == 0;
  }));
  EXPECT_TRUE(begin(1000, kNsPerSecond).ok());
}

}  // namespace
}  // namespace terrace
