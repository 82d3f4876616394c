// The control plane as a C++ client with descriptors sees it: what attach and segments hand over,
// and what calls that are too big or dropped leave behind.

#include "daemon/control/control_server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "storage/mem/mapping.h"
#include "tests/daemon/control_harness.h"

namespace terrace {
namespace {

using testing::HasSubstr;

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
      known += KnownEntry(segment);
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
  const Writer writer = Claim(id, 5);
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
    shard_->store("default")->Abort(writer.session, std::span(&writer.claim, 1));
    return true;
  });
  EXPECT_EQ(answer.wait(io_.waitScope).getCodes()[0], rpc::Code::NOT_FOUND);
}

TEST_F(ControlServerTest, DamagedChunkIsCorruptAndTheNextPutHealsIt) {
  Serve(8);
  auto client = Connect();
  rpc::Session::Client session = Open(*client, 0);
  const uint32_t id = Register(session);
  EXPECT_EQ(Put(session, id, 1, 2, kChunk), rpc::Code::OK);
  On<bool>([&] {
    ChunkStore& store = *shard_->store("default");
    const uint32_t n = 1;
    const ReadyChunk chunk = *store.Find(id, shm::ChunkKey::FromBytes(&n, sizeof n, 0));
    store.Address(chunk.location)[shm::kRecordHeaderBytes + 700'000] ^= std::byte{1};
    return true;
  });
  auto got = GetRequest(session, id, 1, 2).send().wait(io_.waitScope);
  EXPECT_EQ(got.getCodes()[0], rpc::Code::CORRUPT);
  EXPECT_EQ(got.getData()[0].size(), 0u);
  ASSERT_EQ(got.getCodes()[1], rpc::Code::OK);
  EXPECT_EQ(got.getData()[1][0], 2);
  EXPECT_EQ(Put(session, id, 1, 1, kChunk), rpc::Code::OK);
  EXPECT_EQ(GetRequest(session, id, 1, 1).send().wait(io_.waitScope).getCodes()[0], rpc::Code::OK);
}

TEST_F(ControlServerTest, MatchOfAnEndedEpochIsAbsent) {
  Serve(8);
  auto client = Connect();
  rpc::Session::Client session = Open(*client, 0);
  const uint32_t id = Register(session);
  EXPECT_EQ(Put(session, id, 1, 1, kChunk), rpc::Code::OK);
  const auto match = [&] {
    auto request = session.matchRequest();
    request.setNamespaceId(id);
    SetKey(request.initKeys(1)[0], 1);
    return request.send().wait(io_.waitScope);
  };
  EXPECT_EQ(match().getPrefix(), 1u);
  // Bumped and asked in one turn of the shard's thread: nothing has been swept yet.
  On<bool>([&] {
    EXPECT_TRUE(shard_->store("default")->BumpEpoch("n").ok());
    return true;
  });
  auto after = match();
  EXPECT_EQ(after.getPrefix(), 0u);
  ASSERT_EQ(after.getStates().size(), 1u);
  EXPECT_EQ(after.getStates()[0], rpc::KeyState::ABSENT);
}

TEST_F(ControlServerTest, ClearGoesThroughTheWholeIndex) {
  Serve(16);
  auto client = Connect();
  rpc::Session::Client session = Open(*client, 0);
  const uint32_t id = Register(session);
  EXPECT_EQ(Put(session, id, 0, 200, 4096), rpc::Code::OK);
  EXPECT_GT(On<uint64_t>([&] { return shard_->store("default")->stats().index_slots; }), 4096u);
  auto admin = client->terrace.adminRequest().send().wait(io_.waitScope).getAdmin();
  for (const uint64_t chunks : {uint64_t{200}, uint64_t{0}}) {
    auto request = admin.clearNamespaceRequest();
    request.setLabel("n");
    auto cleared = request.send().wait(io_.waitScope);
    EXPECT_EQ(cleared.getStatus().getCode(), rpc::Code::OK);
    EXPECT_EQ(cleared.getChunks(), chunks);
  }
  auto unknown = admin.clearNamespaceRequest();
  unknown.setLabel("none");
  EXPECT_EQ(unknown.send().wait(io_.waitScope).getStatus().getCode(), rpc::Code::NOT_FOUND);
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
