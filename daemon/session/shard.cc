#include "daemon/session/shard.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <thread>
#include <tuple>

#include "daemon/session/nvme_life.h"
#include "daemon/session/ring_session.h"
#include "proto/shm/lookup.h"
#include "storage/base/clock.h"
#include "storage/base/log.h"

namespace terrace {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

// How long the rings are polled past the last entry, before sleep.  A doorbell and a wake-up cost
// a client up to 50 us, so that is what polling may cost; where entries come further apart than
// that, it would take a core from the clients for nothing.
constexpr int64_t kSpinNsMin = 2 * kNsPerUs;
constexpr int64_t kSpinNsMax = 50 * kNsPerUs;
// Sessions with those whose process is dead, as a multiple of the living that there may be.
constexpr uint32_t kDeadSessionsShare = 2;
// Of the start, for measuring all tenants' devices.
constexpr int64_t kTuneNs = 400 * kNsPerMs;
// Between lines of the log that say who pins a full pool, and between looks whether pins fill it.
constexpr int64_t kPinWarningNs = 60 * kNsPerSecond;
constexpr int64_t kPinLookNs = kNsPerSecond;
constexpr uint32_t kPollEvery = 16;  // spins between looks at descriptors

// One line of the log, whatever a client calls itself.
std::string OneLine(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return text;
}

}  // namespace

class Shard::Impl {
 public:
  explicit Impl(ShardOptions options) : options_(std::move(options)) {}

  struct Tenant {
    std::unique_ptr<BlockDevice> device;  // of its NVMe tier; null: none.  Outlives the store.
    std::unique_ptr<ChunkStore> store;
    std::unique_ptr<asio::posix::stream_descriptor> device_event;
    std::unique_ptr<asio::posix::stream_descriptor> codec_event;  // null: nothing is encoded
    uint64_t settled_seen = 0;
    int64_t next_tick_ns = 0;
    int64_t ticked_ns = 0;
    uint64_t full_seen = 0;
    int64_t pin_look_ns = 0;  // when it may be looked at who pins it again
  };

  struct Session {
    SessionRequest request;
    ChunkStore* store = nullptr;
    std::unique_ptr<RingSession> rings;  // null until Attach
    std::unique_ptr<asio::posix::stream_descriptor> doorbell, pidfd;
    bool closed = false;
    bool dead = false;
  };

  struct SettledWait {
    WaitId id = 0;
    std::string tenant;
    int64_t deadline_ns = 0;
    std::function<bool(bool)> look;
  };
  struct DescriptorWait {
    WaitId id = 0;
    std::string tenant;
    uint64_t epoch = 0;
    int64_t deadline_ns = 0;  // 0: none
    std::function<void()> changed;
  };

  Status Prepare();
  // Of the tenants that have one.
  std::vector<NvmeLife> NvmeLives();
  bool QuietDevices();
  Status WatchNvme(Tenant& tenant);
  void Watch(Tenant& tenant, asio::posix::stream_descriptor& event);
  void Run();
  bool ServeNvme(int64_t now_ns);
  bool SettledSinceSeen() const;
  bool ServeRings(int64_t now_ns);
  void WantTick(int64_t now_ns);
  void ServeWaits(int64_t now_ns);
  void ServeTime(int64_t now_ns);
  void WarnOfPins(const std::string& name, Tenant& tenant, int64_t now_ns);
  void Sleep();
  int64_t NextWake() const;
  void WatchDoorbell(SessionId id);
  void WatchProcess(SessionId id);
  void Close(SessionId id);
  void Died(SessionId id);
  void Shutdown();

  ShardOptions options_;
  asio::io_context io_{1};
  // Without it a context that has nothing to wait for stops, and never waits again.
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  bool stopped_ = false;
  bool hung_ = false;  // written by the shard's thread, read when it has ended

