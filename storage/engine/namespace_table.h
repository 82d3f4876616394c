#pragma once

// The namespaces of one tenant, by label and by live id.  A label keeps its spec while it has
// chunks; an epoch bump gives it a new id, and the old one is live no more.
//
// Threads: belongs to one shard.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "storage/base/result.h"
#include "storage/engine/namespace_spec.h"
#include "storage/index/index.h"

namespace terrace {

// Text and lists of one spec: it is kept for as long as the store lives.
inline constexpr size_t kNamespaceSpecBytesMax = 64 * 1024;
inline constexpr size_t kNamespaceLabelBytesMax = 256;
// Of all specs of a tenant, labels included: the table on its NVMe device takes no more.
inline constexpr size_t kNamespacesBytesMax = size_t{3} << 20;

class NamespaceTable {
 public:
  // Borrows the index, whose live words it sets.
  explicit NamespaceTable(Index& index) : index_(index) {}

  // The namespace of this label, new or known.  kInvalid for a spec out of bounds, or naming the
  // field in which a known one differs.  When all live words or kNamespacesBytesMax are in use,
  // the oldest namespaces without chunks are forgotten; kBusy when each has some.
  Result<NamespaceInfo> Register(const NamespaceSpec& spec);

  // As a former life of the daemon left it: its id and epoch stay.  kInvalid for a spec out of
  // bounds, kBusy without a live word.  REQUIRES: label and id are not in use.
  Status Restore(const NamespaceInfo& info);
  // No id below it is given any more.
  void RaiseNextId(uint32_t next_id) { next_id_ = next_id; }
  uint32_t next_id() const { return next_id_; }
  // Grows whenever a namespace comes, goes or gets another id.
  uint64_t version() const { return version_; }

  Result<NamespaceInfo> Find(std::string_view label) const;
  std::vector<NamespaceInfo> All() const;

  // A new id for the label; gets under the old one miss from the return of this call on.
  Result<NamespaceInfo> Bump(std::string_view label);

  // Null unless the id is live.
  const NamespaceInfo* OfId(uint32_t id) const;

  // Ready chunks that came (positive) or went.  Ids that are not live are not counted.
  void Count(uint32_t id, int64_t chunks, int64_t payload_bytes);

 private:
  Result<shm::NamespaceRef> Allocate();
  bool ForgetOneEmpty();

  Index& index_;
  std::map<std::string, NamespaceInfo, std::less<>> by_label_;
  std::unordered_map<uint32_t, NamespaceInfo*> by_id_;
  size_t spec_bytes_ = 0;
  uint32_t next_id_ = 1;  // 0: all were used
  uint64_t version_ = 0;
};

}  // namespace terrace
