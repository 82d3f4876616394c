#include "bench/measure.h"

#include <unistd.h>

#include <boost/json.hpp>
#include <cstring>
#include <fstream>

#include "storage/base/clock.h"

namespace terrace {

double TenantNumber(Client& client, const std::string& pointer) {
  const Result<std::string> text = client.StatusJson();
  if (!text.ok()) return 0;
  boost::system::error_code error;
  const boost::json::value status = boost::json::parse(*text, error);
  if (error) return 0;
  const boost::json::value* number = status.find_pointer("/tenants/0" + pointer, error);
  return number != nullptr && number->is_number() ? number->to_number<double>() : 0;
}

bool AwaitPopulated(Client& client, int64_t wait_ns) {
  const int64_t until_ns = MonotonicNs() + wait_ns;
  const double bytes = TenantNumber(client, "/tiers/0/bytes");
  while (MonotonicNs() < until_ns) {
    if (bytes > 0 && TenantNumber(client, "/tiers/0/populated_bytes") >= bytes) return true;
    usleep(50'000);
  }
  return false;
}

uint64_t HugeMappedBytes() {
  std::ifstream in("/proc/self/smaps_rollup");
  uint64_t bytes = 0;
  for (std::string line; std::getline(in, line);) {
    for (const char* name : {"ShmemPmdMapped:", "Shared_Hugetlb:", "Private_Hugetlb:"}) {
      if (line.starts_with(name)) bytes += std::stoull(line.substr(std::strlen(name))) * 1024;
    }
  }
  return bytes;
}

shm::ChunkKey NumberedKey(uint64_t n) {
  uint64_t words[4] = {n, ~n, n * 0x9e3779b97f4a7c15, 1};
  return shm::ChunkKey::FromBytes(words, sizeof words, 0);
}

}  // namespace terrace
