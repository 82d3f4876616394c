#include "storage/mem/machine_memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <string_view>

namespace terrace {
namespace {

std::optional<uint64_t> ParseNumber(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  uint64_t number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (parsed.ec != std::errc()) return std::nullopt;
  return number;
}

// The first line as a number; nothing for "max", and where there is no such file.
std::optional<uint64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return ParseNumber(line);
}

// The number behind `name` in a file of lines "name number".
std::optional<uint64_t> ReadField(const std::string& path, std::string_view name) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    const std::string_view text = line;
    if (text.starts_with(name) && text.size() > name.size() && text[name.size()] == ' ') {
      return ParseNumber(text.substr(name.size()));
    }
  }
  return std::nullopt;
}

// How the two versions call the same things.
struct CgroupFiles {
  const char* limit;
  const char* usage;
  const char* reclaimable;  // the page cache in `usage` that goes without being missed
};
constexpr CgroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                   "total_inactive_file"};
constexpr CgroupFiles kVersion2 = {"memory.max", "memory.current", "inactive_file"};

uint64_t LeftIn(const std::string& folder, const CgroupFiles& files) {
  const std::optional<uint64_t> limit = ReadNumber(folder + "/" + files.limit);
  // Version 1 writes "no limit" as the largest number of pages.
  constexpr uint64_t kNoLimitFrom = uint64_t{1} << 62;
  if (!limit.has_value() || *limit >= kNoLimitFrom) return MachineMemory::kUnlimited;
  const uint64_t usage = ReadNumber(folder + "/" + files.usage).value_or(0);
  const uint64_t cache = ReadField(folder + "/memory.stat", files.reclaimable).value_or(0);
  const uint64_t used = usage - std::min(usage, cache);
  return *limit - std::min(*limit, used);
}

// The least that `path` under `mount` or any level above it leaves.  A container may see its
// host's path, of which its mount shows the end only: what is missing limits nothing.
uint64_t LeftAlong(const std::string& mount, std::string path, const CgroupFiles& files) {
  uint64_t left = LeftIn(mount, files);
  if (path.find("..") != std::string::npos) return left;
  while (path.size() > 1) {
    left = std::min(left, LeftIn(mount + path, files));
    path.erase(path.rfind('/'));
  }
  return left;
}

bool NamesController(std::string_view list, std::string_view controller) {
  while (true) {
    const size_t comma = list.find(',');
    if (list.substr(0, comma) == controller) return true;
    if (comma == std::string_view::npos) return false;
    list.remove_prefix(comma + 1);
  }
}

// Lines "number:controllers:/path"; version 2 is number 0 without controllers.
uint64_t CgroupLeft(const std::string& root) {
  const std::string mount = root + "/sys/fs/cgroup";
  uint64_t left = MachineMemory::kUnlimited;
  std::ifstream file(root + "/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first == std::string::npos ? first : first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (path.empty() || path.front() != '/') continue;
    if (controllers.empty()) {
      left = std::min(left, LeftAlong(mount, path, kVersion2));
    } else if (NamesController(controllers, "memory")) {
      left = std::min(left, LeftAlong(mount + "/memory", path, kVersion1));
    }
  }
  return left;
}

uint64_t HugetlbFree(const std::string& root) {
  const std::string folder = root + "/sys/kernel/mm/hugepages/hugepages-2048kB";
  const uint64_t free = ReadNumber(folder + "/free_hugepages").value_or(0);
  const uint64_t promised = ReadNumber(folder + "/resv_hugepages").value_or(0);
  return (free - std::min(free, promised)) * kHugePageBytes;
}

// "48 GiB", "21.3 GiB", "640 MiB": rounded down, so that the figure can be asked for.
std::string Readable(uint64_t bytes) {
  if (bytes < kGiB) return std::to_string(bytes / kMiB) + " MiB";
  const uint64_t tenth = bytes % kGiB * 10 / kGiB;
  std::string text = std::to_string(bytes / kGiB);
  if (tenth != 0) text += "." + std::to_string(tenth);
  return text + " GiB";
}

}  // namespace

Result<MachineMemory> ReadMachineMemory(const std::string& root) {
  const std::string path = root + "/proc/meminfo";
  const std::optional<uint64_t> available = ReadField(path, "MemAvailable:");
  if (!available.has_value()) {
    return Status(StatusCode::kIoError, path + " names no MemAvailable");
  }
  MachineMemory machine;
  machine.available_bytes = *available * kKiB;
  machine.cgroup_left_bytes = CgroupLeft(root);
  machine.hugetlb_free_bytes = HugetlbFree(root);
  return machine;
}

uint64_t AutoDramBytes(const MachineMemory& machine) {
  const uint64_t quarter = std::min(machine.ordinary_bytes() / 4, kAutoDramBytesMax);
  return quarter / kHugePageBytes * kHugePageBytes;
}

Status CheckDramBytes(uint64_t bytes, const MachineMemory& machine, bool huge_pages) {
  const std::string setting = "dram = " + Readable(bytes);
  if (bytes < kSegmentBytesMin || bytes > kDramBytesMax) {
    return Status(StatusCode::kInvalid, setting + " is not within " + Readable(kSegmentBytesMin) +
                                            " and " + Readable(kDramBytesMax));
  }
  const uint64_t givable = machine.ordinary_bytes() + (huge_pages ? machine.hugetlb_free_bytes : 0);
  if (bytes <= givable) return Status::Ok();

  // By the byte where the rounded figures do not differ.
  const bool alike = Readable(bytes) == Readable(givable);
  const std::string wanted = alike ? "dram = " + std::to_string(bytes) + " bytes" : setting;
  std::string message = wanted + ", but only " +
                        (alike ? std::to_string(givable) + " bytes" : Readable(givable)) +
                        " are free";
  if (machine.cgroup_left_bytes < machine.available_bytes) message += " in this cgroup";
  message += ": lower it";
  if (!huge_pages && machine.ordinary_bytes() + machine.hugetlb_free_bytes >= bytes) {
    message += " or turn huge_pages on";
  }
  return Status(StatusCode::kNoSpace, message);
}

}  // namespace terrace
