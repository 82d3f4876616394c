#pragma once

// A device on io_uring: one ring, files and buffers registered where the system lets it, an eventfd
// for the loop that drives it.  No SQPOLL (it burns a core) and no deferred task work (it needs a
// system call to see completions, and the loop sleeps in epoll).
//
// Threads: as BlockDevice.

#include <memory>
#include <string>

#include "storage/io/device_files.h"
#include "storage/io/queued_device.h"

struct io_uring;

namespace terrace {

class UringDevice final : public QueuedDevice {
 public:
  struct Options {
    uint32_t buffer_count = kSegmentCountMax;
    bool fixed_buffers = true;  // false: none is registered
  };

  // Takes `files` only when it succeeds.  kDenied or kIoError where io_uring is forbidden, unknown
  // or too old, kNoSpace where there is no memory for a ring.  `clock` outlives the device.
  static Result<std::unique_ptr<UringDevice>> Create(DeviceFiles& files, const Options& options,
                                                     const Clock& clock);
  ~UringDevice() override;

  DeviceMode mode() const override;
  std::string Describe() const override;
  Status CheckMedium() const override { return files_.Check(); }
  uint64_t AllocatedBytes() const override { return files_.AllocatedBytes(); }

 private:
  struct EndRing {
    void operator()(io_uring* ring) const;
  };
  using Ring = std::unique_ptr<io_uring, EndRing>;

  static Result<Ring> MakeRing();
  UringDevice(DeviceFiles files, Ring ring, UniqueFd event, const Options& options,
              const Clock& clock);
  void RegisterFiles();
  void MakeBufferTable(uint32_t buffer_count);

  void Start(const Operation& operation) override;
  bool Kick() override;
  void StartCancel(uint64_t tag) override;
  void Reap() override;
  bool AdoptBuffer(uint32_t slot, uint8_t* memory, uint64_t bytes) override;
  bool ReleaseBuffer(uint32_t slot) override;
  int FileOf(const Operation& operation) const;

  DeviceFiles files_;
  Ring ring_;
  bool files_registered_ = false;
  bool buffer_table_ = false;
  std::string plain_why_;      // why the mode is not kUringFixed; empty: it is
  std::string read_only_why_;  // why single buffers are plain
};

}  // namespace terrace
