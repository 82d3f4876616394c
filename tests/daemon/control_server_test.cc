// The control plane as a C++ client with descriptors sees it: what attach and segments hand over,
// and what calls that are too big, dropped or not admitted leave behind.

#include "daemon/control/control_server.h"

#include <capnp/rpc-twoparty.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <thread>

#include "proto/shm/session_layout.h"
#include "proto/terrace.capnp.h"
#include "storage/base/clock.h"
#include "storage/mem/guarded_copy.h"
#include "storage/mem/mapping.h"

namespace terrace {
namespace {

using testing::HasSubstr;

constexpr uint64_t kSegment = 2 << 20;
constexpr uint32_t kChunk = (1 << 20) - 4096;  // the largest in such a segment

// A connection with a session on it.
class Client {
 public:
  Client(kj::AsyncIoContext& io, const std::string& socket)
      : stream_(io.provider->getNetwork()
                    .parseAddress("unix:" + socket)
                    .wait(io.waitScope)
                    ->connect()
                    .wait(io.waitScope)
                    .downcast<kj::AsyncCapabilityStream>()),
        network_(*stream_, kDescriptorsPerMessageMax, capnp::rpc::twoparty::Side::CLIENT),
        rpc_(capnp::makeRpcClient(network_)) {
    capnp::MallocMessageBuilder message;
    auto vat = message.initRoot<capnp::rpc::twoparty::VatId>();
    vat.setSide(capnp::rpc::twoparty::Side::SERVER);
    terrace = rpc_.bootstrap(vat).castAs<rpc::Terrace>();
  }

 private:
  kj::Own<kj::AsyncCapabilityStream> stream_;
  capnp::TwoPartyVatNetwork network_;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc_;

 public:
  rpc::Terrace::Client terrace = nullptr;
};

class ControlServerTest : public testing::Test {
 protected:
  ControlServerTest()
      : own_io_(std::make_unique<kj::AsyncIoContext>(kj::setupAsyncIo())), io_(*own_io_) {
    EXPECT_TRUE(InstallGuard().ok());
    char name[] = "/tmp/terrace-control-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~ControlServerTest() override {
    if (server_ != nullptr) server_->Stop();
    if (shard_ != nullptr) shard_->Stop();
    std::filesystem::remove_all(folder_);
  }

  void Serve(uint32_t segments, uid_t uid = geteuid()) {
    ChunkStoreOptions tenant;
    tenant.dram_bytes = segments * kSegment;
    tenant.segment_bytes = kSegment;
    tenant.memory.best = PageRung::kSmall;
    tenant.seed = 3;
    tenant.boot_epoch = 9;
    ShardOptions options;
    options.tenants.push_back(tenant);
    shard_ = *Shard::Create(std::move(options));
    server_ = *ControlServer::Create({.socket = folder_ / "t.sock",
                                      .tenants = {{"default", {uid}}},
                                      .boot_epoch = 9,
                                      .version = "1.2.3"},
                                     *shard_);
    shard_->Start();
    server_->Start();
  }

  std::unique_ptr<Client> Connect() {
    return std::make_unique<Client>(io_, (folder_ / "t.sock").string());
  }

  rpc::Session::Client Open(Client& client, uint32_t layout = shm::kSessionLayoutVersion) {
    auto request = client.terrace.openRequest();
    request.setClientName("test");
    request.setLayoutVersion(layout);
    auto opened = request.send().wait(io_.waitScope);
    EXPECT_EQ(opened.getStatus().getCode(), rpc::Code::OK);
    EXPECT_EQ(opened.getInfo().getBootEpoch(), 9u);
    EXPECT_EQ(opened.getInfo().getChunkBytesMax(), kChunk);
    return opened.getSession();
  }

  uint32_t Register(rpc::Session::Client& session) {
    auto request = session.registerNamespaceRequest();
    request.initSpec().setLabel("n");
    return request.send().wait(io_.waitScope).getInfo().getId();
  }