  // Owned by the shard's thread.
  std::map<std::string, Tenant, std::less<>> tenants_;
  std::map<SessionId, std::unique_ptr<Session>> sessions_;
  SessionId next_session_ = 1;
  WaitId next_wait_ = 1;
  std::vector<SettledWait> settled_waits_;
  std::vector<DescriptorWait> descriptor_waits_;
};

Status Shard::Impl::Prepare() {
  for (ChunkStoreOptions& options : options_.tenants) {
    Tenant& tenant = tenants_[options.tenant];
    if (const auto device = options_.nvme.find(options.tenant); device != options_.nvme.end()) {
      tenant.device = std::move(device->second);
      options.nvme.device = tenant.device.get();
    }
    Result<std::unique_ptr<ChunkStore>> store = ChunkStore::Create(options);
    if (!store.ok()) return store.status();
    tenant.store = *std::move(store);
  }
  const std::vector<NvmeLife> lives = NvmeLives();
  Status started = StartNvme(lives, MonotonicNs() + options_.nvme_start_ns, options_.go_on);
  if (!started.ok()) return started;
  for (auto& [name, tenant] : tenants_) {
    if (tenant.device == nullptr) continue;
    const NvmeLife life{.device = tenant.device.get(), .store = tenant.store.get()};
    TuneNvme(life, kTuneNs / static_cast<int64_t>(lives.size()));
    if (Status watched = WatchNvme(tenant); !watched.ok()) return watched;
  }
  return Status::Ok();
}

std::vector<NvmeLife> Shard::Impl::NvmeLives() {
  std::vector<NvmeLife> lives;
  for (auto& [name, tenant] : tenants_) {
    if (tenant.device == nullptr || tenant.store == nullptr) continue;
    lives.push_back({.device = tenant.device.get(), .store = tenant.store.get()});
  }
  return lives;
}

bool Shard::Impl::QuietDevices() {
  return QuietNvme(NvmeLives(), MonotonicNs() + options_.nvme_quiet_ns);
}

Status Shard::Impl::WatchNvme(Tenant& tenant) {
  const std::pair<int, std::unique_ptr<asio::posix::stream_descriptor>*> events[] = {
      {tenant.device->event_fd(), &tenant.device_event},
      {tenant.store->codec_event_fd(), &tenant.codec_event}};
  for (const auto& [fd, event] : events) {
    if (fd < 0) continue;
    UniqueFd second(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!second.valid()) {
      return ErrnoStatus("a second descriptor for the NVMe tier's events", errno);
    }
    *event = std::make_unique<asio::posix::stream_descriptor>(io_, second.Release());
    Watch(tenant, **event);
  }
  return Status::Ok();
}

void Shard::Impl::Watch(Tenant& tenant, asio::posix::stream_descriptor& event) {
  event.async_wait(asio::posix::stream_descriptor::wait_read,
                   [this, &tenant, &event](error_code ec) {
                     if (ec) return;
                     tenant.store->PollNvme(MonotonicNs());
                     Watch(tenant, event);
                   });
}

// What the tiers want to do next, once a turn and after all that may ask them for something: it
// also hands that to the devices.  True when it shall go on at once.
bool Shard::Impl::ServeNvme(int64_t now_ns) {
  bool busy = false;
  for (auto& [name, tenant] : tenants_) {
    if (tenant.device == nullptr) continue;
    busy |= tenant.store->PollNvme(now_ns);
    const int64_t wake_ns = tenant.store->NvmeWake();
    busy |= wake_ns != 0 && wake_ns <= now_ns;
  }
  return busy;
}

