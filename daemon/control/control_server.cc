#include "daemon/control/control_server.h"

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <future>
#include <thread>

#include "daemon/control/connection_load.h"
#include "daemon/control/terrace_service.h"
#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/base/log.h"

namespace terrace {
namespace {

#ifndef SO_PEERPIDFD
constexpr int kSoPeerPidfd = 77;
#else
constexpr int kSoPeerPidfd = SO_PEERPIDFD;
#endif

// A session needs one connection; the rest is for `terrace` and others that come and go.
constexpr uint32_t kConnectionCountMax = 2 * kSessionCountMax;
// How long calls that copy may go on after Stop.
constexpr int64_t kDrainNsMax = 4 * kNsPerSecond;
// Descriptors that a message may bring us.  We need none and kj keeps those of unfinished messages,
// but it sends some only where it takes some.
constexpr kj::uint kDescriptorsTakenMax = 1;
constexpr auto kDrainPoll = 10 * kj::MILLISECONDS;
constexpr auto kAcceptRetry = 100 * kj::MILLISECONDS;

Result<UniqueFd> Listen(const std::string& path, uint32_t mode) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Status(StatusCode::kInvalid, "socket = " + path + ": a path has at most 107 bytes");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return ErrnoStatus("socket", errno);
  // Nobody may connect before the mode is right: it is set before listen.
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return ErrnoStatus("bind " + path, errno);
  }
  if (chmod(path.c_str(), mode) != 0) return ErrnoStatus("chmod " + path, errno);
  if (listen(fd.get(), 128) != 0) return ErrnoStatus("listen " + path, errno);
  return fd;
}

// A connection and all that it keeps alive.
struct Connection {
  Connection(kj::Own<kj::AsyncCapabilityStream> accepted, rpc::Terrace::Client bootstrap,
             std::shared_ptr<ConnectionLoad> counted)
      : stream(kj::mv(accepted)),
        network(*stream, kDescriptorsTakenMax, capnp::rpc::twoparty::Side::SERVER),
        load(std::move(counted)),
        rpc(capnp::makeRpcServer(network, kj::mv(bootstrap))) {
    load->network = &network;
    // No more is read while calls hold so much; a connection's other bounds refuse.
    rpc.setFlowLimit(kConnectionPayloadBytesMax / sizeof(capnp::word));
  }
  // A call may outlive it.
  ~Connection() { load->network = nullptr; }

  kj::Own<kj::AsyncCapabilityStream> stream;
  capnp::TwoPartyVatNetwork network;
  std::shared_ptr<ConnectionLoad> load;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;
};

}  // namespace

class ControlServer::Impl final : public kj::TaskSet::ErrorHandler {
 public:
  Impl(ControlOptions options, Shard& shard, UniqueFd listener)
      : options_(std::move(options)),
        listener_(std::move(listener)),
        context_{.shard = shard,
                 .chunks = {},
                 .status = {.version = options_.version,
                            .socket = options_.socket,
                            .boot_epoch = options_.boot_epoch,
                            .started_ns = MonotonicNs(),
                            .archive = options_.archive}} {
    for (const std::string& tenant : shard.tenants()) {
      context_.chunks[tenant] = std::make_unique<MessageChunks>(shard, tenant);
    }
  }

  // A daemon that nobody can reach any more ends: who started it starts it anew.
  void Run(std::promise<void> started) {
    try {
      Serve(std::move(started));
    } catch (const kj::Exception& exception) {
      LogError(std::string("the control plane ended: ") + exception.getDescription().cStr());
      std::abort();
    }
  }

  void Serve(std::promise<void> started) {
    kj::AsyncIoContext io = kj::setupAsyncIo();
    auto stop = kj::newPromiseAndCrossThreadFulfiller<void>();
    stop_ = kj::mv(stop.fulfiller);
    auto receiver = io.lowLevelProvider->wrapListenSocketFd(listener_.get());
    kj::Timer& timer = io.provider->getTimer();
    kj::TaskSet connections(*this);
    connections_ = &connections;
    auto accepting = AcceptLoop(*receiver, timer);
    started.set_value();
    accepting.exclusiveJoin(kj::mv(stop.promise)).wait(io.waitScope);
    Drain(timer, MonotonicNs() + kDrainNsMax).wait(io.waitScope);
  }

