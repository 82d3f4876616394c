#include "tests/storage/tier/log_machine.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <random>

#include "storage/record/copy_hash.h"

namespace terrace {
namespace {

Status OrStopped(const std::optional<Status>& done) {
  return done.value_or(Status(StatusCode::kUnavailable, "the machine has stopped"));
}

}  // namespace

TestChunk ChunkOf(uint32_t number, uint32_t payload_bytes, uint32_t namespace_id) {
  TestChunk chunk;
  chunk.identity.key = shm::ChunkKey::FromBytes(&number, sizeof(number), 3);
  chunk.identity.namespace_id = namespace_id;
  chunk.identity.payload_bytes = payload_bytes;
  std::mt19937_64 random(number);
  chunk.payload.resize((payload_bytes + 7) / 8 * 8);
  for (size_t at = 0; at < chunk.payload.size(); at += 8) {
    const uint64_t word = random();
    std::memcpy(chunk.payload.data() + at, &word, sizeof(word));
  }
  chunk.payload.resize(payload_bytes);
  std::vector<uint64_t> leaves(shm::LeafCount(payload_bytes));
  HashLeaves(chunk.payload.data(), payload_bytes, leaves.data());
  BuildHeader(chunk.identity, leaves.data(), &chunk.header);
  return chunk;
}

uint32_t NumberOf(const shm::ChunkKey& key) {
  uint32_t number = 0;
  std::memcpy(&number, key.bytes(), sizeof(number));
  return number;
}

SegmentLogOptions TestOptions() {
  SegmentLogOptions options;
  options.set_id = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  options.tenant = "test";
  options.new_log_id = 1000;
  options.segment_bytes = kTestSegmentBytes;
  options.write.buffer_bytes = 64 * kKiB;
  options.write.buffer_count = 6;
  options.write.sync_bytes = 256 * kKiB;
  return options;
}

uint64_t TestDiskBytes(uint32_t segments) { return SegmentOffset(segments, kTestSegmentBytes); }

LogMachine::LogMachine(SimMedium& medium, SimClock& clock, const SegmentLogOptions& options,
                       const SimFaults& faults)
    : clock_(clock),
      device_(std::make_unique<SimDevice>(medium, clock, SimDevice::Options{.faults = faults})),
      memory_(SegmentLog::MemoryBytes(options)),
      into_(kTestSegmentBytes) {
  Result<std::unique_ptr<SegmentLog>> log = SegmentLog::Create(*device_, options, memory_.span());
  TERRACE_CHECK(log.ok());
  log_ = *std::move(log);
}

LogMachine::~LogMachine() {
  if (!dead_) {
    RunUntilIdle();
    device_->Drain();
  }
  log_.reset();
}

bool LogMachine::Step() {
  if (stopped()) return false;
  ++steps_;
  log_->Poll(now());
  const int64_t wake = log_->next_wake_ns();
  if (wake <= now()) return true;
  if (const std::optional<int64_t> event = device_->next_event_ns()) {
    clock_.AdvanceTo(std::max(now(), std::min(*event, wake)));
    device_->Poll();
    return true;
  }
  if (device_->Poll() > 0) return true;  // cancelled before it began
  if (wake == INT64_MAX) return false;
  clock_.AdvanceTo(wake);
  return true;
}

void LogMachine::RunUntil(const std::function<bool()>& done) {
  while (!done() && Step()) {
  }
}

void LogMachine::RunUntilIdle() {
  RunUntil([this] { return log_->idle() && !device_->next_event_ns().has_value(); });
}

void LogMachine::LosePower() {
  device_->LosePower();
  dead_ = true;
}

Status LogMachine::Open() {
  std::optional<Status> opened;
  log_->Open([&](const Status& status) { opened = status; });
  RunUntil([&] { return opened.has_value(); });
  return OrStopped(opened);
}

Status LogMachine::Start() {
  if (Status opened = Open(); !opened.ok()) return opened;
  std::optional<Status> done;
  log_->Recover(
      [this](const RecoveredRecord& record) {
        recovered.push_back(record);
        places[NumberOf(record.identity.key)] = record.place;
      },
      [&](const Status& status) { done = status; });
  RunUntil([&] { return done.has_value(); });
  return OrStopped(done);
}

Status LogMachine::ReplaceNamespaces(std::vector<std::string> blobs) {
  std::optional<Status> done;
  Status begun =
      log_->ReplaceNamespaces(std::move(blobs), [&](const Status& status) { done = status; });
  if (!begun.ok()) return begun;
  RunUntil([&] { return done.has_value(); });
  return OrStopped(done);
}

Status LogMachine::Append(const TestChunk& chunk, uint32_t reuse_class, LogAppendDone done,
                          bool urgent) {
  const uint32_t number = NumberOf(chunk.identity.key);
  const LogAppend append{.header = &chunk.header,
                         .stored = chunk.payload,
                         .reuse_class = reuse_class,
                         .urgent = urgent};
  return log_->Append(
      append,
      [this, number, done = std::move(done)](const LogPlace& place, const Status& status) {
        if (status.ok()) places[number] = place;
        if (done) done(place, status);
      },
      now());
}

Status LogMachine::Put(const TestChunk& chunk, uint32_t reuse_class) {
  std::optional<Status> done;
  Status begun =
      Append(chunk, reuse_class, [&](const LogPlace&, const Status& status) { done = status; });
  if (!begun.ok()) return begun;
  RunUntil([&] { return done.has_value(); });
  return OrStopped(done);
}

Status LogMachine::Get(const TestChunk& chunk, const LogPlace& place) {
  const uint64_t bytes = shm::RecordBytes(chunk.payload.size());
  std::optional<Status> done;
  const LogRead read{.place = place, .bytes = bytes, .into = into_.data()};
  Status begun = log_->Read(
      read, [&](const Status& status) { done = status; }, now());
  if (!begun.ok()) return begun;
  RunUntil([&] { return done.has_value(); });
  if (Status ended = OrStopped(done); !ended.ok()) return ended;
  Status valid = VerifyRecord({into_.data(), bytes}, chunk.identity, place);
  if (!valid.ok()) return valid;
  // What the checks let through must be the bytes that were put.
  TERRACE_CHECK(std::memcmp(into_.data() + sizeof(shm::RecordHeader), chunk.payload.data(),
                            chunk.payload.size()) == 0);
  return Status::Ok();
}

}  // namespace terrace