void Shard::Impl::Run() {
  int64_t busy_ns = MonotonicNs();
  int64_t spin_ns = kSpinNsMax;
  bool posted = false;
  for (uint32_t spins = 0; !stopping_.load(std::memory_order_acquire); ++spins) {
    const int64_t now_ns = MonotonicNs();
    bool busy = ServeRings(now_ns);
    // One at a time: what posts itself anew must not keep the rings waiting.
    if (busy || posted || spins % kPollEvery == 0) {
      posted = io_.poll_one() != 0;
      busy |= posted;
    }
    if (busy) WantTick(now_ns);
    ServeTime(now_ns);
    ServeWaits(now_ns);
    busy |= ServeNvme(now_ns);
    busy |= SettledSinceSeen();
    if (busy) {
      const bool soon = now_ns - busy_ns <= kSpinNsMax;
      spin_ns = std::clamp(soon ? spin_ns * 2 : spin_ns / 2, kSpinNsMin, kSpinNsMax);
      busy_ns = now_ns;
    }
    if (busy || (!sessions_.empty() && now_ns - busy_ns < spin_ns)) {
      shm::SpinPause();
      continue;
    }
    Sleep();
    WantTick(MonotonicNs());
  }
  Shutdown();
}

bool Shard::Impl::ServeRings(int64_t now_ns) {
  bool busy = false;
  // Everybody's uses are told before anybody's put makes the policy choose a victim.
  for (auto& [id, session] : sessions_) {
    if (session->rings != nullptr && !session->closed) session->rings->DrainTouches();
  }
  for (auto& [id, session] : sessions_) {
    if (session->rings == nullptr || session->closed) continue;
    busy |= session->rings->Poll(now_ns);
    if (session->rings->broken().empty()) continue;
    busy = true;
    LogWarning("session " + std::to_string(id) + " of pid " + std::to_string(session->request.pid) +
               " is cut off: " + session->rings->broken());
    Close(id);
  }
  return busy;
}

// Who waits for it has not looked yet.
bool Shard::Impl::SettledSinceSeen() const {
  return std::any_of(tenants_.begin(), tenants_.end(), [](const auto& tenant) {
    return tenant.second.store->settled_count() != tenant.second.settled_seen;
  });
}

// Something ran that may have opened claims or emptied segments.  A tick looks at every segment, so
// under load there is one a millisecond, not one a submission.
void Shard::Impl::WantTick(int64_t now_ns) {
  for (auto& [name, tenant] : tenants_) {
    const int64_t soonest = std::max(now_ns, tenant.ticked_ns + kNsPerMs);
    if (tenant.next_tick_ns == 0 || tenant.next_tick_ns > soonest) tenant.next_tick_ns = soonest;
  }
}

void Shard::Impl::ServeWaits(int64_t now_ns) {
  for (auto& [name, tenant] : tenants_) {
    const bool settled = tenant.store->settled_count() != tenant.settled_seen;
    tenant.settled_seen = tenant.store->settled_count();
    for (auto& [id, session] : sessions_) {
      if (session->rings == nullptr || session->closed || session->store != tenant.store.get()) {
        continue;
      }
      const int64_t deadline = session->rings->NextDeadline();
      if (deadline != 0 && (settled || deadline <= now_ns)) session->rings->Recheck(now_ns);
    }
    std::erase_if(settled_waits_, [&, &name = name](SettledWait& wait) {
      if (wait.tenant != name) return false;
      const bool expired = wait.deadline_ns <= now_ns;
      if (!settled && !expired) return false;
      return wait.look(expired) || expired;
    });
    const uint64_t epoch = tenant.store->descriptor_epoch();
    std::vector<DescriptorWait> changed;
    std::erase_if(descriptor_waits_, [&, &name = name](DescriptorWait& wait) {
      const bool expired = wait.deadline_ns != 0 && wait.deadline_ns <= now_ns;
      if (wait.tenant != name || (wait.epoch == epoch && !expired)) return false;
      changed.push_back(std::move(wait));
      return true;
    });
    for (DescriptorWait& wait : changed) wait.changed();  // may wait again
  }
}

void Shard::Impl::ServeTime(int64_t now_ns) {
  for (auto& [name, tenant] : tenants_) {
    if (tenant.next_tick_ns == 0 || tenant.next_tick_ns > now_ns) continue;
    tenant.ticked_ns = now_ns;
    tenant.next_tick_ns = tenant.store->Tick(now_ns);
    WarnOfPins(name, tenant, now_ns);
    for (auto session = sessions_.begin(); session != sessions_.end();) {
      Session& at = *session->second;
      if (at.rings != nullptr && at.store == tenant.store.get()) at.rings->PublishState();
      const bool gone = at.dead && at.store->PinsReleased(session->first);
      session = gone ? sessions_.erase(session) : std::next(session);
    }
  }
}

