#include "daemon/fsck/fsck_report.h"

#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>

#include "daemon/app/config.h"
#include "storage/base/clock.h"

namespace terrace {
namespace {

namespace json = boost::json;

constexpr int64_t kProgressNs = 200 * kNsPerMs;

// Names are other people's: bytes that would steer a terminal become \xNN.
std::string Printable(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, byte >= 0x20 && byte != 0x7f ? "%c" : "\\x%02x", byte);
    out += escaped;
  }
  return out;
}

std::string HexOf(const shm::ChunkKey& key) {
  std::string text(key.length == shm::kKeyLengthHashed ? "sha256:" : "");
  for (size_t i = 0; i < key.byte_count(); ++i) {
    constexpr char kDigits[] = "0123456789abcdef";
    text += kDigits[key.bytes()[i] >> 4];
    text += kDigits[key.bytes()[i] & 15];
  }
  if (key.part != 0) text += "@" + std::to_string(key.part);
  return text;
}

// "segment_head": for programs.
std::string KindOf(LogDamage damage) {
  std::string name = LogDamageName(damage);
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
}

std::string RoughBytes(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value,
                kUnits[unit]);
  return text;
}

std::string Name(const FsckLog& log) {
  std::string text = log.files.empty() ? std::string() : log.files.front();
  if (log.files.size() > 1) {
    text += " and " + std::to_string(log.files.size() - 1) + " more";
  }
  if (!log.tenant.empty()) text += " (tenant '" + log.tenant + "')";
  return Printable(text);
}

json::object ToJson(const FsckFinding& found) {
  const LogFinding& finding = found.finding;
  json::object out{{"kind", KindOf(finding.damage)},
                   {"file", found.file},
                   {"offset", found.file_offset},
                   {"segment", nullptr},
                   {"key", nullptr},
                   {"namespace_id", nullptr},
                   {"namespace", nullptr},
                   {"unreadable", finding.unreadable},
                   {"mended", finding.mended},
                   {"what", finding.what}};
  if (finding.segment.has_value()) out["segment"] = *finding.segment;
  if (finding.record.has_value()) {
    out["key"] = HexOf(finding.record->key);
    out["namespace_id"] = finding.record->namespace_id;
  }
  if (!found.namespace_label.empty()) out["namespace"] = found.namespace_label;
  return out;
}

json::object ToJson(const FsckLog& log) {
  const LogCheckReport& report = log.report;
  json::object damage;
  for (size_t kind = 0; kind < kLogDamageCount; ++kind) {
    damage[KindOf(static_cast<LogDamage>(kind))] = report.damage[kind];
  }
  json::array files, findings;
  for (const std::string& file : log.files) files.push_back(json::string(file));
  for (const FsckFinding& finding : log.findings) findings.push_back(ToJson(finding));
  return {{"tenant", log.tenant},
          {"files", std::move(files)},
          {"error", log.status.ok() ? json::value(nullptr) : json::value(log.status.ToString())},
          {"segments", report.segments},
          {"checked", report.segments_done},
          {"sealed", report.sealed},
          {"open", report.open},
          {"free", report.free},
          {"segment_bytes", report.identity.segment_bytes},
          {"records", report.records},
          {"record_bytes", report.record_bytes},
          {"read_bytes", report.read_bytes},
          {"unfinished", report.unfinished},
          {"sealed_now", report.sealed_now},
          {"damaged", report.damaged},
          {"mended", report.mended},
          {"damage", std::move(damage)},
          {"findings", std::move(findings)},
          {"findings_left_out", log.findings_left_out}};
}

json::object ToJson(const FsckCatalog& catalog) {
  const CatalogVerdict& verdict = catalog.verdict;
  json::object out{
      {"folder", verdict.folder},
      {"there", verdict.there},
      {"error", verdict.why.ok() ? json::value(nullptr) : json::value(verdict.why.ToString())},
      {"rows", verdict.rows},
      {"damaged_rows", verdict.damaged_rows},
      {"rebuilt", nullptr}};
  if (!catalog.asked) return out;
  out["rebuilt"] = json::object{
      {"done", catalog.rebuilt_status.ok()},
      {"error", catalog.rebuilt_status.ok() ? json::value(nullptr)
                                            : json::value(catalog.rebuilt_status.ToString())},
      {"namespaces", catalog.rebuilt.namespaces},
      {"tenants", catalog.rebuilt.tenants},
      {"set_aside", catalog.rebuilt.set_aside},
      {"not_in_the_logs", json::array{"history", "written bytes a day"}}};
  return out;
}

const char* Word(int code) {
  if ((code & kFsckCancelled) != 0) return "cancelled";
  if ((code & kFsckFailed) != 0) return "failed";
  if ((code & kFsckLeft) != 0) return "damaged";
  return (code & kFsckMended) != 0 ? "mended" : "clean";
}

}  // namespace

int FsckLog::code() const {
  const uint64_t left = report.damaged - report.mended;
  int code = (report.mended > 0 ? kFsckMended : 0) | (left > 0 ? kFsckLeft : 0);
  switch (status.code()) {
    case StatusCode::kOk: break;
    case StatusCode::kCancelled: code |= kFsckCancelled; break;
    case StatusCode::kCorrupt: code |= kFsckLeft; break;
    default: code |= kFsckFailed; break;
  }
  return code;
}

int FsckCatalog::code() const {
  if (asked) {
    if (rebuilt_status.code() == StatusCode::kCancelled) return kFsckCancelled;
    if (!rebuilt_status.ok()) return kFsckFailed | (verdict.damaged ? kFsckLeft : 0);
    return verdict.damaged ? kFsckMended : kFsckClean;
  }
  if (verdict.damaged) return kFsckLeft;
  return verdict.why.ok() ? kFsckClean : kFsckFailed;
}

