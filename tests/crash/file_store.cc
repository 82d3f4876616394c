#include "tests/crash/file_store.h"

#include <poll.h>

#include <algorithm>

#include "storage/tier/log_layout.h"

namespace terrace {
namespace {

constexpr SessionId kSession = 7;
constexpr int64_t kPatienceNs = 60 * kNsPerSecond;

}  // namespace

FileStore::~FileStore() {
  store.reset();
  session_.reset();
}

Status FileStore::Start() {
  OpenOptions open;
  open.files.paths = {options_.path};
  open.files.capacity_bytes = SegmentOffset(kCrashLogSegments, kTestSegmentBytes);
  open.files.stripe_bytes = kTestSegmentBytes;
  open.best = options_.mode;
  open.buffer_count = 16;
  open.thread_count = 2;
  // A write goes out in pieces, so that a death may tear it.
  open.budgets.write_piece_bytes = open.budgets.contended_write_piece_bytes = 16 * kKiB;
  open.budgets.write_depth = open.budgets.contended_write_depth = 2;
  Result<OpenedDevice> opened = OpenDevice(open, clock_);
  const int64_t end_ns = clock_.NowNs() + kPatienceNs;
  while (opened.status().code() == StatusCode::kBusy && clock_.NowNs() < end_ns) {
    poll(nullptr, 0, 1);
    opened = OpenDevice(open, clock_);
  }
  if (!opened.ok()) return opened.status();
  device_ = std::move(opened->device);
  if (options_.wrap) device_ = options_.wrap(std::move(device_));

  if (Status guarded = InstallGuard(); !guarded.ok()) return guarded;
  ChunkStoreOptions options = SmallStore(options_.dram_segments);
  options.boot_epoch = options_.life;
  options.nvme.device = device_.get();
  options.nvme.segment_bytes = kTestSegmentBytes;
  options.nvme.sequence_floor = static_cast<uint64_t>(clock_.NowNs());
  options.nvme.codec_pool = &codec_;
  options.nvme.encode = options_.encode;
  options.nvme.write.buffer_bytes = 256 * kKiB;
  options.nvme.write.buffer_count = 6;
  options.nvme.write.sync_bytes = 512 * kKiB;
  options.nvme.write.direct_bytes_min = 32 * kKiB;
  options.nvme.write.linger_ns = kNsPerMs / 5;
  Result<std::unique_ptr<ChunkStore>> made = ChunkStore::Create(options);
  if (!made.ok()) return made.status();
  store = *std::move(made);
  if (!RunUntil([this] { return store->NvmeStarted(); })) return Status(StatusCode::kDeadline);
  if (!store->nvme_why_off().ok()) return store->nvme_why_off();
  NamespaceSpec spec;
  spec.label = kCrashLabel;
  spec.dtype = "bf16";
  const Result<NamespaceInfo> info = store->RegisterNamespace(spec);
  if (!info.ok()) return info.status();
  ns = info->ref.id;
  epoch = info->epoch;
  session_ = std::make_unique<TestSession>(*store, kSession);
  return Status::Ok();
}

void FileStore::Step() {
  bool ended = store->PollNvme(clock_.NowNs());
  ended |= codec_.RunOne();
  store->Tick(clock_.NowNs());
  if (after_poll) after_poll();
  if (ended) return;
  const int64_t wake_ns = store->NvmeWake();
  int64_t wait_ns = 5 * kNsPerMs;
  if (wake_ns != 0) wait_ns = std::clamp<int64_t>(wake_ns - clock_.NowNs(), 0, wait_ns);
  pollfd event{.fd = device_->event_fd(), .events = POLLIN, .revents = 0};
  const timespec wait{.tv_sec = 0, .tv_nsec = wait_ns};
  ppoll(&event, 1, &wait, nullptr);
}

bool FileStore::RunUntil(const std::function<bool()>& done) {
  const int64_t end_ns = clock_.NowNs() + kPatienceNs;
  while (!done()) {
    if (clock_.NowNs() > end_ns) return false;
    Step();
  }
  return true;
}

bool FileStore::Drain() {
  return RunUntil([this] { return store->DrainNvme(clock_.NowNs()); });
}

uint32_t FileStore::BytesOf(uint64_t version) {
  return static_cast<uint32_t>(64 + version * 0x9e3779b97f4a7c15 % 300'000);
}

StatusCode FileStore::Put(uint64_t key, uint64_t version) {
  const PutWant want{.key = KeyOf(key), .payload_bytes = BytesOf(version)};
  PutGrant grant;
  store->BeginPut(kSession, ns, {&want, 1}, 0, clock_.NowNs(), {&grant, 1});
  if (grant.status != StatusCode::kOk) return grant.status;
  WriteRecord(session_->At(grant.location),
              {.key = want.key, .namespace_id = ns, .payload_bytes = want.payload_bytes}, version);
  StatusCode result = StatusCode::kInvalid;
  store->Commit(kSession, {&grant.claim, 1}, clock_.NowNs(), {&result, 1});
  return result;
}

StatusCode FileStore::Get(uint64_t key, uint64_t* version) {
  Sought sought;
  const bool ended = RunUntil([&] {
    sought = store->FindOrLoad(kSession, ns, KeyOf(key), session_->pin(0), {}, clock_.NowNs());
    return !sought.loading;
  });
  if (!ended) return StatusCode::kDeadline;
  if (sought.status != StatusCode::kOk) return sought.status;
  const std::byte* const record = session_->At(sought.chunk.location);
  if (record == nullptr) return StatusCode::kUnavailable;
  const std::byte* const payload = record + shm::kRecordHeaderBytes;
  // PayloadWord backwards: 8 bytes are enough to name it, then all of them are compared.
  uint64_t word = 0;
  const uint32_t bytes = sought.chunk.payload_bytes;
  std::memcpy(&word, payload, std::min<size_t>(sizeof word, bytes));
  *version = 0;
  constexpr uint64_t kInverse = 0xf1de83e19937733d;  // of 0x9e3779b97f4a7c15
  static_assert(kInverse * 0x9e3779b97f4a7c15 == 1);
  const uint64_t said = word * kInverse - 1;
  if (bytes == BytesOf(said) && PayloadIs(payload, bytes, said)) *version = said;
  session_->pin(0)->store(0);
  return StatusCode::kOk;
}

StatusCode FileStore::Persist(uint64_t key) {
  StatusCode answer = StatusCode::kBusy;
  RunUntil([&] {
    answer = store->Persist(ns, KeyOf(key), clock_.NowNs());
    return answer != StatusCode::kBusy;
  });
  return answer;
}

bool FileStore::Durable(uint64_t key) const {
  const Result<ChunkInfo> info = store->Describe(ns, KeyOf(key), clock_.NowNs());
  return info.ok() && info->durable;
}

}  // namespace terrace
