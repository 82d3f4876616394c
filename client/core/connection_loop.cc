#include "client/core/connection_loop.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>

#include "client/core/backoff.h"
#include "client/core/rpc_convert.h"
#include "storage/base/clock.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

// How long one step of connecting may take before the connection is given up.
constexpr int64_t kStepNsMax = kCallTimeoutNs;
// How long a new connection may look for segments before it counts as available.
constexpr int64_t kFirstSegmentsNs = 200 * kNsPerMs;
// After a segment could not be mapped (no address space, no descriptor): not at once again.
constexpr int64_t kMapRetryNs = kNsPerSecond;

// kj takes SIGUSR1 and SIGPIPE for itself.  Our thread blocks every signal and needs neither, and
// the engine's handlers are not ours to change.
class SignalsKept {
 public:
  SignalsKept() {
    sigaction(SIGUSR1, nullptr, &usr1_);
    sigaction(SIGPIPE, nullptr, &pipe_);
  }
  ~SignalsKept() {
    sigaction(SIGUSR1, &usr1_, nullptr);
    sigaction(SIGPIPE, &pipe_, nullptr);
  }

 private:
  struct sigaction usr1_ {
  }, pipe_{};
};

kj::AsyncIoContext SetUpIo() {
  const SignalsKept kept;
  return kj::setupAsyncIo();
}

// One end of a stream that its descriptor's owner closes later.  Copies that forked children hold
// do not keep it open.
class ShutDown {
 public:
  explicit ShutDown(int fd) : fd_(fd) {}
  ShutDown(const ShutDown&) = delete;
  ShutDown& operator=(const ShutDown&) = delete;
  ~ShutDown() { shutdown(fd_, SHUT_RDWR); }

 private:
  const int fd_;
};

Result<UniqueFd> ConnectSocket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Status(StatusCode::kInvalid, "socket " + path + ": a path has at most 107 bytes");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) {
    return Status(StatusCode::kUnavailable, ErrnoStatus("socket", errno).message());
  }
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    if (errno == EACCES) {
      return Status(StatusCode::kDenied,
                    path + ": Permission denied: the daemon's `socket_mode` (or a folder's mode) " +
                        "does not admit uid " + std::to_string(geteuid()) +
                        ": set socket_mode = 0o666 in its configuration");
    }
    return Status(StatusCode::kUnavailable,
                  "no daemon answers at " + path + ": " + std::strerror(errno));
  }
  return fd;
}

// The first that somebody serves; else the last one's failure, naming them all.  kDenied counts
// before the others: that daemon is there.
Result<UniqueFd> ConnectAny(const std::vector<std::string>& paths) {
  std::string earlier;
  bool denied = false;
  for (size_t i = 0;; ++i) {
    Result<UniqueFd> fd = ConnectSocket(paths[i]);
    if (fd.ok()) return fd;
    denied |= fd.status().code() == StatusCode::kDenied;
    if (i + 1 == paths.size()) {
      return Status(denied ? StatusCode::kDenied : fd.status().code(),
                    earlier + fd.status().message());
    }
    earlier += fd.status().message() + "; ";
  }
}

kj::TimePoint In(kj::Timer& timer, int64_t ns) { return timer.now() + ns * kj::NANOSECONDS; }

}  // namespace

struct Connection::Loop::Wire {
  Wire(kj::Own<kj::AsyncCapabilityStream> connected, int fd)
      : stream(kj::mv(connected)),
        shut_down(fd),
        network(*stream, kDescriptorsPerMessageMax, capnp::rpc::twoparty::Side::CLIENT),
        system(capnp::makeRpcClient(network)) {}

  rpc::Terrace::Client Bootstrap() {
    capnp::MallocMessageBuilder message(8);
    auto vat = message.initRoot<capnp::rpc::twoparty::VatId>();
    vat.setSide(capnp::rpc::twoparty::Side::SERVER);
    return system.bootstrap(vat).castAs<rpc::Terrace>();
  }

