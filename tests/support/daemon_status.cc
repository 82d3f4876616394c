#include "tests/support/daemon_status.h"

#include <algorithm>
#include <boost/json.hpp>

#include "storage/base/check.h"

namespace terrace {
namespace {

namespace json = boost::json;

uint64_t Number(const json::value& from, const char* pointer) {
  return from.at_pointer(pointer).to_number<uint64_t>();
}

}  // namespace

const SessionStatus* DaemonStatus::Find(pid_t pid) const {
  const auto found = std::find_if(sessions.begin(), sessions.end(),
                                  [pid](const SessionStatus& at) { return at.pid == pid; });
  return found == sessions.end() ? nullptr : &*found;
}

DaemonStatus ReadStatus(Client& client) {
  const Result<std::string> text = client.StatusJson();
  TERRACE_CHECK(text.ok());
  const json::value all = json::parse(*text);
  const json::value& tenant = all.at_pointer("/tenants/0");
  const json::value& tier = tenant.at_pointer("/tiers/0");
  DaemonStatus status{.filling = Number(tenant, "/filling"),
                      .claimed_bytes = Number(tier, "/claimed_bytes"),
                      .segments_open = Number(tier, "/segments/open"),
                      .segments_total = Number(tier, "/segments/total"),
                      .segments_stranded = Number(tier, "/segments/stranded"),
                      .segments_missing = Number(tier, "/segments/missing"),
                      .claims_ended = Number(tenant, "/counters/claims_ended"),
                      .stale_commits = Number(tenant, "/counters/stale_commits"),
                      .reclaims = Number(tenant, "/counters/reclaims"),
                      .codec = {},
                      .sessions = {}};
  if (tenant.at_pointer("/tiers").as_array().size() > 1) {
    const json::value& nvme = tenant.at_pointer("/tiers/1");
    status.codec = {.encoded_chunks = Number(nvme, "/encoded_chunks"),
                    .saved_bytes = Number(nvme, "/encoded_saved_bytes"),
                    .encodes = Number(nvme, "/encodes"),
                    .decodes = Number(nvme, "/decodes"),
                    .decodes_failed = Number(nvme, "/decodes_failed")};
  }
  for (const json::value& session : all.at_pointer("/sessions").as_array()) {
    status.sessions.push_back({.pid = static_cast<pid_t>(Number(session, "/pid")),
                               .pins = Number(session, "/pins"),
                               .claims = Number(session, "/claims")});
  }
  return status;
}

}  // namespace terrace
