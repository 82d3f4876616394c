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

std::string WriteError(const NvmeStats& nvme) {
  const std::string written = nvme.io.of(IoKind::kWrite).error;
  return written.empty() ? nvme.io.of(IoKind::kSync).error : written;
}

// What an operator should know of the tier, as ends of a sentence about it.
std::vector<std::string> NvmeWarnings(const NvmeStats& nvme, bool writable) {
  if (nvme.state == NvmeState::kOff) return {"is off: " + nvme.why_off};
  std::vector<std::string> warnings;
  if (!writable) {
    warnings.push_back("is read-only: what it holds is served, and what leaves memory is lost");
  }
  if (!nvme.medium_error.empty()) {
    warnings.push_back("has lost its file: " + nvme.medium_error +
                       ": what was stored there ends with this life of the daemon at the latest; "
                       "start it anew");
  }
  if (nvme.log.writes.breaker_open) {
    warnings.push_back("pauses its writes after errors: " + WriteError(nvme));
  }
  if (nvme.log.reads.breaker_open) {
    warnings.push_back("pauses its reads after errors, and what is only there is a miss: " +
                       nvme.io.of(IoKind::kRead).error);
  }
  if (!nvme.namespaces_error.empty()) {
    warnings.push_back("does not know the latest namespaces and epochs: " + nvme.namespaces_error);
  }
  if (nvme.log.segments.quarantined != 0) {
    warnings.push_back("has given up " + std::to_string(nvme.log.segments.quarantined) +
                       " segments that failed too often");
  }
  return warnings;
}

json::object NvmeJson(const NvmeStats& nvme, bool writable, bool encode) {
  const LogSegmentCounts& segments = nvme.log.segments;
  json::object out{{"tier", "nvme"},
                   {"state", NvmeStateName(nvme.state)},
                   {"why_off", nvme.why_off},
                   {"device", nvme.device},
                   {"writable", writable},
                   {"codec", encode ? "auto" : "off"},
                   {"bytes", nvme.bytes},
                   {"allocated_bytes", nvme.allocated_bytes},
                   {"live_bytes", segments.live_bytes},
                   {"dead_bytes", segments.fill_bytes - segments.live_bytes},
                   {"free_bytes", nvme.bytes - segments.fill_bytes},
                   {"chunks", nvme.chunk_count},
                   {"segment_bytes", nvme.log.identity.segment_bytes},
                   {"segments", json::object{{"total", segments.total},
                                             {"free", segments.free},
                                             {"open", segments.open},
                                             {"sealed", segments.sealed},
                                             {"reclaiming", segments.reclaiming},
                                             {"quarantined", segments.quarantined}}},
                   {"read_budget_bytes", nvme.budgets.read_bytes},
                   {"write_depth", nvme.budgets.write_depth},
                   {"fixed_buffers", nvme.io.buffers - nvme.io.plain_buffers},
                   {"plain_buffers", nvme.io.plain_buffers},
                   {"write_breaker_open", nvme.log.writes.breaker_open},
                   {"read_breaker_open", nvme.log.reads.breaker_open},
                   {"medium_error", nvme.medium_error},
                   {"write_error", WriteError(nvme)},
                   {"read_error", nvme.io.of(IoKind::kRead).error},
                   {"namespaces_error", nvme.namespaces_error}};
  const std::pair<const char*, uint64_t> counters[] = {
      {"demote_queue", nvme.demote_queue},
      {"demoting", nvme.demoting},
      {"loading", nvme.loading},
      {"demoted", nvme.demoted},
      {"demoted_bytes", nvme.demoted_bytes},
      {"demote_failed", nvme.demote_failed},
      {"demote_declined", nvme.demote_declined},
      {"loads", nvme.loads},
      {"load_bytes", nvme.load_bytes},
      {"load_failed", nvme.load_failed},
      {"corrupt", nvme.load_corrupt},
      {"evicted", nvme.evicted},
      {"evicted_bytes", nvme.evicted_bytes},
      {"moved", nvme.moved},
      {"moved_bytes", nvme.moved_bytes},
      {"reclaims", nvme.reclaims},
      {"recovered", nvme.recovered},
      {"scrubbed", nvme.scrubbed},
      {"scrubbed_bytes", nvme.scrubbed_bytes},
      {"scrub_damaged", nvme.scrub_damaged},
      {"scrub_passes", nvme.scrub_passes},
      {"encoded_chunks", nvme.encoded_chunks},
      {"encoded_bytes", nvme.encoded_bytes},
      {"encoded_payload_bytes", nvme.encoded_payload_bytes},
      {"encoded_saved_bytes", nvme.encoded_payload_bytes - nvme.encoded_bytes},
      {"encodes", nvme.encodes},
      {"encodes_ungainful", nvme.encodes_ungainful},
      {"encodes_skipped", nvme.encodes_skipped},
      {"decodes", nvme.decodes},
      {"decodes_failed", nvme.decodes_failed},
      {"refused", nvme.refused},
      {"written_bytes", nvme.log.writes.written_bytes}};
  for (const auto& [name, value] : counters) out[name] = value;
  json::array warnings;
  for (const std::string& warning : NvmeWarnings(nvme, writable)) {
    warnings.push_back(json::string("it " + warning));
  }
  out["warnings"] = std::move(warnings);
  return out;
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

// False without a device, where one is wished.
bool NvmeWritable(const ChunkStore& store) {
  const BlockDevice* const device = store.options().nvme.device;
  return device != nullptr && device->writable();
}

json::object TenantJson(const std::string& name, ChunkStore& store) {
  const ChunkStoreStats stats = store.stats();
  json::array tiers{TierJson(stats)};
  if (stats.nvme.configured) {
    tiers.push_back(NvmeJson(stats.nvme, NvmeWritable(store), store.options().nvme.encode));
  }
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
          {"tiers", std::move(tiers)},
          {"index", json::object{{"slots", stats.index_slots}, {"used", stats.index_used}}},
          {"counters", CountersJson(stats)},
          {"namespaces", std::move(namespaces)}};
}

