#pragma once

// One wish to a medium: where, which memory, how urgent, and whom to tell.  The caller owns it (it
// lies in a coroutine's frame or a slot), the device only links it, so that I/O allocates nothing.
//
//   idle --Submit--> queued --> in flight --Poll--> idle again, just before `done` is called
//                      \--Cancel------------^
//
// Threads: belongs to the device's thread.

#include <cstdint>

#include "storage/base/check.h"
#include "storage/base/status.h"

namespace terrace {

enum class IoKind : uint8_t {
  kRead,
  kWrite,
  kSync,     // what was written is on stable storage
  kDiscard,  // a hint: these bytes are garbage now
};
inline constexpr uint32_t kIoKindCount = 4;

// Who goes first.  Reads of any class go before writes of any class.
enum class IoClass : uint8_t {
  kDeadline,     // someone waits
  kPrefetch,     // someone may wait soon
  kWriteBehind,  // nobody waits: demotion, carry-over, the scrubber
};
inline constexpr uint32_t kIoClassCount = 3;

// Names memory that BlockDevice::RegisterBuffer knows.
using BufferId = uint32_t;
inline constexpr BufferId kNoBuffer = UINT32_MAX;

class IoRequest {
 public:
  // Runs inside BlockDevice::Poll.  The request is idle: it may be submitted again or destroyed.
  using Done = void (*)(IoRequest& request);

  IoRequest() = default;
  IoRequest(const IoRequest&) = delete;
  IoRequest& operator=(const IoRequest&) = delete;
  ~IoRequest() { TERRACE_CHECK(!outstanding()); }

  // Say what is wanted.  Offsets, lengths and addresses are multiples of kPageBytes.  The memory is
  // the device's from Submit until `done` (also after Cancel): nobody may read it (kRead) or write
  // it (both) meanwhile.
  // REQUIRES, of all below: idle.
  void PrepareRead(uint64_t offset, uint8_t* into, uint64_t bytes, BufferId buffer = kNoBuffer) {
    Prepare(IoKind::kRead, offset, into, bytes, buffer);
  }
  void PrepareWrite(uint64_t offset, const uint8_t* from, uint64_t bytes,
                    BufferId buffer = kNoBuffer) {
    Prepare(IoKind::kWrite, offset, const_cast<uint8_t*>(from), bytes, buffer);
  }
  // The files that hold [offset, offset + bytes), or every file when bytes = 0.
  void PrepareSync(uint64_t offset = 0, uint64_t bytes = 0) {
    Prepare(IoKind::kSync, offset, nullptr, bytes, kNoBuffer);
  }
  void PrepareDiscard(uint64_t offset, uint64_t bytes) {
    Prepare(IoKind::kDiscard, offset, nullptr, bytes, kNoBuffer);
  }
  void OnDone(Done done, IoClass io_class) {
    TERRACE_CHECK(!outstanding());
    done_ = done;
    io_class_ = io_class;
  }

  bool outstanding() const { return phase_ != Phase::kIdle; }
  IoKind kind() const { return kind_; }
  IoClass io_class() const { return io_class_; }
  uint64_t offset() const { return offset_; }
  uint64_t bytes() const { return bytes_; }
  uint8_t* memory() const { return memory_; }
  BufferId buffer() const { return buffer_; }

  // How the last trip ended.  REQUIRES: idle.
  const Status& status() const { return status_; }

 private:
  friend class IoList;
  friend class QueuedDevice;

  enum class Phase : uint8_t {
    kIdle,
    kQueued,    // in its class' list: some of it is not on its way yet
    kIssued,    // all of it is on its way, or what is not never will be
    kFinished,  // waits for Poll
  };

  void Prepare(IoKind kind, uint64_t offset, uint8_t* memory, uint64_t bytes, BufferId buffer) {
    TERRACE_CHECK(!outstanding());
    kind_ = kind;
    offset_ = offset;
    memory_ = memory;
    bytes_ = bytes;
    buffer_ = buffer;
  }

  // The caller's.
  IoKind kind_ = IoKind::kRead;
  IoClass io_class_ = IoClass::kDeadline;
  BufferId buffer_ = kNoBuffer;
  uint64_t offset_ = 0;
  uint64_t bytes_ = 0;
  uint8_t* memory_ = nullptr;
  Done done_ = nullptr;
  Status status_;

  // The device's while the request is outstanding.
  Phase phase_ = Phase::kIdle;
  bool cancelled_ = false;
  uint32_t operations_ = 0;  // parts in flight
  uint64_t position_ = 0;    // how far it is issued: bytes, for a sync files
  uint64_t end_ = 0;         // where position_ ends
  int64_t submitted_ns_ = 0;
  IoRequest* next_ = nullptr;
  IoRequest* previous_ = nullptr;
};

// A list of requests, linked through themselves.
class IoList {
 public:
  bool empty() const { return first_ == nullptr; }
  uint32_t count() const { return count_; }
  IoRequest* front() const { return first_; }

  void PushBack(IoRequest& request) {
    request.previous_ = last_;
    request.next_ = nullptr;
    (last_ != nullptr ? last_->next_ : first_) = &request;
    last_ = &request;
    ++count_;
  }
  // REQUIRES: in this list.
  void Remove(IoRequest& request) {
    (request.previous_ != nullptr ? request.previous_->next_ : first_) = request.next_;
    (request.next_ != nullptr ? request.next_->previous_ : last_) = request.previous_;
    request.next_ = request.previous_ = nullptr;
    --count_;
  }

 private:
  IoRequest* first_ = nullptr;
  IoRequest* last_ = nullptr;
  uint32_t count_ = 0;
};

}  // namespace terrace
