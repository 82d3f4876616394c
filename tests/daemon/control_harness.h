#pragma once

// A control server on a shard of its own, and a client of it with descriptors.

#include <capnp/rpc-twoparty.h>
#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "daemon/control/control_server.h"
#include "proto/shm/session_layout.h"
#include "proto/terrace.capnp.h"
#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/mem/guarded_copy.h"

namespace terrace {

inline constexpr uint64_t kSegment = 2 << 20;
inline constexpr uint32_t kChunk = (1 << 20) - 4096;  // the largest in such a segment

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

// No further descriptor may be had in this process, the daemon's included, until Lift.
class NoDescriptors {
 public:
  NoDescriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const int free = dup(0);
    close(free);
    rlimit none = before_;
    none.rlim_cur = static_cast<rlim_t>(free);
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  }
  ~NoDescriptors() { Lift(); }
  void Lift() const { EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before_), 0); }

 private:
  rlimit before_{};
};

// A segment as `known` lists it.
inline std::string KnownEntry(rpc::SegmentDescriptor::Reader segment) {
  const uint32_t words[2] = {segment.getSegment(), segment.getWritable() ? 1u : 0u};
  const uint64_t generation = segment.getGeneration();
  return std::string(reinterpret_cast<const char*>(words), sizeof words) +
         std::string(reinterpret_cast<const char*>(&generation), sizeof generation);
}

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

  void Serve(uint32_t segments, uid_t uid = geteuid(),
             const std::vector<std::string>& more_tenants = {}) {
    ChunkStoreOptions tenant;
    tenant.dram_bytes = segments * kSegment;
    tenant.segment_bytes = kSegment;
    tenant.memory.best = PageRung::kSmall;
    tenant.seed = 3;
    tenant.boot_epoch = 9;
    ShardOptions options;
    if (nvme_ != nullptr) {
      tenant.nvme.segment_bytes = kSegment;
      tenant.nvme.new_log_id = 1000;
      options.nvme["default"] = std::move(nvme_);
    }
    options.tenants.push_back(tenant);
    for (const std::string& name : more_tenants) {
      tenant.tenant = name;
      options.tenants.push_back(tenant);
    }
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

  // Another session writes the key for as long as the test likes.
  struct Writer {
    SessionId session = 0;
    uint64_t claim = 0;
  };
  Writer Claim(uint32_t id, uint32_t n) {
    return On<Writer>([&] {
      const SessionId made = shard_->OpenTrustedSession("default", &writers_pin_, 1);
      const PutWant want{.key = shm::ChunkKey::FromBytes(&n, sizeof n, 0), .payload_bytes = 4096};
      PutGrant grant;
      shard_->store("default")->BeginPut(made, id, std::span(&want, 1), 0, MonotonicNs(),
                                         std::span(&grant, 1));
      EXPECT_EQ(grant.status, StatusCode::kOk);
      return Writer{.session = made, .claim = grant.claim};
    });
  }

  // What the daemon says of a call that it refuses.
  template <typename T>
  std::string Refusal(capnp::RemotePromise<T> call) {
    try {
      call.wait(io_.waitScope);
    } catch (const kj::Exception& exception) {
      return exception.getDescription().cStr();
    }
    return "it was served";
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
  std::unique_ptr<BlockDevice> nvme_;  // of the tenant that Serve serves; null: no such tier
  std::atomic<uint64_t> writers_pin_{0};
  std::unique_ptr<Shard> shard_;
  std::unique_ptr<ControlServer> server_;
};

}  // namespace terrace
