#include "storage/policy/lru_policy.h"

namespace terrace {

PolicyHandle LruPolicy::Insert(uint64_t, uint32_t bytes) {
  clock_ += bytes;
  return used_at_.Add(clock_);
}

void LruPolicy::Touch(PolicyHandle chunk) { used_at_.At(chunk) = ++clock_; }

void LruPolicy::Remove(PolicyHandle chunk, Departure) { used_at_.Release(chunk); }

double LruPolicy::Worth(PolicyHandle chunk) const {
  return 1.0 / static_cast<double>(clock_ - used_at_.At(chunk) + 1);
}

}  // namespace terrace