  kj::Own<kj::AsyncCapabilityStream> stream;
  ShutDown shut_down;  // after the network's last words, before the stream is closed
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> system;
};

Connection::Loop::Loop(Connection& owner)
    : owner_(owner),
      io_(SetUpIo()),
      wake_observer_(io_.unixEventPort, owner.wake_.get(),
                     kj::UnixEventPort::FdObserver::OBSERVE_READ),
      stop_(kj::newPromiseAndFulfiller<void>()),
      stopped_(stop_.promise.fork()),
      tasks_(*this) {}

void Connection::Loop::Run() {
  tasks_.add(WatchPosted());
  Backoff backoff;
  while (!stopping_) {
    served_ = false;
    Status why(StatusCode::kUnavailable, "the connection was lost");
    try {
      why = Serve();
    } catch (const kj::Exception& exception) {
      why = Status(StatusCode::kUnavailable, exception.getDescription().cStr());
    } catch (const std::exception& exception) {
      why = Status(StatusCode::kUnavailable, exception.what());
    }
    owner_.Lost(why);
    if (stopping_ || (served_ && !owner_.options_.reconnect)) break;
    PauseBefore(backoff.NextNs(served_));
  }
  // Without reconnect the posted work is still answered until Stop.
  if (!stopping_) stopped_.addBranch().wait(io_.waitScope);
  RunPosted();
}

template <typename T>
T Connection::Loop::Within(kj::Promise<T> promise) {
  auto stopped = stopped_.addBranch().then(
      []() -> kj::Promise<T> { return KJ_EXCEPTION(DISCONNECTED, "the client is closing"); });
  return io_.provider->getTimer()
      .timeoutAfter(kStepNsMax * kj::NANOSECONDS, promise.exclusiveJoin(kj::mv(stopped)))
      .wait(io_.waitScope);
}

Status Connection::Loop::Serve() {
  Result<UniqueFd> connected = ConnectAny(owner_.sockets_.paths);
  if (!connected.ok()) return connected.status();
  const int fd = connected->get();
  using Wrap = kj::LowLevelAsyncIoProvider;
  Wire wire(io_.lowLevelProvider->wrapUnixSocketFd(
                connected->Release(),
                Wrap::TAKE_OWNERSHIP | Wrap::ALREADY_CLOEXEC | Wrap::ALREADY_NONBLOCK),
            fd);
  // The link's capabilities and the calls go before the wire.
  const auto unlinked = kj::defer([this] {
    owner_.calls_ = nullptr;
    if (link_ != nullptr && link_->mapped != nullptr) link_->mapped->MarkDead();
    owner_.available_.store(false, std::memory_order_release);
    link_ = nullptr;
  });
  kj::TaskSet calls(*this);
  auto lost = wire.network.onDisconnect().fork();

  Status opened = OpenSession(wire);
  if (!opened.ok()) return opened;
  owner_.calls_ = &calls;
  RegisterAll();
  if (link_->mapped != nullptr) {
    auto first = PollSegments(true);
    auto enough = io_.provider->getTimer().afterDelay(kFirstSegmentsNs * kj::NANOSECONDS);
    first.exclusiveJoin(kj::mv(enough)).exclusiveJoin(lost.addBranch()).wait(io_.waitScope);
  }
  served_ = true;
  {
    const std::lock_guard lock(owner_.mutex_);
    owner_.available_.store(true, std::memory_order_release);
    owner_.changed_.notify_all();
  }
  auto ended = lost.addBranch().exclusiveJoin(stopped_.addBranch());
  if (link_->mapped != nullptr) ended = ended.exclusiveJoin(PollSegments(false));
  ended.wait(io_.waitScope);
  return Status(StatusCode::kUnavailable, "the daemon at " + owner_.sockets_.words + " went away");
}

