#include "tests/storage/io/sim_medium.h"

#include <algorithm>
#include <cstring>

#include "storage/base/check.h"

namespace terrace {

SimFaults SimFaults::Swarm(uint64_t seed) {
  std::mt19937_64 random(seed ^ 0x5157A12Dull);
  const auto weight = [&random](uint32_t most) {
    const bool present = random() % 2 == 0;
    return present ? static_cast<uint32_t>(1 + random() % most) : 0;
  };
  SimFaults faults;
  faults.short_transfer = weight(200);
  faults.read_error = weight(50);
  faults.write_error = weight(50);
  faults.sync_error = weight(50);
  faults.full = weight(50);
  faults.again = weight(100);
  faults.stale = weight(100);
  faults.slow = weight(50);
  faults.rot = weight(30);
  faults.misdirected_write = weight(30);
  faults.dropped_write = weight(30);
  faults.lost = weight(1000);
  faults.torn = weight(500);
  return faults;
}

void SimMedium::Read(uint64_t offset, uint8_t* into, uint64_t bytes) const {
  TERRACE_CHECK(offset + bytes <= bytes_);
  while (bytes > 0) {
    const uint64_t in_page = offset % kPageBytes;
    const uint64_t part = std::min(bytes, kPageBytes - in_page);
    const auto page = seen_.find(offset / kPageBytes);
    if (page == seen_.end()) {
      std::memset(into, 0, part);
    } else {
      std::memcpy(into, page->second.data() + in_page, part);
    }
    offset += part;
    into += part;
    bytes -= part;
  }
}

void SimMedium::Apply(Pages& pages, uint64_t offset, const uint8_t* from, uint64_t bytes) {
  while (bytes > 0) {
    const uint64_t in_page = offset % kPageBytes;
    const uint64_t part = std::min(bytes, kPageBytes - in_page);
    // A page that was never written begins as zeroes.
    std::memcpy(pages[offset / kPageBytes].data() + in_page, from, part);
    offset += part;
    from += part;
    bytes -= part;
  }
}

void SimMedium::Write(uint64_t offset, const uint8_t* from, uint64_t bytes) {
  TERRACE_CHECK(offset + bytes <= bytes_);
  Apply(seen_, offset, from, bytes);
  unsynced_.push_back({.number = write_count_++,
                       .offset = offset,
                       .data = std::vector<uint8_t>(from, from + bytes)});
}

void SimMedium::SyncUntil(uint64_t count) {
  auto write = unsynced_.begin();
  for (; write != unsynced_.end() && write->number < count; ++write) {
    Apply(durable_, write->offset, write->data.data(), write->data.size());
  }
  unsynced_.erase(unsynced_.begin(), write);
}

void SimMedium::FlipBit(uint64_t offset, uint32_t bit) {
  TERRACE_CHECK(offset < bytes_ && bit < 8);
  const auto mask = static_cast<uint8_t>(1u << bit);
  seen_[offset / kPageBytes][offset % kPageBytes] ^= mask;
  // The newest copy that a power loss may leave behind goes bad too.
  for (auto write = unsynced_.rbegin(); write != unsynced_.rend(); ++write) {
    if (offset < write->offset || offset >= write->offset + write->data.size()) continue;
    write->data[offset - write->offset] ^= mask;
    return;
  }
  durable_[offset / kPageBytes][offset % kPageBytes] ^= mask;
}

void SimMedium::LosePower(const SimFaults& faults, SimInjected& injected) {
  for (const Unsynced& write : unsynced_) {
    if (Chance(faults.lost)) {
      ++injected.lost;
      continue;
    }
    const bool torn = Chance(faults.torn);
    if (torn) ++injected.torn;
    for (uint64_t at = 0; at < write.data.size(); at += kSectorBytes) {
      if (torn && Random() % 2 == 0) continue;
      Apply(durable_, write.offset + at, write.data.data() + at,
            std::min<uint64_t>(kSectorBytes, write.data.size() - at));
    }
  }
  unsynced_.clear();
  seen_ = durable_;
}

}  // namespace terrace
