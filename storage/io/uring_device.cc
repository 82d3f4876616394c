#include "storage/io/uring_device.h"

#include <liburing.h>
#include <sys/eventfd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace terrace {
namespace {

// Twice the operations: a cancel each has room beside them.
constexpr unsigned kEntries = 2 * kIoOperationsMax;
// A burst of released buffers too; what does not fit waits in the kernel.
constexpr unsigned kCompletions = 4 * kIoOperationsMax;
constexpr uint32_t kKickTries = 4;
constexpr unsigned kReapBatch = 64;

// Beside the tags of operations, which are below 2^48.
constexpr uint64_t kCancelTag = 1ull << 62;
constexpr uint64_t kReleaseTag = 1ull << 63;

constexpr int kOpcodes[] = {IORING_OP_READ,        IORING_OP_WRITE, IORING_OP_READ_FIXED,
                            IORING_OP_WRITE_FIXED, IORING_OP_FSYNC, IORING_OP_FALLOCATE,
                            IORING_OP_ASYNC_CANCEL};

}  // namespace

void UringDevice::EndRing::operator()(io_uring* ring) const {
  io_uring_queue_exit(ring);
  delete ring;
}

Result<UringDevice::Ring> UringDevice::MakeRing() {
  auto memory = std::make_unique<io_uring>();
  io_uring_params params{};
  // Cooperative: completions do not interrupt the thread, which makes system calls all the time.
  params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_COOP_TASKRUN;
  params.cq_entries = kCompletions;
  int made = io_uring_queue_init_params(kEntries, memory.get(), &params);
  if (made == -EINVAL) {  // before Linux 5.19
    params = {};
    params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params.cq_entries = kCompletions;
    made = io_uring_queue_init_params(kEntries, memory.get(), &params);
  }
  if (made == -ENOMEM) {
    return Status(StatusCode::kNoSpace,
                  "io_uring_setup: no memory for a ring; raise the limit of locked memory "
                  "(LimitMEMLOCK=infinity)");
  }
  if (made < 0) return ErrnoStatus("io_uring_setup", -made);
  Ring ring(memory.release());

  const std::unique_ptr<io_uring_probe, void (*)(io_uring_probe*)> probe(
      io_uring_get_probe_ring(ring.get()), io_uring_free_probe);
  for (const int opcode : kOpcodes) {
    if (probe != nullptr && io_uring_opcode_supported(probe.get(), opcode)) continue;
    return Status(StatusCode::kIoError, "this kernel's io_uring is too old");
  }
  // A forked child must not write into the parent's ring.
  if (const int apart = io_uring_ring_dontfork(ring.get()); apart < 0) {
    return ErrnoStatus("keeping the ring out of children", -apart);
  }
  return ring;
}

Result<std::unique_ptr<UringDevice>> UringDevice::Create(DeviceFiles& files, const Options& options,
                                                         const Clock& clock) {
  Result<Ring> ring = MakeRing();
  if (!ring.ok()) return ring.status();
  UniqueFd event(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!event.valid()) return ErrnoStatus("eventfd", errno);
  const int registered = io_uring_register_eventfd((*ring).get(), event.get());
  if (registered < 0) return ErrnoStatus("registering an eventfd with io_uring", -registered);
  return std::unique_ptr<UringDevice>(
      new UringDevice(std::move(files), *std::move(ring), std::move(event), options, clock));
}

UringDevice::UringDevice(DeviceFiles files, Ring ring, UniqueFd event, const Options& options,
                         const Clock& clock)
    : QueuedDevice({.capacity_bytes = files.capacity_bytes(),
                    .stripe_bytes = files.stripe_bytes(),
                    .file_count = static_cast<uint32_t>(files.files().size()),
                    .writable = files.writable()},
                   std::move(event), options.buffer_count, clock),
      files_(std::move(files)),
      ring_(std::move(ring)) {
  RegisterFiles();
  if (options.fixed_buffers) {
    MakeBufferTable(options.buffer_count);
  } else {
    plain_why_ = "as configured";
  }
}

UringDevice::~UringDevice() { files_.Unlock(); }

// Costs a look-up a request where it fails, no more.
void UringDevice::RegisterFiles() {
  std::vector<int> fds;
  for (const DeviceFile& file : files_.files()) fds.push_back(file.fd.get());
  files_registered_ =
      io_uring_register_files(ring_.get(), fds.data(), static_cast<unsigned>(fds.size())) == 0;
}

void UringDevice::MakeBufferTable(uint32_t buffer_count) {
  const int made = io_uring_register_buffers_sparse(ring_.get(), buffer_count);
  buffer_table_ = made == 0;
  if (!buffer_table_) plain_why_ = std::string("no table of buffers: ") + std::strerror(-made);
}