// Says who holds the room that puts do not find, when at least half of the segments are pinned.
void Shard::Impl::WarnOfPins(const std::string& name, Tenant& tenant, int64_t now_ns) {
  const uint64_t full = tenant.store->full_count();
  if (full == tenant.full_seen || now_ns < tenant.pin_look_ns) return;
  tenant.full_seen = full;
  tenant.pin_look_ns = now_ns + kPinLookNs;
  const SegmentCounts segments = tenant.store->stats().segments;
  if (segments.pinned * 2 < segments.total) return;
  SessionId holder = 0;
  uint32_t most = 0;
  for (const auto& [id, session] : sessions_) {
    if (session->store != tenant.store.get()) continue;
    const uint32_t pinned = tenant.store->UseOf(id).pinned_segments;
    if (pinned > most) std::tie(holder, most) = std::pair(id, pinned);
  }
  if (most == 0) return;  // only the daemon itself pins, for calls with the bytes in the message
  tenant.pin_look_ns = now_ns + kPinWarningNs;
  const SessionRequest& by = sessions_.at(holder)->request;
  LogWarning("tenant '" + name + "' has no room for puts: " + std::to_string(segments.pinned) +
             " of " + std::to_string(segments.total) + " segments are pinned; most, " +
             std::to_string(most) + ", by session " + std::to_string(holder) + " of pid " +
             std::to_string(by.pid) + " (" + OneLine(by.client_name) +
             "): let it release pins, or raise `dram`");
}

int64_t Shard::Impl::NextWake() const {
  int64_t next = 0;
  const auto sooner = [&next](int64_t at) {
    if (at != 0) next = next == 0 ? at : std::min(next, at);
  };
  for (const auto& [name, tenant] : tenants_) {
    sooner(tenant.next_tick_ns);
    sooner(tenant.store->NvmeWake());
  }
  for (const auto& [id, session] : sessions_) {
    if (session->rings != nullptr) sooner(session->rings->NextDeadline());
  }
  for (const SettledWait& wait : settled_waits_) sooner(wait.deadline_ns);
  for (const DescriptorWait& wait : descriptor_waits_) sooner(wait.deadline_ns);
  return next;
}

void Shard::Impl::Sleep() {
  bool may_sleep = true;
  for (auto& [id, session] : sessions_) {
    if (session->rings != nullptr) may_sleep &= session->rings->AnnounceSleep();
  }
  if (may_sleep) {
    const int64_t wake_ns = NextWake();
    if (wake_ns == 0) {
      io_.run_one();
    } else {
      io_.run_one_for(std::chrono::nanoseconds(std::max<int64_t>(wake_ns - MonotonicNs(), 0)));
    }
  }
  for (auto& [id, session] : sessions_) {
    if (session->rings != nullptr) session->rings->AnnounceAwake();
  }
}

void Shard::Impl::WatchDoorbell(SessionId id) {
  Session& session = *sessions_.at(id);
  session.doorbell->async_wait(asio::posix::stream_descriptor::wait_read,
                               [this, id](error_code ec) {
                                 if (ec || !sessions_.contains(id)) return;
                                 if (!sessions_.at(id)->rings->DrainDoorbell()) return Died(id);
                                 WatchDoorbell(id);
                               });
}

void Shard::Impl::WatchProcess(SessionId id) {
  Session& session = *sessions_.at(id);
  if (session.pidfd == nullptr) return;
  session.pidfd->async_wait(asio::posix::stream_descriptor::wait_read, [this, id](error_code ec) {
    if (!ec && sessions_.contains(id)) Died(id);
  });
}