// Nothing of a tenant's: all may see it.
json::object HistoryJson(const ArchiveStats& archive) {
  const char* const state =
      archive.folder.empty() ? "none" : (archive.why_off.empty() ? "ready" : "off");
  return {{"state", state},
          {"folder", archive.folder},
          {"why_off", archive.why_off},
          {"error", archive.error},
          {"events", archive.rows},
          {"bytes", archive.bytes},
          {"since_ms", archive.since_ms},
          {"lost", archive.dropped}};
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
    if (const NvmeStats nvme = store.stats().nvme; nvme.configured) {
      for (const std::string& warning : NvmeWarnings(nvme, NvmeWritable(store))) {
        warnings.push_back(json::string("the NVMe tier of tenant '" + name + "' " + warning));
      }
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
  const ArchiveStats archive =
      context.archive == nullptr ? ArchiveStats{} : context.archive->stats();
  if (!archive.why_off.empty()) {
    warnings.push_back(json::string("the catalog in " + archive.folder + " is off (" +
                                    archive.why_off +
                                    "): why chunks left is not kept across restarts"));
  } else if (!archive.error.empty()) {
    warnings.push_back(
        json::string("the catalog in " + archive.folder + " cannot be written: " + archive.error));
  }
  const json::object status{{"version", context.version},
                            {"pid", getpid()},
                            {"socket", context.socket},
                            {"boot_epoch", context.boot_epoch},
                            {"uptime_s", (MonotonicNs() - context.started_ns) / kNsPerSecond},
                            {"tenants", std::move(tenants)},
                            {"sessions", std::move(sessions)},
                            {"history", HistoryJson(archive)},
                            {"warnings", std::move(warnings)}};
  return json::serialize(status);
}

}  // namespace terrace
