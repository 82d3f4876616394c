#pragma once

// One life of a ChunkStore on a real file, driven as a shard would: by the device's event fd and by
// time.  Payloads follow from a version, whose bytes name it.
//
// Threads: one owner.

#include <functional>
#include <memory>
#include <string>

#include "storage/base/clock.h"
#include "storage/io/open_device.h"
#include "tests/storage/engine/store_harness.h"
#include "tests/support/step_codec_pool.h"

namespace terrace {

inline constexpr uint32_t kCrashLogSegments = 6;
inline constexpr char kCrashLabel[] = "space";

class FileStore {
 public:
  struct Options {
    std::string path;
    DeviceMode mode = DeviceMode::kThreads;
    uint64_t life = 1;
    uint32_t dram_segments = 4;
    bool encode = false;  // what goes to the file
    // Around the file's device.
    std::function<std::unique_ptr<BlockDevice>(std::unique_ptr<BlockDevice>)> wrap = {};
  };

  explicit FileStore(const Options& options) : options_(options) {}
  ~FileStore();

  // Opens the file and waits for the tier.  kBusy is waited for: a killed process' ring lets go of
  // the file a little later.
  Status Start();

  // Serves the store, then waits for what comes next, 5 ms at most.
  void Step();
  // False when it took a minute.
  bool RunUntil(const std::function<bool()>& done);
  bool Drain();

  static uint32_t BytesOf(uint64_t version);
  StatusCode Put(uint64_t key, uint64_t version);
  // Waits.  With kOk *version is what the bytes say, 0 when they are nobody's.
  StatusCode Get(uint64_t key, uint64_t* version);
  StatusCode Persist(uint64_t key);
  bool Durable(uint64_t key) const;

  // Called after each Poll.
  std::function<void()> after_poll;
  std::unique_ptr<ChunkStore> store;
  uint32_t ns = 0;
  uint64_t epoch = 0;

 private:
  const Options options_;
  SystemClock clock_;
  StepCodecPool codec_;
  std::unique_ptr<BlockDevice> device_;
  std::unique_ptr<TestSession> session_;
};

}  // namespace terrace