void Shard::Impl::Close(SessionId id) {
  Session& session = *sessions_.at(id);
  if (session.closed) return;
  session.closed = true;
  if (session.rings == nullptr) {
    sessions_.erase(id);  // it never had our memory
    return;
  }
  session.rings->Close(StatusCode::kUnavailable);
  session.store->SessionClosed(id, MonotonicNs());
}

// The process is gone, or its library has let go of the session's last pin and copy.
void Shard::Impl::Died(SessionId id) {
  Session& session = *sessions_.at(id);
  if (session.dead) return;
  session.dead = true;
  session.doorbell.reset();
  session.pidfd.reset();
  if (!session.closed) {
    session.closed = true;
    session.rings->Close(StatusCode::kUnavailable);
  }
  session.store->SessionDied(id, MonotonicNs());
}

void Shard::Impl::Shutdown() {
  for (auto& [id, session] : sessions_) {
    if (session->rings != nullptr) session->rings->Close(StatusCode::kUnavailable);
  }
  for (SettledWait& wait : settled_waits_) wait.look(true);
  settled_waits_.clear();
  descriptor_waits_.clear();
  sessions_.clear();
  DrainNvme(NvmeLives(), MonotonicNs() + options_.nvme_drain_ns);
  hung_ = !QuietDevices();
}

