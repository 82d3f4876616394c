#include "storage/engine/claim_table.h"

#include "storage/base/check.h"

namespace terrace {

Claim* ClaimTable::Add(const Claim& claim) {
  std::set<uint64_t>& mine = by_session_[claim.session];
  if (mine.size() >= kClaimCountMax) return nullptr;
  const uint64_t id = next_id_++;
  Claim& added = claims_.emplace(id, claim).first->second;
  added.id = id;
  added.ended = false;
  mine.insert(id);
  deadlines_.emplace(added.deadline_ns, id);
  return &added;
}

Claim* ClaimTable::Find(SessionId session, uint64_t id) {
  const auto found = claims_.find(id);
  if (found == claims_.end() || found->second.session != session) return nullptr;
  return &found->second;
}

void ClaimTable::End(Claim& claim) {
  TERRACE_CHECK(!claim.ended);
  deadlines_.erase({claim.deadline_ns, claim.id});
  claim.ended = true;
}

void ClaimTable::Remove(uint64_t id) {
  const auto found = claims_.find(id);
  TERRACE_CHECK(found != claims_.end());
  const Claim& claim = found->second;
  if (!claim.ended) deadlines_.erase({claim.deadline_ns, id});
  const auto mine = by_session_.find(claim.session);
  mine->second.erase(id);
  if (mine->second.empty()) by_session_.erase(mine);
  claims_.erase(found);
}

Claim* ClaimTable::Expired(int64_t now_ns) {
  if (deadlines_.empty() || deadlines_.begin()->first > now_ns) return nullptr;
  return &claims_.at(deadlines_.begin()->second);
}

int64_t ClaimTable::NextDeadline() const {
  return deadlines_.empty() ? 0 : deadlines_.begin()->first;
}

std::vector<uint64_t> ClaimTable::OfSession(SessionId session) const {
  const auto mine = by_session_.find(session);
  if (mine == by_session_.end()) return {};
  return {mine->second.begin(), mine->second.end()};
}

uint32_t ClaimTable::CountOf(SessionId session) const {
  const auto mine = by_session_.find(session);
  return mine == by_session_.end() ? 0 : static_cast<uint32_t>(mine->second.size());
}

}  // namespace terrace