  // The descriptor that a capability carries, or -1.
  int Fd(rpc::Descriptor::Client carrier) {
    int found = -1;
    kj::Maybe<int> carried = carrier.getFd().wait(io_.waitScope);
    KJ_IF_MAYBE (fd, carried) found = *fd;
    return found;
  }

  static void SetKey(rpc::Key::Builder key, uint32_t n) {
    key.setBytes(kj::arrayPtr(reinterpret_cast<const kj::byte*>(&n), sizeof n));
  }

  // Puts chunks first..first+count, each of `bytes` bytes of its number; answers the first code.
  rpc::Code Put(rpc::Session::Client& session, uint32_t id, uint32_t first, uint32_t count,
                uint32_t bytes) {
    auto request = session.putRequest();
    request.setNamespaceId(id);
    auto chunks = request.initChunks(count);
    for (uint32_t i = 0; i < count; ++i) {
      SetKey(chunks[i].initKey(), first + i);
      std::memset(chunks[i].initData(bytes).begin(), static_cast<int>(first + i), bytes);
    }
    auto done = request.send().wait(io_.waitScope);
    EXPECT_EQ(done.getCodes().size(), count);
    for (const rpc::Code code : done.getCodes()) EXPECT_EQ(code, done.getCodes()[0]);
    return done.getCodes()[0];
  }

  auto GetRequest(rpc::Session::Client& session, uint32_t id, uint32_t first, uint32_t count) {
    auto request = session.getRequest();
    request.setNamespaceId(id);
    auto keys = request.initKeys(count);
    for (uint32_t i = 0; i < count; ++i) SetKey(keys[i], first + i);
    return request;
  }

  template <typename T>
  T On(std::function<T()> work) {
    std::promise<T> answer;
    shard_->Post([&] { answer.set_value(work()); });
    return answer.get_future().get();
  }

  void AwaitSessions(size_t count) {
    const int64_t until = MonotonicNs() + 5 * kNsPerSecond;
    while (On<size_t>([&] { return shard_->sessions().size(); }) != count) {
      ASSERT_LT(MonotonicNs(), until);
      std::this_thread::yield();
    }
  }