Status Connection::Loop::OpenSession(Wire& wire) {
  rpc::Terrace::Client terrace = wire.Bootstrap();
  auto request = terrace.openRequest();
  request.setClientName(owner_.options_.client_name.c_str());
  const bool wanted = owner_.options_.shared_memory;
  request.setLayoutVersion(wanted ? shm::kSessionLayoutVersion : 0);
  const auto opened =
      Within(kj::Promise<capnp::Response<rpc::Terrace::OpenResults>>(request.send()));
  if (opened.getStatus().getCode() != rpc::Code::OK) return FromRpc(opened.getStatus());
  owner_.chunk_bytes_max_.store(opened.getInfo().getChunkBytesMax(), std::memory_order_relaxed);
  link_ = std::make_unique<Link>(
      Link{.terrace = kj::mv(terrace), .session = opened.getSession(), .mapped = nullptr});
  if (!wanted || !opened.getInfo().getSharedMemory()) return Status::Ok();
  return Attach(opened.getInfo().getBootEpoch());
}

Status Connection::Loop::Attach(uint64_t boot_epoch) {
  using Attached = capnp::Response<rpc::Session::AttachResults>;
  auto attached = Within(kj::Promise<Attached>(link_->session.attachRequest().send()));
  if (attached.getStatus().getCode() != rpc::Code::OK) return FromRpc(attached.getStatus());
  auto index = attached.getIndex();
  auto memory = attached.getMemory();
  auto doorbell = attached.getDoorbell();
  const int index_fd = Within(index.getFd()).orDefault(-1);
  const int memory_fd = Within(memory.getFd()).orDefault(-1);
  const int doorbell_fd = Within(doorbell.getFd()).orDefault(-1);
  if (index_fd < 0 || memory_fd < 0 || doorbell_fd < 0 || attached.getIndexBytes() == 0 ||
      attached.getMemoryBytes() == 0) {
    return Status(StatusCode::kUnavailable, "the daemon's descriptors did not arrive");
  }
  Result<Mapping> index_map = Mapping::MapReadOnly(index_fd, attached.getIndexBytes());
  if (!index_map.ok()) return index_map.status();
  Result<Mapping> memory_map = Mapping::MapReadWrite(memory_fd, attached.getMemoryBytes());
  if (!memory_map.ok()) return memory_map.status();
  UniqueFd own_doorbell(fcntl(doorbell_fd, F_DUPFD_CLOEXEC, 0));
  if (!own_doorbell.valid()) {
    return Status(StatusCode::kUnavailable, ErrnoStatus("doorbell", errno).message());
  }
  Session::Parts parts{.index = *std::move(index_map),
                       .memory = *std::move(memory_map),
                       .doorbell = std::move(own_doorbell),
                       .boot_epoch = boot_epoch};
  auto wake = [weak = owner_.weak_from_this()] {
    const std::shared_ptr<Connection> connection = weak.lock();
    if (connection != nullptr) connection->RequestHousekeeping();
  };
  Result<std::shared_ptr<Session>> session = Session::Create(std::move(parts), std::move(wake));
  if (!session.ok()) return session.status();
  link_->mapped = *std::move(session);
  segments_epoch_ = 0;
  return Status::Ok();
}

// Those whose registration is refused now (another process changed the label's identity) answer
// kUnavailable until the next connection.
void Connection::Loop::RegisterAll() {
  std::vector<std::shared_ptr<NamespaceState>> states;
  {
    const std::lock_guard lock(owner_.mutex_);
    std::erase_if(owner_.namespaces_, [](const auto& weak) { return weak.expired(); });
    for (const auto& weak : owner_.namespaces_) {
      if (auto state = weak.lock()) states.push_back(std::move(state));
    }
  }
  for (const auto& state : states) {
    const Delivery<bool> registered = Within(owner_.StartRegistration(*link_, state));
    if (!registered.result().ok()) state->Detach();
  }
}