int FsckResult::code() const {
  int code = catalog.code();
  for (const FsckLog& log : logs) code |= log.code();
  return code;
}

FilePlace PlaceInFiles(uint64_t offset, uint64_t stripe_bytes, size_t file_count) {
  const uint64_t stripe = offset / stripe_bytes;
  return {.file = static_cast<size_t>(stripe % file_count),
          .offset = stripe / file_count * stripe_bytes + offset % stripe_bytes};
}

void PrintFinding(const FsckFinding& found) {
  const LogFinding& finding = found.finding;
  std::string text = "  ";
  if (finding.segment.has_value()) text += "segment " + std::to_string(*finding.segment) + ", ";
  text += found.file + " byte " + std::to_string(found.file_offset);
  if (finding.record.has_value()) {
    text += ", key " + HexOf(finding.record->key) + " of namespace ";
    text += found.namespace_label.empty() ? std::to_string(finding.record->namespace_id)
                                          : "'" + found.namespace_label + "'";
  }
  text += ": " + finding.what + (finding.mended ? " (mended)" : "");
  std::printf("%s\n", Printable(text).c_str());
}

void PrintLog(const FsckLog& log) {
  const LogCheckReport& report = log.report;
  if (log.findings_left_out > 0) {
    std::printf("  and %lu more\n", log.findings_left_out);
  }
  if (!log.status.ok()) {
    std::printf("%s: %s\n", Name(log).c_str(), Printable(log.status.ToString()).c_str());
  }
  if (report.segments > 0) {
    std::printf("%s: %u of %u segments of %s: %u sealed, %u open, %u free; %lu records, %s\n",
                Name(log).c_str(), report.segments_done, report.segments,
                FormatSize(report.identity.segment_bytes).c_str(), report.sealed, report.open,
                report.free, report.records, RoughBytes(report.record_bytes).c_str());
  }
  if (report.unfinished > 0) {
    std::printf("  %lu writes that a crash broke off; the daemon's start, or --repair, ends them\n",
                report.unfinished);
  }
  if (report.sealed_now > 0) std::printf("  %lu footers written\n", report.sealed_now);
  if (report.damaged > 0) {
    std::printf("  %lu damaged:", report.damaged);
    const char* comma = "";
    for (size_t kind = 0; kind < kLogDamageCount; ++kind) {
      if (report.damage[kind] == 0) continue;
      std::printf("%s %s %lu", comma, LogDamageName(static_cast<LogDamage>(kind)),
                  report.damage[kind]);
      comma = ",";
    }
    std::printf("; %lu mended\n", report.mended);
  }
  std::printf("  %s\n", Word(log.code()));
}

void PrintCatalog(const FsckCatalog& catalog) {
  const CatalogVerdict& verdict = catalog.verdict;
  if (verdict.folder.empty()) return;
  const std::string name = "catalog " + Printable(verdict.folder);
  if (!verdict.there && !catalog.asked) return;
  if (!verdict.why.ok()) {
    const char* const mend = verdict.damaged && !catalog.asked ? ": --rebuild makes it anew" : "";
    std::printf("%s: %s%s\n", name.c_str(), Printable(verdict.why.ToString()).c_str(), mend);
  } else if (verdict.there) {
    std::printf("%s: %lu rows, %s\n", name.c_str(), verdict.rows,
                RoughBytes(verdict.disk_bytes).c_str());
  }
  if (!catalog.asked) return;
  if (!catalog.rebuilt_status.ok()) {
    std::printf("  not rebuilt: %s\n", Printable(catalog.rebuilt_status.ToString()).c_str());
    return;
  }
  std::printf("  rebuilt from the logs: %lu namespaces, %lu tenants\n", catalog.rebuilt.namespaces,
              catalog.rebuilt.tenants);
  std::printf(
      "  not in the logs: why chunks left (terrace explain), and the bytes written a day%s\n",
      verdict.damaged || !verdict.there ? ", which begin anew" : ": kept as they were");
  if (!catalog.rebuilt.set_aside.empty()) {
    std::printf("  the former one is set aside: %s\n",
                Printable(catalog.rebuilt.set_aside).c_str());
  }
}

void PrintJson(const FsckResult& result) {
  json::array logs, notes;
  for (const FsckLog& log : result.logs) logs.push_back(ToJson(log));
  for (const std::string& note : result.notes) notes.push_back(json::string(note));
  const int code = result.code();
  const json::object out{
      {"result", Word(code)},
      {"exit_code", code},
      {"logs", std::move(logs)},
      {"catalog", result.catalog.verdict.folder.empty() ? json::value(nullptr)
                                                        : json::value(ToJson(result.catalog))},
      {"notes", std::move(notes)}};
  std::printf("%s\n", json::serialize(out).c_str());
}

FsckProgress::FsckProgress(bool wanted) : wanted_(wanted && isatty(STDERR_FILENO) == 1) {}

void FsckProgress::Show(const std::string& log, const LogCheckReport& report) {
  if (!wanted_ || MonotonicNs() - shown_ns_ < kProgressNs) return;
  shown_ns_ = MonotonicNs();
  shown_ = true;
  const double share =
      report.segments == 0 ? 0 : 100.0 * report.segments_done / double{1.0 * report.segments};
  std::fprintf(stderr, "\r\033[K%s: %3.0f %%, segment %u of %u, %s read, %lu damaged",
               Printable(log).c_str(), share, report.segments_done, report.segments,
               RoughBytes(report.read_bytes).c_str(), report.damaged);
}

void FsckProgress::Clear() {
  if (shown_) std::fputs("\r\033[K", stderr);
  shown_ = false;
}

}  // namespace terrace