  // A connection that cannot be had (no descriptor, a peer that is gone) ends neither the others
  // nor the loop.
  kj::Promise<void> AcceptLoop(kj::ConnectionReceiver& receiver, kj::Timer& timer) {
    // accept() throws at once what it finds at once.
    return kj::evalNow([&receiver] { return receiver.accept(); })
        .then([this](kj::Own<kj::AsyncIoStream>&& stream) -> kj::Promise<void> {
          Welcome(stream.downcast<kj::AsyncCapabilityStream>());
          return kj::READY_NOW;
        })
        .catch_([&timer](kj::Exception&& exception) -> kj::Promise<void> {
          LogWarning(std::string("a connection is refused: ") + exception.getDescription().cStr());
          return timer.afterDelay(kAcceptRetry);
        })
        .then([this, &receiver, &timer] { return AcceptLoop(receiver, timer); });
  }

  void Welcome(kj::Own<kj::AsyncCapabilityStream> stream) {
    KJ_REQUIRE(connection_count_ < kConnectionCountMax, "too many connections");
    Peer peer = PeerOf(*stream);
    auto load = std::make_shared<ConnectionLoad>();
    auto cut = kj::newPromiseAndFulfiller<void>();
    load->cut = kj::mv(cut.fulfiller);
    auto connection = kj::heap<Connection>(
        kj::mv(stream), kj::heap<TerraceService>(context_, std::move(peer), load), load);
    auto ended = connection->network.onDisconnect().exclusiveJoin(kj::mv(cut.promise));
    ++connection_count_;
    connections_->add(ended.attach(kj::mv(connection), kj::defer([this] { --connection_count_; })));
  }

  // Until nothing is copied and the last answers have had a turn to be sent.
  kj::Promise<void> Drain(kj::Timer& timer, int64_t until_ns) {
    return timer.afterDelay(kDrainPoll).then([this, &timer, until_ns]() -> kj::Promise<void> {
      bool copying = false;
      for (const auto& [tenant, chunks] : context_.chunks) copying |= chunks->copying() != 0;
      if (!copying || MonotonicNs() >= until_ns) return kj::READY_NOW;
      return Drain(timer, until_ns);
    });
  }

  Peer PeerOf(kj::AsyncCapabilityStream& stream) {
    Peer peer;
    ucred credentials{};
    kj::uint length = sizeof credentials;
    stream.getsockopt(SOL_SOCKET, SO_PEERCRED, &credentials, &length);
    peer.uid = credentials.uid;
    peer.pid = credentials.pid;
    try {
      int pidfd = -1;
      length = sizeof pidfd;
      stream.getsockopt(SOL_SOCKET, kSoPeerPidfd, &pidfd, &length);
      peer.pidfd.Reset(pidfd);
    } catch (const kj::Exception&) {  // before Linux 6.5
      peer.pidfd.Reset(static_cast<int>(syscall(SYS_pidfd_open, peer.pid, 0)));
    }
    for (const TenantAdmission& tenant : options_.tenants) {
      if (std::count(tenant.uids.begin(), tenant.uids.end(), peer.uid) != 0) {
        peer.tenant = tenant.name;
        break;
      }
    }
    return peer;
  }

  void taskFailed(kj::Exception&& exception) override {
    LogDebug(std::string("a connection ended: ") + exception.getDescription().cStr());
  }

  const ControlOptions options_;
  UniqueFd listener_;
  ServiceContext context_;
  std::thread thread_;
  kj::Own<kj::CrossThreadPromiseFulfiller<void>> stop_;
  kj::TaskSet* connections_ = nullptr;
  uint32_t connection_count_ = 0;
};

ControlServer::ControlServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ControlServer::~ControlServer() { Stop(); }

Result<std::unique_ptr<ControlServer>> ControlServer::Create(ControlOptions options, Shard& shard) {
  Result<UniqueFd> listener = Listen(options.socket, options.socket_mode);
  if (!listener.ok()) return listener.status();
  return std::unique_ptr<ControlServer>(
      new ControlServer(std::make_unique<Impl>(std::move(options), shard, *std::move(listener))));
}

void ControlServer::Start() {
  std::promise<void> started;
  std::future<void> running = started.get_future();
  impl_->thread_ = std::thread(
      [this, started = std::move(started)]() mutable { impl_->Run(std::move(started)); });
  running.wait();
}

void ControlServer::Stop() {
  if (!impl_->thread_.joinable()) return;
  unlink(impl_->options_.socket.c_str());
  impl_->stop_->fulfill();
  impl_->thread_.join();
}

}  // namespace terrace