kj::Promise<void> Connection::Loop::PollSegments(bool once) {
  return MapSegments().then([this, once](bool more) -> kj::Promise<void> {
    if (once && !more) return kj::READY_NOW;
    return PollSegments(once);
  });
}

kj::Promise<bool> Connection::Loop::MapSegments() {
  using Reply = capnp::Response<rpc::Session::SegmentsResults>;
  auto request = link_->session.segmentsRequest();
  const std::vector<KnownSegment> known = link_->mapped->maps().Known();
  request.setEpoch(segments_epoch_);
  request.setKnown(kj::arrayPtr(reinterpret_cast<const kj::byte*>(known.data()),
                                known.size() * sizeof(KnownSegment)));
  return request.send().then([this](Reply&& received) -> kj::Promise<bool> {
    auto reply = kj::heap<Reply>(kj::mv(received));
    const auto segments = reply->getSegments();
    auto mapped = kj::heapArrayBuilder<kj::Promise<bool>>(segments.size());
    for (const auto segment : segments) {
      const KnownSegment place{.segment = segment.getSegment(),
                               .writable = segment.getWritable() ? 1u : 0u,
                               .generation = segment.getGeneration()};
      auto descriptor = segment.getDescriptor();
      auto fd = descriptor.getFd();
      mapped.add(fd.then([session = link_->mapped, place,
                          bytes = segment.getBytes()](kj::Maybe<int> open) {
                     KJ_IF_MAYBE (number, open) {
                       return session->maps().Map(place, bytes, *number).ok();
                     }
                     return false;
                   }).attach(kj::mv(descriptor)));
    }
    segments_epoch_ = reply->getEpoch();
    const bool more = reply->getMore();
    return kj::joinPromises(mapped.finish())
        .then([this, more](kj::Array<bool>&& done) -> kj::Promise<bool> {
          Housekeep();
          if (std::all_of(done.begin(), done.end(), [](bool ok) { return ok; })) return more;
          auto& timer = io_.provider->getTimer();
          return timer.atTime(In(timer, kMapRetryNs)).then([more] { return more; });
        })
        .attach(kj::mv(reply));
  });
}

void Connection::Loop::PauseBefore(int64_t backoff_ns) {
  io_.provider->getTimer()
      .afterDelay(backoff_ns * kj::NANOSECONDS)
      .exclusiveJoin(stopped_.addBranch())
      .wait(io_.waitScope);
}

kj::Promise<void> Connection::Loop::WatchPosted() {
  return wake_observer_.whenBecomesReadable().then([this]() -> kj::Promise<void> {
    uint64_t count = 0;
    while (read(owner_.wake_.get(), &count, sizeof count) > 0) {
    }
    RunPosted();
    {
      const std::lock_guard lock(owner_.mutex_);
      stopping_ = owner_.stopping_;
    }
    if (stopping_) stop_.fulfiller->fulfill();
    return WatchPosted();
  });
}

void Connection::Loop::RunPosted() {
  for (;;) {
    Work work;
    {
      const std::lock_guard lock(owner_.mutex_);
      if (owner_.posted_.empty()) break;
      work = std::move(owner_.posted_.front());
      owner_.posted_.pop_front();
    }
    work(owner_.calls_ != nullptr ? link_.get() : nullptr);
  }
  if (owner_.housekeeping_wanted_.exchange(false, std::memory_order_acq_rel)) Housekeep();
}

void Connection::Loop::Housekeep() {
  if (housekeeping_ || link_ == nullptr || link_->mapped == nullptr) return;
  const int64_t again_ns = link_->mapped->Housekeep();
  if (again_ns == 0) return;
  housekeeping_ = true;
  tasks_.add(io_.provider->getTimer().afterDelay(again_ns * kj::NANOSECONDS).then([this] {
    housekeeping_ = false;
    Housekeep();
  }));
}

void Connection::Loop::taskFailed(kj::Exception&&) {
  // A call's failure has been answered to its caller; nobody else is to be told.
}

}  // namespace terrace