  // On the heap: its destructor may throw, a test's may not.
  std::unique_ptr<kj::AsyncIoContext> own_io_;
  kj::AsyncIoContext& io_;
  std::filesystem::path folder_;
  std::unique_ptr<Shard> shard_;
  std::unique_ptr<ControlServer> server_;
};

TEST_F(ControlServerTest, SocketIsForItsOwnerOnly) {
  Serve(4);
  struct stat found {};
  ASSERT_EQ(stat((folder_ / "t.sock").c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 0777, 0600u);
}

TEST_F(ControlServerTest, AttachHandsOverIndexMemoryAndDoorbell) {
  Serve(4);
  auto client = Connect();
  rpc::Session::Client session = Open(*client);
  auto attached = session.attachRequest().send().wait(io_.waitScope);
  ASSERT_EQ(attached.getStatus().getCode(), rpc::Code::OK);
  const int index = Fd(attached.getIndex());
  EXPECT_EQ(fcntl(index, F_GETFL) & O_ACCMODE, O_RDONLY);
  EXPECT_FALSE(Mapping::MapReadWrite(index, attached.getIndexBytes()).ok());
  const int fd = Fd(attached.getMemory());
  ASSERT_EQ(attached.getMemoryBytes(), sizeof(shm::SessionMemory));
  const Mapping memory = *Mapping::MapReadWrite(fd, attached.getMemoryBytes());
  const auto& shared = *reinterpret_cast<const shm::SessionMemory*>(memory.data());
  EXPECT_EQ(shared.magic, shm::kSessionMagic);
  EXPECT_EQ(shared.boot_epoch, 9u);
  EXPECT_GE(Fd(attached.getDoorbell()), 0);
  auto again = session.attachRequest().send().wait(io_.waitScope);
  EXPECT_EQ(again.getStatus().getCode(), rpc::Code::INVALID);
}

TEST_F(ControlServerTest, SegmentsComeInMessagesOf128AndThenOnlyNews) {
  Serve(130);
  auto client = Connect();
  rpc::Session::Client session = Open(*client);
  std::string known;
  size_t got = 0;
  uint64_t epoch = 0;
  for (const size_t expected : {size_t{128}, size_t{2}}) {
    auto request = session.segmentsRequest();
    request.setKnown(kj::arrayPtr(reinterpret_cast<const kj::byte*>(known.data()), known.size()));
    auto answer = request.send().wait(io_.waitScope);
    ASSERT_EQ(answer.getSegments().size(), expected);
    EXPECT_EQ(answer.getMore(), expected == 128);
    for (const auto segment : answer.getSegments()) {
      const int fd = Fd(segment.getDescriptor());
      EXPECT_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, segment.getWritable() ? O_RDWR : O_RDONLY);
      const uint32_t words[2] = {segment.getSegment(), segment.getWritable() ? 1u : 0u};
      const uint64_t generation = segment.getGeneration();
      known.append(reinterpret_cast<const char*>(words), sizeof words);
      known.append(reinterpret_cast<const char*>(&generation), sizeof generation);
      ++got;
    }
    epoch = answer.getEpoch();
  }
  EXPECT_EQ(got, 130u);
  const auto poll = [&] {
    auto request = session.segmentsRequest();
    request.setEpoch(epoch);
    request.setKnown(kj::arrayPtr(reinterpret_cast<const kj::byte*>(known.data()), known.size()));
    return request.send();
  };
  // Nothing is new: they wait, four at most.
  auto first = poll();
  auto second = poll();
  auto third = poll();
  auto fourth = poll();
  try {
    poll().wait(io_.waitScope);
    FAIL() << "a fifth waits";
  } catch (const kj::Exception& exception) {
    EXPECT_THAT(exception.getDescription().cStr(), HasSubstr("at most 4"));
  }
  EXPECT_FALSE(first.poll(io_.waitScope));
}

TEST_F(ControlServerTest, FullMessageGoesBothWaysAndMoreIsRefusedByLimit) {
  Serve(64);
  auto client = Connect();
  rpc::Session::Client session = Open(*client, 0);
  const uint32_t id = Register(session);
  EXPECT_EQ(Put(session, id, 0, 32, kChunk), rpc::Code::OK);
  auto got = GetRequest(session, id, 0, 32).send().wait(io_.waitScope);
  for (uint32_t i = 0; i < 32; ++i) {
    ASSERT_EQ(got.getCodes()[i], rpc::Code::OK);
    const auto data = got.getData()[i];
    ASSERT_EQ(data.size(), kChunk);
    EXPECT_TRUE(data[0] == i && std::memcmp(data.begin(), data.begin() + 1, kChunk - 1) == 0);
  }
  EXPECT_EQ(Put(session, id, 32, 2, kChunk), rpc::Code::OK);
  try {
    GetRequest(session, id, 0, 34).send().wait(io_.waitScope);
    FAIL() << "more than 32 MiB came";
  } catch (const kj::Exception& exception) {
    EXPECT_THAT(exception.getDescription().cStr(), HasSubstr("32 MiB"));
  }
  // The refused call holds nothing.
  EXPECT_EQ(Put(session, id, 40, 1, kChunk), rpc::Code::OK);
}

TEST_F(ControlServerTest, DroppedConnectionsLeaveNothingBehind) {
  Serve(8);
  auto stayer = Connect();
  rpc::Session::Client staying = Open(*stayer, 0);
  const uint32_t id = Register(staying);
  EXPECT_EQ(Put(staying, id, 1, 1, kChunk), rpc::Code::OK);
  for (int round = 0; round < 50; ++round) {
    auto leaver = Connect();
    rpc::Session::Client leaving = Open(*leaver, 0);
    // In the middle of whatever these have come to.
    auto get = GetRequest(leaving, id, 1, 1).send();
    auto segments = leaving.segmentsRequest().send();
    auto request = leaving.putRequest();
    request.setNamespaceId(id);
    auto chunks = request.initChunks(1);
    SetKey(chunks[0].initKey(), 100 + static_cast<uint32_t>(round));
    chunks[0].initData(kChunk);
    auto put = request.send();
    auto opening = leaver->terrace.openRequest().send();
    if (round % 2 == 0) get.poll(io_.waitScope);
    io_.lowLevelProvider->getTimer()
        .afterDelay((round % 5) * 300 * kj::MICROSECONDS)
        .wait(io_.waitScope);
  }
  AwaitSessions(1);
  EXPECT_EQ(On<uint64_t>([&] { return shard_->store("default")->stats().filling_count; }), 0u);
  auto got = GetRequest(staying, id, 1, 1).send().wait(io_.waitScope);
  ASSERT_EQ(got.getCodes()[0], rpc::Code::OK);
  EXPECT_EQ(got.getData()[0][kChunk - 1], 1);
}

TEST_F(ControlServerTest, WaitingGetEndsWithTheCommitOrItsDeadline) {
  Serve(8);
  auto client = Connect();
  rpc::Session::Client session = Open(*client, 0);
  const uint32_t id = Register(session);
  // Another session writes key 5 for as long as this test likes.
  std::atomic<uint64_t> pin{0};
  PutGrant grant;
  const SessionId writer = On<SessionId>([&] {
    const SessionId made = shard_->OpenTrustedSession("default", &pin, 1);
    const uint32_t n = 5;
    const PutWant want{.key = shm::ChunkKey::FromBytes(&n, sizeof n, 0), .payload_bytes = 4096};
    shard_->store("default")->BeginPut(made, id, std::span(&want, 1), 0, MonotonicNs(),
                                       std::span(&grant, 1));
    return made;
  });
  ASSERT_EQ(grant.status, StatusCode::kOk);
  auto hasty = GetRequest(session, id, 5, 1);
  EXPECT_EQ(hasty.send().wait(io_.waitScope).getCodes()[0], rpc::Code::BUSY);
  auto patient = GetRequest(session, id, 5, 1);
  patient.setWait(true);
  patient.setDeadlineMs(20);
  EXPECT_EQ(patient.send().wait(io_.waitScope).getCodes()[0], rpc::Code::DEADLINE);
  auto waiting = GetRequest(session, id, 5, 1);
  waiting.setWait(true);
  waiting.setDeadlineMs(60'000);
  auto answer = waiting.send();
  EXPECT_FALSE(answer.poll(io_.waitScope));
  On<bool>([&] {
    shard_->store("default")->Abort(writer, std::span(&grant.claim, 1));
    return true;
  });
  EXPECT_EQ(answer.wait(io_.waitScope).getCodes()[0], rpc::Code::NOT_FOUND);
}

TEST_F(ControlServerTest, StrangerIsDeniedByUid) {
  Serve(4, geteuid() + 1);
  auto client = Connect();
  auto opened = client->terrace.openRequest().send().wait(io_.waitScope);
  EXPECT_EQ(opened.getStatus().getCode(), rpc::Code::DENIED);
  EXPECT_THAT(opened.getStatus().getMessage().cStr(),
              HasSubstr("uid " + std::to_string(geteuid())));
  auto admin = client->terrace.adminRequest().send().wait(io_.waitScope);
  EXPECT_EQ(admin.getStatus().getCode(), rpc::Code::DENIED);
}

TEST_F(ControlServerTest, StopEndsConnectionsAndRemovesTheSocket) {
  Serve(4);
  auto client = Connect();
  Open(*client, 0);
  server_->Stop();
  EXPECT_FALSE(std::filesystem::exists(folder_ / "t.sock"));
  EXPECT_THROW(client->terrace.statusRequest().send().wait(io_.waitScope), kj::Exception);
}

}  // namespace
}  // namespace terrace
