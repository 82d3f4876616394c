#pragma once

// What all devices share: the queues and who goes first, budgets, cutting requests into operations,
// checking what came back, buffers' slots, statistics.  A medium behind it starts operations and
// says how each ended.
//
// An operation's tag carries the generation of its slot: a completion that names no operation in
// flight is counted and changes nothing.
//
// Threads: as BlockDevice; every hook is called on the device's thread, and Completed must be too.

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "storage/base/fd.h"
#include "storage/io/block_device.h"

namespace terrace {

class QueuedDevice : public BlockDevice {
 public:
  struct Geometry {
    uint64_t capacity_bytes = 0;  // file_count * whole stripes
    uint64_t stripe_bytes = 0;
    uint32_t file_count = 1;
    bool writable = true;
  };

  ~QueuedDevice() override;

  uint64_t capacity_bytes() const override { return geometry_.capacity_bytes; }
  uint64_t stripe_bytes() const override { return geometry_.stripe_bytes; }
  uint32_t file_count() const override { return geometry_.file_count; }
  bool writable() const override { return geometry_.writable; }
  Status Submit(IoRequest& request) override;
  void Flush() override;
  void Cancel(IoRequest& request) override;
  void Hasten(IoRequest& request, IoClass io_class) override;
  uint32_t Poll() override;
  int event_fd() const override { return event_.get(); }
  bool DrainUntil(int64_t until_ns) override;
  Result<BufferId> RegisterBuffer(uint8_t* memory, uint64_t bytes) override;
  void UnregisterBuffer(BufferId buffer) override;
  const IoBudgets& budgets() const override { return budgets_; }
  void SetBudgets(const IoBudgets& budgets) override;
  IoStats stats() const override;

 protected:
  static constexpr uint32_t kNoSlot = UINT32_MAX;

  // A piece of a request: at most kIoPieceBytesMax, inside one file.
  struct Operation {
    uint64_t tag = 0;  // below 2^48
    IoKind kind = IoKind::kRead;
    uint32_t file = 0;
    uint32_t buffer_slot = kNoSlot;  // kNoSlot as well where the system refused the buffer
    uint64_t offset = 0;             // in the file
    uint64_t bytes = 0;              // 0 for a sync
    uint8_t* memory = nullptr;
  };

  // `clock` outlives the device.  REQUIRES: 1 <= buffer_count <= kIoBufferCountMax.
  QueuedDevice(const Geometry& geometry, UniqueFd event, uint32_t buffer_count, const Clock& clock);

  // The medium's half.
  // Begins an operation, at the latest with the next Kick.  At most kIoOperationsMax are in flight.
  virtual void Start(const Operation& operation) = 0;
  // Hands what was started to the system; false where some of it must be handed over again.
  virtual bool Kick() = 0;
  // Asks for an early end; Completed follows all the same.  At most once an operation.
  virtual void StartCancel(uint64_t tag) = 0;
  // Calls Completed for what has ended.
  virtual void Reap() = 0;
  // Blocks until Reap has something to do, or a moment has passed.
  virtual void AwaitEvent();
  // False when the system refuses the memory.
  virtual bool AdoptBuffer(uint32_t slot, uint8_t* memory, uint64_t bytes) = 0;
  // True when the system has let go of it, false when BufferReleased will say so later.
  virtual bool ReleaseBuffer(uint32_t slot) = 0;

  // `result` as the system says it: bytes moved, or -errno.
  void Completed(uint64_t tag, int64_t result);
  void BufferReleased(uint32_t slot);
  // Makes event_fd() readable.
  void Wake();
  void ClearEvent();
  const Clock& clock() const { return clock_; }
  // Forgets everything outstanding without a word, as a power loss does (simulated media only).
  void Abandon();

 private:
  struct InFlight {
    IoRequest* request = nullptr;  // null: free
    uint32_t generation = 0;
    uint32_t retries = 0;
    bool cancel_started = false;
    Operation operation;
  };
  struct Buffer {
    enum class State : uint8_t { kFree, kLive, kDraining, kReleasing };
    State state = State::kFree;
    bool adopted = false;  // the system knows it
    uint16_t generation = 0;
    uint32_t requests = 0;  // outstanding ones that name it
    uint8_t* memory = nullptr;
    uint64_t bytes = 0;
  };

  Status CheckRange(const IoRequest& request) const;
  Status CheckBuffer(const IoRequest& request) const;
  const Buffer* FindBuffer(BufferId id) const;
  IoList& QueueOf(const IoRequest& request);

  // Starts what the budgets allow.
  void Pump();
  bool IssueOther();
  bool IssueRead();
  bool IssueWrite();
  void Issue(IoList& queue, uint64_t piece_bytes_max);
  uint64_t PieceBytes(const IoRequest& request, uint64_t piece_bytes_max) const;
  Operation NextOperation(const IoRequest& request, uint64_t piece_bytes_max) const;
  bool ReadsContend() const;

  InFlight* FindInFlight(uint64_t tag);
  void Restart(InFlight& slot);
  void EndOperation(InFlight& slot, Status status);
  void EndIfComplete(IoRequest& request);
  void Count(const IoRequest& request);
  void LogFailure(IoKind kind, const std::string& error);
  void LetGoOfBuffer(BufferId id);
  uint32_t CallFinished();
  Status TransferStatus(const InFlight& slot, int64_t result) const;

  // Constant after construction.
  const Geometry geometry_;
  const Clock& clock_;
  const UniqueFd event_;

  IoBudgets budgets_;
  IoList reads_[kIoClassCount];
  IoList writes_[kIoClassCount];
  IoList others_;    // syncs and discards
  IoList finished_;  // wait for Poll
  std::vector<InFlight> in_flight_;
  std::vector<uint32_t> free_operations_;
  uint64_t reading_bytes_ = 0;
  uint64_t background_reading_bytes_ = 0;
  uint64_t writing_bytes_ = 0;
  uint32_t writing_count_ = 0;
  uint32_t others_count_ = 0;
  uint32_t deadline_reading_count_ = 0;
  uint32_t awaited_reading_count_ = 0;  // all classes but kWriteBehind
  int64_t read_ended_ns_;
  uint32_t outstanding_ = 0;
  bool polling_ = false;
  bool started_ = false;  // since the last Kick
  std::vector<Buffer> buffers_;
  uint32_t live_buffers_ = 0, plain_buffers_ = 0;
  IoStats stats_;
  std::array<int64_t, kIoKindCount> log_failure_ns_{};  // the next line of a kind: not before
};

// What errno means to the caller of a device; `what` names the operation.
Status IoErrnoStatus(const std::string& what, int error);

}  // namespace terrace