DeviceMode UringDevice::mode() const {
  return plain_why_.empty() ? DeviceMode::kUringFixed : DeviceMode::kUringPlain;
}

std::string UringDevice::Describe() const {
  std::string text = DeviceModeName(mode());
  if (!plain_why_.empty()) text += ": " + plain_why_;
  if (!read_only_why_.empty()) text += "; " + read_only_why_;
  return text;
}

int UringDevice::FileOf(const Operation& operation) const {
  if (files_registered_) return static_cast<int>(operation.file);
  return files_.files()[operation.file].fd.get();
}

void UringDevice::Start(const Operation& operation) {
  io_uring_sqe* const entry = io_uring_get_sqe(ring_.get());
  TERRACE_CHECK(entry != nullptr);  // an operation has one entry at most, and cancels leave room
  const int file = FileOf(operation);
  const auto bytes = static_cast<unsigned>(operation.bytes);
  const auto slot = static_cast<int>(operation.buffer_slot);
  const bool fixed = operation.buffer_slot != kNoSlot;
  switch (operation.kind) {
    case IoKind::kRead:
      if (fixed) {
        io_uring_prep_read_fixed(entry, file, operation.memory, bytes, operation.offset, slot);
      } else {
        io_uring_prep_read(entry, file, operation.memory, bytes, operation.offset);
      }
      break;
    case IoKind::kWrite:
      if (fixed) {
        io_uring_prep_write_fixed(entry, file, operation.memory, bytes, operation.offset, slot);
      } else {
        io_uring_prep_write(entry, file, operation.memory, bytes, operation.offset);
      }
      break;
    case IoKind::kSync: io_uring_prep_fsync(entry, file, IORING_FSYNC_DATASYNC); break;
    case IoKind::kDiscard:
      if (files_.files()[operation.file].raw) {
        io_uring_prep_fallocate(entry, file, kDiscardMode, static_cast<off_t>(operation.offset),
                                static_cast<off_t>(operation.bytes));
      } else {
        io_uring_prep_nop(entry);
      }
      break;
  }
  if (files_registered_ && entry->opcode != IORING_OP_NOP) entry->flags |= IOSQE_FIXED_FILE;
  entry->user_data = operation.tag;
}

bool UringDevice::Kick() {
  for (uint32_t i = 0; i < kKickTries; ++i) {
    const int submitted = io_uring_submit(ring_.get());
    if (submitted >= 0 && io_uring_sq_ready(ring_.get()) == 0) return true;
    if (submitted == -EBUSY) return false;  // completions must be taken first
  }
  return false;
}

void UringDevice::StartCancel(uint64_t tag) {
  // A cancel is a favour; the room belongs to operations.
  if (io_uring_sq_space_left(ring_.get()) <= kIoOperationsMax) return;
  io_uring_sqe* const entry = io_uring_get_sqe(ring_.get());
  io_uring_prep_cancel64(entry, tag, 0);
  entry->user_data = kCancelTag;
}

void UringDevice::Reap() {
  std::array<io_uring_cqe*, kReapBatch> entries;
  while (true) {
    const unsigned count = io_uring_peek_batch_cqe(ring_.get(), entries.data(), kReapBatch);
    for (unsigned i = 0; i < count; ++i) {
      const uint64_t tag = entries[i]->user_data;
      if (tag == kCancelTag) continue;
      if ((tag & kReleaseTag) != 0) {
        BufferReleased(static_cast<uint32_t>(tag & ~kReleaseTag));
      } else {
        Completed(tag, entries[i]->res);
      }
    }
    io_uring_cq_advance(ring_.get(), count);
    if (count < kReapBatch) return;
  }
}

bool UringDevice::AdoptBuffer(uint32_t slot, uint8_t* memory, uint64_t bytes) {
  if (!buffer_table_) return false;
  const iovec range{.iov_base = memory, .iov_len = bytes};
  const __u64 tag = kReleaseTag | slot;
  const int adopted = io_uring_register_buffers_update_tag(ring_.get(), slot, &range, &tag, 1);
  if (adopted == 1) return true;
  const std::string why =
      "registering " + std::to_string(bytes) + " bytes: " + std::strerror(-adopted);
  if (adopted == -EFAULT) {
    // Memory that this process may only read: the kernel takes no buffer it could not write.
    read_only_why_ = "some buffers plain: " + why;
  } else {
    plain_why_ = why + "; raise the limit of locked memory (LimitMEMLOCK=infinity)";
  }
  return false;
}

bool UringDevice::ReleaseBuffer(uint32_t slot) {
  const iovec none{.iov_base = nullptr, .iov_len = 0};
  const __u64 tag = 0;
  // With the last page let go of, the tag given at registration comes back as a completion.
  return io_uring_register_buffers_update_tag(ring_.get(), slot, &none, &tag, 1) != 1;
}

}  // namespace terrace
