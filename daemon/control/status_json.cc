#include "daemon/control/status_json.h"

#include <unistd.h>

#include <boost/json.hpp>

#include "storage/base/clock.h"

namespace terrace {
namespace {

namespace json = boost::json;

json::object SegmentsJson(const SegmentCounts& counts) {
  return {{"total", counts.total},   {"free", counts.free},         {"open", counts.open},
          {"sealed", counts.sealed}, {"draining", counts.draining}, {"stranded", counts.stranded},
          {"pinned", counts.pinned}, {"missing", counts.missing}};
}

json::object TierJson(const ChunkStoreStats& stats) {
  return {{"tier", "dram"},
          {"bytes", stats.dram_bytes},
          {"live_bytes", stats.live_bytes},
          {"dead_bytes", stats.dead_bytes},
          {"padding_bytes", stats.padding_bytes},
          {"claimed_bytes", stats.claimed_bytes},
          {"free_bytes", stats.free_bytes},
          {"missing_bytes", stats.missing_bytes},
          {"stranded_bytes", stats.stranded_bytes},
          {"segment_bytes", stats.segment_bytes},
          {"page_bytes", stats.page_bytes},
          {"populated_bytes", stats.segments.populated_bytes},
          {"segments", SegmentsJson(stats.segments)}};
}

json::object CountersJson(const ChunkStoreStats& stats) {
  return {{"puts", stats.puts},
          {"put_bytes", stats.put_bytes},
          {"exists", stats.exists},
          {"busy", stats.busy},
          {"full", stats.full},
          {"gets", stats.gets},
          {"get_misses", stats.get_misses},
          {"touches", stats.touches},
          {"evicted", stats.evicted},
          {"evicted_bytes", stats.evicted_bytes},
          {"moved", stats.moved},
          {"moved_bytes", stats.moved_bytes},
          {"removed", stats.removed},
          {"claims_ended", stats.claims_ended},
          {"stale_commits", stats.stale_commits},
          {"corrupt_commits", stats.corrupt_commits},
          {"corrupt_moves", stats.corrupt_moves},
          {"reclaims", stats.reclaims},
          {"fresh_memfds", stats.fresh_memfds}};
}

json::object TenantJson(const std::string& name, ChunkStore& store) {
  const ChunkStoreStats stats = store.stats();
  json::array namespaces;
  for (const NamespaceInfo& info : store.Namespaces()) {
    namespaces.push_back(json::object{{"label", info.spec.label},
                                      {"model", info.spec.model},
                                      {"id", info.ref.id},
                                      {"epoch", info.epoch},
                                      {"chunks", info.chunk_count},
                                      {"bytes", info.chunk_bytes}});
  }
  return {{"name", name},
          {"policy", stats.policy},
          {"chunks", stats.chunk_count},
          {"filling", stats.filling_count},
          {"chunk_bytes_max", store.chunk_bytes_max()},
          {"huge_pages", store.options().memory.best != PageRung::kSmall ? "auto" : "off"},
          {"tiers", json::array{TierJson(stats)}},
          {"index", json::object{{"slots", stats.index_slots}, {"used", stats.index_used}}},
          {"counters", CountersJson(stats)},
          {"namespaces", std::move(namespaces)}};
}

}  // namespace

std::string StatusJson(const StatusContext& context, const StatusView& view, Shard& shard) {
  json::array tenants, sessions, warnings;
  for (const std::string& name : shard.tenants()) {
    if (!view.Shows(name)) continue;
    ChunkStore& store = *shard.store(name);
    const bool huge_pages = store.options().memory.best != PageRung::kSmall;
    if (huge_pages && store.stats().page_bytes == 4096) {
      warnings.push_back(json::string("tenant '" + name +
                                      "' runs on 4 KiB pages: `terrace doctor` prints the two "
                                      "lines that give huge pages"));
    }
    tenants.push_back(TenantJson(name, store));
  }
  for (const SessionSummary& session : shard.sessions()) {
    if (!view.Shows(session.tenant)) continue;
    sessions.push_back(json::object{{"id", session.session},
                                    {"pid", session.pid},
                                    {"name", session.client_name},
                                    {"tenant", session.tenant},
                                    {"closed", session.closed},
                                    {"requests", session.requests},
                                    {"pins", session.pins},
                                    {"pinned_segments", session.pinned_segments},
                                    {"claims", session.claims},
                                    {"stranded_bytes", session.stranded_bytes},
                                    {"touches_dropped", session.touches_dropped}});
  }
  const json::object status{{"version", context.version},
                            {"pid", getpid()},
                            {"socket", context.socket},
                            {"boot_epoch", context.boot_epoch},
                            {"uptime_s", (MonotonicNs() - context.started_ns) / kNsPerSecond},
                            {"tenants", std::move(tenants)},
                            {"sessions", std::move(sessions)},
                            {"warnings", std::move(warnings)}};
  return json::serialize(status);
}

}  // namespace terrace
