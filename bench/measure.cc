#include "bench/measure.h"

#include <boost/json.hpp>
#include <cstring>

namespace terrace {

uint64_t PageBytes(Client& client) {
  const Result<std::string> text = client.StatusJson();
  if (!text.ok()) return 0;
  boost::system::error_code error;
  const boost::json::value status = boost::json::parse(*text, error);
  if (error) return 0;
  const boost::json::value* bytes = status.find_pointer("/tenants/0/tiers/0/page_bytes", error);
  return bytes != nullptr && bytes->is_number() ? bytes->to_number<uint64_t>() : 0;
}

shm::ChunkKey NumberedKey(uint64_t n) {
  uint64_t words[4] = {n, ~n, n * 0x9e3779b97f4a7c15, 1};
  return shm::ChunkKey::FromBytes(words, sizeof words, 0);
}

}  // namespace terrace
