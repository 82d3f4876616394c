// What a peer can take from the control plane and see of it, and what it is refused.

#include "daemon/control/connection_load.h"

#include <gmock/gmock.h>

#include "daemon/control/status_json.h"
#include "daemon/control/utf8.h"
#include "tests/daemon/control_harness.h"

namespace terrace {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using ControlLimitsTest = ControlServerTest;

TEST_F(ControlLimitsTest, StrangerIsDeniedByUid) {
  Serve(4, geteuid() + 1);
  auto client = Connect();
  auto opened = client->terrace.openRequest().send().wait(io_.waitScope);
  EXPECT_EQ(opened.getStatus().getCode(), rpc::Code::DENIED);
  EXPECT_THAT(opened.getStatus().getMessage().cStr(),
              HasSubstr("uid " + std::to_string(geteuid())));
  auto admin = client->terrace.adminRequest().send().wait(io_.waitScope);
  EXPECT_EQ(admin.getStatus().getCode(), rpc::Code::DENIED);
}

TEST_F(ControlLimitsTest, WaitingCallsEndWithTheirConnection) {
  Serve(4);
  {
    auto client = Connect();
    rpc::Session::Client session = Open(*client, 0);
    auto first = session.segmentsRequest().send().wait(io_.waitScope);
    auto request = session.segmentsRequest();
    request.setEpoch(first.getEpoch());
    std::string known;
    for (const auto segment : first.getSegments()) known += KnownEntry(segment);
    request.setKnown(kj::arrayPtr(reinterpret_cast<const kj::byte*>(known.data()), known.size()));
    auto waiting = request.send();
    EXPECT_FALSE(waiting.poll(io_.waitScope));
    Open(*client, 0);  // the answer says that the poll has come
  }
  AwaitSessions(0);
}

TEST_F(ControlLimitsTest, SegmentsThatCannotBeOpenedComeLater) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "UBSan reads a vptr through a pipe, which it cannot have here";
#endif
  Serve(4);
  auto client = Connect();
  rpc::Session::Client session = Open(*client, 0);
  uint64_t epoch = 0;
  {
    const NoDescriptors none;
    auto waiting = session.segmentsRequest().send();
    client->terrace.statusRequest().send().wait(io_.waitScope);  // behind it on the shard
    EXPECT_FALSE(waiting.poll(io_.waitScope));
    none.Lift();
    auto answer = waiting.wait(io_.waitScope);
    EXPECT_EQ(answer.getSegments().size(), 4u);
    epoch = answer.getEpoch();
  }
  EXPECT_EQ(epoch, On<uint64_t>([&] { return shard_->store("default")->descriptor_epoch(); }));
}

TEST_F(ControlLimitsTest, DescriptorsThatNobodyReleasesAreBounded) {
  Serve(130);
  auto client = Connect();
  rpc::Session::Client session = Open(*client, 0);
  std::vector<capnp::Response<rpc::Session::SegmentsResults>> kept;
  for (int i = 0; i < 4; ++i) {
    kept.push_back(session.segmentsRequest().send().wait(io_.waitScope));
    EXPECT_EQ(kept.back().getSegments().size(), 128u);
  }
  EXPECT_THAT(Refusal(session.segmentsRequest().send()), HasSubstr("at most 512 descriptors"));
  kept.pop_back();
  auto next = session.segmentsRequest().send().wait(io_.waitScope);
  EXPECT_EQ(next.getSegments().size(), 128u);
}

TEST_F(ControlLimitsTest, KnownIsBounded) {
  Serve(4);
  auto client = Connect();
  rpc::Session::Client session = Open(*client, 0);
  auto request = session.segmentsRequest();
  std::memset(request.initKnown(8193 * 16).begin(), 0, 8193 * 16);
  EXPECT_THAT(Refusal(request.send()), HasSubstr("at most 8192 segments"));
}

