#pragma once

// A device that kills its process at the Nth write or sync that is handed to the system.
//
// Threads: as BlockDevice.

#include <cstdint>
#include <functional>
#include <memory>

#include "tests/crash/forwarding_device.h"

namespace terrace {

enum class KillMoment : uint8_t {
  kBefore,     // those before it are on their way
  kOnItsWay,   // it is too, or some of its pieces are
  kUnnoticed,  // the system has done it, or some of its pieces, and nobody was told
};

struct KillPoint {
  uint64_t number = UINT64_MAX;  // from 1, over all devices of the process
  KillMoment moment = KillMoment::kBefore;
};

class KillingDevice final : public ForwardingDevice {
 public:
  // `*counted` goes on from one device of the process to the next; `last_words` is called before
  // the end.
  KillingDevice(std::unique_ptr<BlockDevice> inner, const KillPoint& point, uint64_t* counted,
                std::function<void()> last_words);

  Status Submit(IoRequest& request) override;
  uint32_t Poll() override;

 private:
  [[noreturn]] void Die();

  // Constant after construction.
  const KillPoint point_;
  const std::function<void()> last_words_;

  // Owned by the device's thread.
  uint64_t* const counted_;
  bool dying_ = false;
};

}  // namespace terrace