Shard::Shard(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Shard::~Shard() {
  Stop();
  // A hung device's memory is in the system's hands, and its end would be waited for.
  if (impl_->hung_ || !impl_->QuietDevices()) static_cast<void>(impl_.release());
}

Result<std::unique_ptr<Shard>> Shard::Create(ShardOptions options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  Status prepared = impl->Prepare();
  if (!prepared.ok()) {
    if (!impl->QuietDevices()) static_cast<void>(impl.release());  // as in ~Shard
    return prepared;
  }
  return std::unique_ptr<Shard>(new Shard(std::move(impl)));
}

void Shard::Start() {
  impl_->thread_ = std::thread([this] { impl_->Run(); });
}

void Shard::Stop() {
  if (!impl_->thread_.joinable()) return;
  impl_->stopping_.store(true, std::memory_order_release);
  Post([] {});
  impl_->thread_.join();
}

bool Shard::hung() const { return impl_->hung_; }

void Shard::Post(std::function<void()> work) { asio::post(impl_->io_, std::move(work)); }

Result<SessionId> Shard::OpenSession(SessionRequest request) {
  ChunkStore* store = this->store(request.tenant);
  if (store == nullptr) return Status(StatusCode::kNotFound, "no tenant " + request.tenant);
  // The dead have only their grace left, and whoever starts a process a chunk has many of them.
  const auto taken = std::count_if(
      impl_->sessions_.begin(), impl_->sessions_.end(),
      [store](const auto& at) { return at.second->store == store && !at.second->dead; });
  const size_t share =
      std::max<size_t>(impl_->options_.session_count_max / impl_->tenants_.size(), 1);
  if (static_cast<size_t>(taken) >= share) {
    return Status(StatusCode::kBusy, "all " + std::to_string(share) + " sessions of tenant '" +
                                         request.tenant + "' are in use: end one");
  }
  if (impl_->sessions_.size() >= uint64_t{kDeadSessionsShare} * impl_->options_.session_count_max) {
    return Status(StatusCode::kBusy,
                  "too many processes ended a moment ago: try again in a second");
  }
  const SessionId id = impl_->next_session_++;
  auto session = std::make_unique<Impl::Session>();
  session->request = std::move(request);
  session->store = store;
  impl_->sessions_[id] = std::move(session);
  return id;
}

Result<SessionDescriptors> Shard::Attach(SessionId id) {
  const auto found = impl_->sessions_.find(id);
  if (found == impl_->sessions_.end() || found->second->closed) {
    return Status(StatusCode::kUnavailable, "the session has ended");
  }
  Impl::Session& session = *found->second;
  if (session.rings != nullptr) {
    return Status(StatusCode::kInvalid, "the session is attached already");
  }
  SessionDescriptors out;
  Result<UniqueFd> index = session.store->index().memory().OpenReadOnly();
  if (!index.ok()) return index.status();
  out.index = *std::move(index);
  out.index_bytes = session.store->index().memory().bytes();

  Result<std::unique_ptr<RingSession>> rings =
      RingSession::Create(id, *session.store, session.store->options().boot_epoch);
  if (!rings.ok()) return rings.status();
  session.rings = *std::move(rings);
  out.memory = session.rings->memory().fd().Duplicate();
  out.memory_bytes = session.rings->memory().bytes();
  out.doorbell = session.rings->TakeClientDoorbell();
  UniqueFd doorbell = session.rings->DuplicateDoorbell();
  if (!out.memory.valid() || !doorbell.valid()) {
    impl_->Died(id);  // nobody has seen its memory yet
    return Status(StatusCode::kBusy, "the daemon is out of descriptors: end a session");
  }
  session.doorbell =
      std::make_unique<asio::posix::stream_descriptor>(impl_->io_, doorbell.Release());
  if (session.request.pidfd.valid()) {
    session.pidfd = std::make_unique<asio::posix::stream_descriptor>(
        impl_->io_, session.request.pidfd.Release());
  }
  impl_->WatchDoorbell(id);
  impl_->WatchProcess(id);
  return out;
}

void Shard::CloseSession(SessionId session) {
  if (impl_->sessions_.contains(session)) impl_->Close(session);
}

SessionId Shard::OpenTrustedSession(std::string_view tenant, std::atomic<uint64_t>* pins,
                                    uint32_t pin_count) {
  ChunkStore* store = this->store(tenant);
  TERRACE_CHECK(store != nullptr);
  const SessionId id = impl_->next_session_++;
  store->OpenSession(id, SessionOptions{.trusted = true}, pins, pin_count);
  return id;
}

ChunkStore* Shard::store(std::string_view tenant) {
  const auto found = impl_->tenants_.find(tenant);
  return found == impl_->tenants_.end() ? nullptr : found->second.store.get();
}

std::vector<std::string> Shard::tenants() const {
  std::vector<std::string> names;
  for (const auto& [name, tenant] : impl_->tenants_) names.push_back(name);
  return names;
}

std::vector<SessionSummary> Shard::sessions() const {
  std::vector<SessionSummary> all;
  for (const auto& [id, session] : impl_->sessions_) {
    SessionSummary summary{.session = id,
                           .tenant = session->request.tenant,
                           .client_name = session->request.client_name,
                           .pid = session->request.pid,
                           .closed = session->closed};
    if (session->rings != nullptr) {
      summary.requests = session->rings->requests();
      summary.touches_dropped = session->rings->touches_dropped();
      const SessionUse use = session->store->UseOf(id);
      summary.pins = use.pins;
      summary.claims = use.claims;
      summary.pinned_segments = use.pinned_segments;
      summary.stranded_bytes = use.stranded_bytes;
    }
    all.push_back(std::move(summary));
  }
  return all;
}

Shard::WaitId Shard::WaitSettled(std::string_view tenant, int64_t deadline_ns,
                                 std::function<bool(bool)> look) {
  if (look(false)) return 0;
  const WaitId id = impl_->next_wait_++;
  impl_->settled_waits_.push_back({id, std::string(tenant), deadline_ns, std::move(look)});
  return id;
}

Shard::WaitId Shard::WaitDescriptors(std::string_view tenant, uint64_t epoch, int64_t deadline_ns,
                                     std::function<void()> changed) {
  const WaitId id = impl_->next_wait_++;
  impl_->descriptor_waits_.push_back(
      {id, std::string(tenant), epoch, deadline_ns, std::move(changed)});
  return id;
}

void Shard::CancelWait(WaitId wait) {
  std::erase_if(impl_->settled_waits_, [wait](const auto& at) { return at.id == wait; });
  std::erase_if(impl_->descriptor_waits_, [wait](const auto& at) { return at.id == wait; });
}

}  // namespace terrace
