#include "tests/crash/killing_device.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <utility>

namespace terrace {
namespace {

constexpr int kUnnoticedMs = 20;  // for the system to do it; it need not be enough

}  // namespace

KillingDevice::KillingDevice(std::unique_ptr<BlockDevice> inner, const KillPoint& point,
                             uint64_t* counted, std::function<void()> last_words)
    : ForwardingDevice(std::move(inner)),
      point_(point),
      last_words_(std::move(last_words)),
      counted_(counted) {}

void KillingDevice::Die() {
  kill(getpid(), SIGKILL);
  while (true) pause();
}

Status KillingDevice::Submit(IoRequest& request) {
  const bool counts = request.kind() == IoKind::kWrite || request.kind() == IoKind::kSync;
  if (!counts || ++*counted_ != point_.number) return inner().Submit(request);
  last_words_();
  if (point_.moment == KillMoment::kBefore) {
    inner().Flush();
    Die();
  }
  const Status submitted = inner().Submit(request);
  inner().Flush();
  if (point_.moment == KillMoment::kOnItsWay) Die();
  dying_ = true;
  return submitted;
}

uint32_t KillingDevice::Poll() {
  if (!dying_) return inner().Poll();
  pollfd event{.fd = event_fd(), .events = POLLIN, .revents = 0};
  poll(&event, 1, kUnnoticedMs);
  Die();
}

}  // namespace terrace
