#include "storage/policy/policy.h"

#include <string>

#include "storage/policy/gittins_policy.h"
#include "storage/policy/lru_policy.h"

namespace terrace {

Result<std::unique_ptr<Policy>> MakePolicy(std::string_view name, uint64_t capacity_bytes) {
  if (capacity_bytes == 0) {
    return Status(StatusCode::kInvalid, "capacity_bytes = 0: a policy needs a capacity");
  }
  if (name == "gittins") {
    return std::unique_ptr<Policy>(std::make_unique<GittinsPolicy>(capacity_bytes));
  }
  if (name == "lru") return std::unique_ptr<Policy>(std::make_unique<LruPolicy>());
  return Status(StatusCode::kInvalid,
                "policy = \"" + std::string(name) + "\" is not known: use \"gittins\" or \"lru\"");
}

}  // namespace terrace