TEST_F(ControlLimitsTest, CallsInFlightAreBounded) {
  Serve(4);
  auto client = Connect();
  rpc::Session::Client session = Open(*client, 0);
  const uint32_t id = Register(session);
  Claim(id, 5);
  std::vector<capnp::RemotePromise<rpc::Session::GetResults>> waiting;
  for (int i = 0; i < 1024; ++i) {
    auto get = GetRequest(session, id, 5, 1);
    get.setWait(true);
    get.setDeadlineMs(60'000);
    waiting.push_back(get.send());
  }
  EXPECT_THAT(Refusal(client->terrace.adminRequest().send()), HasSubstr("at most 1024 calls"));
  // Those that are dropped count no more.
  waiting.clear();
  auto admin = client->terrace.adminRequest().send().wait(io_.waitScope);
  EXPECT_EQ(admin.getStatus().getCode(), rpc::Code::OK);
}

TEST_F(ControlLimitsTest, ConnectionHasEightSessions) {
  Serve(4);
  auto client = Connect();
  std::vector<rpc::Session::Client> sessions;
  for (int i = 0; i < 8; ++i) sessions.push_back(Open(*client, 0));
  // One that has the daemon's memory counts until its process lets go of the doorbell.
  auto attached = std::make_unique<capnp::Response<rpc::Session::AttachResults>>(
      sessions.back().attachRequest().send().wait(io_.waitScope));
  const int doorbell = dup(Fd(attached->getDoorbell()));
  attached.reset();
  sessions.pop_back();
  const auto open = [&] {
    return client->terrace.openRequest().send().wait(io_.waitScope).getStatus().getCode();
  };
  EXPECT_EQ(open(), rpc::Code::BUSY);
  Open(*Connect(), 0);  // others' connections have their own
  close(doorbell);
  const int64_t until = MonotonicNs() + 5 * kNsPerSecond;
  while (open() == rpc::Code::BUSY) ASSERT_LT(MonotonicNs(), until);
}

TEST_F(ControlLimitsTest, TenantsShareTheSessions) {
  Serve(4, geteuid(), {"other"});
  const auto open = [&](const std::string& tenant) {
    return On<StatusCode>([&] {
      return shard_->OpenSession({.tenant = tenant, .client_name = "", .pid = 0, .pidfd = {}})
          .status()
          .code();
    });
  };
  for (uint32_t i = 0; i < kSessionCountMax / 2; ++i) ASSERT_EQ(open("default"), StatusCode::kOk);
  EXPECT_EQ(open("default"), StatusCode::kBusy);
  EXPECT_EQ(open("other"), StatusCode::kOk);
}

TEST_F(ControlLimitsTest, ClientNameIsCutAndMadeReadable) {
  Serve(4);
  auto client = Connect();
  std::vector<rpc::Session::Client> sessions;
  for (const std::string& name : {std::string(1 << 20, 'x'), std::string("a\xff\xed\xa0\x80z")}) {
    auto request = client->terrace.openRequest();
    request.setClientName(name.c_str());
    sessions.push_back(request.send().wait(io_.waitScope).getSession());
  }
  auto status = client->terrace.statusRequest().send().wait(io_.waitScope);
  EXPECT_THAT(status.getJson().cStr(), HasSubstr("\"" + std::string(256, 'x') + "\""));
  EXPECT_THAT(status.getJson().cStr(), HasSubstr("\"a????z\""));
}

TEST_F(ControlLimitsTest, NamespaceWhoseTextsAreNoUtf8IsRefused) {
  Serve(4);
  auto client = Connect();
  rpc::Session::Client session = Open(*client, 0);
  const auto with = [&](const char* label, const char* model) {
    auto request = session.registerNamespaceRequest();
    auto spec = request.initSpec();
    spec.setLabel(label);
    spec.setModel(model);
    return request.send().wait(io_.waitScope).getStatus().getCode();
  };
  EXPECT_EQ(with("n\xff", "m"), rpc::Code::INVALID);
  EXPECT_EQ(with("n", "m\xc3"), rpc::Code::INVALID);
  EXPECT_EQ(with("\xc3\xa4", "\xf0\x9f\x98\x80"), rpc::Code::OK);
}

TEST(Utf8, EndsOfEachRangeAreTold) {
  for (const char* text : {"", "a\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf",
                           "\xee\x80\x80", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(IsUtf8(text)) << text;
    EXPECT_EQ(ToUtf8(text, 8), text);
  }
  for (const char* text :
       {"\x80", "\xc1\xbf", "\xc2", "\xe0\x9f\xbf", "\xe1\x80", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xe1\x80\xc0", "\xf1\x80\x80"}) {
    EXPECT_FALSE(IsUtf8(text)) << text;
    EXPECT_EQ(ToUtf8(text, 8), std::string(std::strlen(text), '?'));
  }
  EXPECT_EQ(ToUtf8("\xc3\xa4\xc3\xa4", 3), "\xc3\xa4");  // no half characters
}

TEST_F(ControlLimitsTest, StatusShowsWhatItsReaderMaySee) {
  Serve(4, geteuid(), {"other"});
  for (const char* tenant : {"default", "other"}) {
    On<bool>([&] {
      return shard_
          ->OpenSession({.tenant = tenant,
                         .client_name = std::string("client of ") + tenant,
                         .pid = 0,
                         .pidfd = {}})
          .ok();
    });
  }
  const auto status = [&](const StatusView& view) {
    return On<std::string>([&] { return StatusJson({}, view, *shard_); });
  };
  const std::string all = status({.all = true, .tenant = "other"});
  EXPECT_THAT(all, HasSubstr("client of default"));
  EXPECT_THAT(all, HasSubstr("client of other"));
  const std::string own = status({.all = false, .tenant = "other"});
  EXPECT_THAT(own, HasSubstr("client of other"));
  EXPECT_THAT(own, Not(HasSubstr("default")));
  EXPECT_THAT(status({}), AllOf(HasSubstr("\"tenants\":[]"), HasSubstr("\"sessions\":[]")));
}

}  // namespace
}  // namespace terrace
