// `terrace doctor`: checks the machine and the daemon; each finding comes with its mend.

#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "client/cli/cli.h"
#include "storage/base/limits.h"
#include "storage/mem/machine_memory.h"
#include "storage/record/copy_hash.h"

namespace terrace {
namespace {

namespace json = boost::json;

enum class Grade { kOk, kWarning, kFailure };

struct Finding {
  Grade grade = Grade::kOk;
  std::string subject, found, mend;
};

std::string FirstLine(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "always within_size [advise] never": the chosen one.
std::string Chosen(const std::string& line) {
  const size_t open = line.find('['), close = line.find(']');
  return open == std::string::npos || close == std::string::npos
             ? std::string("absent")
             : line.substr(open + 1, close - open - 1);
}

// The two lines that give huge pages for so much memory.
std::string HugePageLines(uint64_t bytes) {
  std::ostringstream lines;
  lines << "sysctl -w vm.nr_hugepages=" << (bytes + bytes / 32) / kHugePageBytes + 16
        << "\necho advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled";
  return lines.str();
}

// What the daemon's tenants, those that this user sees, run on.
struct Pool {
  uint64_t dram_bytes = 0;
  bool small_pages = false;  // at least one tenant's, and not by choice
  bool huge_pages_off = false;
};

// False when the answer has another shape.
bool ReadPool(const std::string& status, Pool* pool) {
  try {
    const json::value answer = json::parse(status);
    for (const json::value& tenant : answer.at("tenants").as_array()) {
      const bool off = tenant.at("huge_pages").as_string() == "off";
      pool->huge_pages_off |= off;
      for (const json::value& tier : tenant.at("tiers").as_array()) {
        pool->dram_bytes += tier.at("bytes").to_number<uint64_t>();
        pool->small_pages |= !off && tier.at("page_bytes").to_number<uint64_t>() == 4 * kKiB;
      }
    }
  } catch (const std::exception&) {
    return false;
  }
  return pool->dram_bytes != 0;
}

// Without a daemon: what one would find, as `dram = "auto"` would size it.
Finding CheckMachinesHugePages() {
  const std::string reserved = FirstLine("/proc/sys/vm/nr_hugepages");
  const std::string shmem = Chosen(FirstLine("/sys/kernel/mm/transparent_hugepage/shmem_enabled"));
  const bool transparent =
      shmem == "advise" || shmem == "always" || shmem == "within_size" || shmem == "force";
  Finding finding{.grade = Grade::kOk,
                  .subject = "huge pages",
                  .found = "vm.nr_hugepages = " + reserved + ", shmem_enabled = " + shmem,
                  .mend = {}};
  if (reserved != "0" && !reserved.empty() && transparent) return finding;
  finding.grade = reserved != "0" || transparent ? Grade::kOk : Grade::kWarning;
  if (finding.grade != Grade::kWarning) return finding;
  const Result<MachineMemory> machine = ReadMachineMemory();
  finding.mend = HugePageLines(machine.ok() ? AutoDramBytes(*machine) : kGiB);
  return finding;
}

Finding CheckHugePages(const Result<std::unique_ptr<Client>>& client) {
  Finding finding = CheckMachinesHugePages();
  if (!client.ok()) return finding;
  const Result<std::string> status = (*client)->StatusJson();
  Pool pool;
  if (!status.ok() || !ReadPool(*status, &pool)) return finding;
  finding.grade = pool.small_pages ? Grade::kWarning : Grade::kOk;
  finding.mend = pool.small_pages ? HugePageLines(pool.dram_bytes) : std::string();
  if (pool.small_pages) {
    finding.found += "; terraced runs on 4 KiB pages: restart it after these";
  } else if (pool.huge_pages_off) {
    finding.found += "; terraced was told huge_pages = off";
  }
  return finding;
}

Finding CheckLimit(const char* subject, int resource, uint64_t wanted, const std::string& mend) {
  rlimit limit{};
  getrlimit(static_cast<__rlimit_resource>(resource), &limit);
  const bool enough = limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= wanted;
  return {.grade = enough ? Grade::kOk : Grade::kWarning,
          .subject = subject,
          .found = limit.rlim_max == RLIM_INFINITY ? "unlimited" : std::to_string(limit.rlim_max),
          .mend = enough ? std::string() : mend};
}

// Nothing of the daemon locks memory: the figure only.
Finding ShowLockedMemory() {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  return {.grade = Grade::kOk,
          .subject = "locked memory",
          .found = limit.rlim_max == RLIM_INFINITY ? "unlimited" : HumanBytes(limit.rlim_max),
          .mend = {}};
}

// The probe has a null argument: a kernel that has io_uring answers EFAULT.
Finding CheckIoUring() {
  const long answer = syscall(SYS_io_uring_setup, 1, nullptr);
  const int error = answer < 0 ? errno : 0;
  const bool there = error == EFAULT || error == EINVAL;
  return {.grade = there ? Grade::kOk : Grade::kWarning,
          .subject = "io_uring",
          .found = there             ? "available"
                   : error == ENOSYS ? "not in this kernel"
                                     : "forbidden",
          .mend = there ? "" : "allow io_uring_setup (kernel.io_uring_disabled = 0, seccomp)"};
}

Finding CheckKernel() {
  utsname system{};
  uname(&system);
  return {
      .grade = Grade::kOk,
      .subject = "kernel",
      .found = std::string(system.release) + ", copy with hash: " + std::string(CopyHashVariant()),
      .mend = {}};
}

// The versions of the two sides; a difference is worth a look.
Finding CompareVersions(const std::string& own, const std::string& status) {
  Finding finding{.grade = Grade::kOk, .subject = "versions", .found = {}, .mend = {}};
  boost::system::error_code error;
  const json::value answer = json::parse(status, error);
  const json::value* version =
      error || !answer.is_object() ? nullptr : answer.as_object().if_contains("version");
  const std::string daemon = version != nullptr && version->is_string()
                                 ? std::string(version->as_string())
                                 : std::string("unknown");
  finding.found = "terrace " + own + ", terraced " + daemon;
  if (daemon == own) return finding;
  finding.grade = Grade::kWarning;
  finding.mend = "install both of one version and restart terraced";
  return finding;
}

Result<std::unique_ptr<Client>> Connect(const CliOptions& options) {
  ClientOptions wanted;
  wanted.socket = options.socket;
  wanted.client_name = "terrace doctor";
  wanted.reconnect = false;
  return Client::Connect(wanted);
}

// What lets this user reach a daemon.
std::string MendOf(const Status& refused) {
  if (refused.code() == StatusCode::kDenied) {
    return "in the daemon's configuration: name this user's uid under `uids` of a [[tenant]], and "
           "set socket_mode = 0o666";
  }
  if (refused.code() == StatusCode::kBusy) return "end a client: `terrace status` names sessions";
  return "start terraced, or name its socket with --socket";
}

Finding CheckVersions(const std::string& own, const Result<std::unique_ptr<Client>>& client) {
  if (client.ok()) {
    const Result<std::string> status = (*client)->StatusJson();
    if (status.ok()) return CompareVersions(own, *status);
  }
  return {.grade = Grade::kWarning,
          .subject = "versions",
          .found = "terrace " + own + ", no daemon to compare with",
          .mend = MendOf(client.ok() ? Status(StatusCode::kUnavailable) : client.status())};
}

// Put, get, compare, remove: in a namespace of its own.
Finding CheckRoundTrip(const Result<std::unique_ptr<Client>>& client) {
  Finding finding{.grade = Grade::kFailure, .subject = "round trip", .found = {}, .mend = {}};
  if (!client.ok()) {
    finding.found = client.status().message();
    finding.mend = MendOf(client.status());
    return finding;
  }
  NamespaceIdentity identity;
  identity.label = "terrace-doctor";
  const Result<std::shared_ptr<Namespace>> ns = (*client)->Register(identity);
  if (!ns.ok()) {
    finding.found = ns.status().ToString();
    finding.mend = "look at `terrace namespaces` and at the daemon's log";
    return finding;
  }
  const std::string words = "doctor " + std::to_string(getpid());
  const std::string payload(100'000, static_cast<char>(getpid()));
  const Result<shm::ChunkKey> key = MakeKey(std::as_bytes(std::span(words)));
  const PutItem item{.key = *key, .payload = std::as_bytes(std::span(payload))};
  const StatusCode put = (*ns)->Put(std::span(&item, 1))[0];
  GetOptions verified;
  verified.verify = true;
  const std::vector<GetResult> got = (*ns)->Get(std::span(&*key, 1), verified);
  const bool same = got[0].status == StatusCode::kOk &&
                    std::equal(item.payload.begin(), item.payload.end(), got[0].pin.bytes().begin(),
                               got[0].pin.bytes().end());
  (void)(*ns)->Remove(std::span(&*key, 1));
  if (put == StatusCode::kOk && same) {
    finding.grade = Grade::kOk;
    finding.found = "put, get and compare of 100 kB on " + (*client)->socket();
  } else {
    finding.found = "put: " + std::string(StatusCodeName(put)) +
                    ", get: " + std::string(StatusCodeName(got[0].status));
    finding.mend = "look at `terrace status`: is the pool full of pinned or leased chunks?";
  }
  return finding;
}

const char* GradeName(Grade grade) {
  switch (grade) {
    case Grade::kOk: return "ok";
    case Grade::kWarning: return "warning";
    case Grade::kFailure: return "failure";
  }
  return "unknown";
}

}  // namespace

int RunDoctor(const CliOptions& options) {
  const Result<std::unique_ptr<Client>> client = Connect(options);
  const std::vector<Finding> findings = {
      CheckKernel(),
      CheckHugePages(client),
      CheckLimit("descriptors", RLIMIT_NOFILE, 2 * kSegmentCountMax + 8 * kSessionCountMax,
                 "LimitNOFILE=65536 in the unit, or ulimit -n 65536"),
      ShowLockedMemory(),
      CheckIoUring(),
      CheckVersions(options.version, client),
      CheckRoundTrip(client),
  };
  json::array out;
  bool failed = false;
  for (const Finding& finding : findings) {
    failed |= finding.grade == Grade::kFailure;
    if (options.json) {
      out.push_back(json::object{{"check", finding.subject},
                                 {"result", GradeName(finding.grade)},
                                 {"found", finding.found},
                                 {"mend", finding.mend}});
      continue;
    }
    std::printf("%-8s %-14s %s\n", GradeName(finding.grade), finding.subject.c_str(),
                Printable(finding.found).c_str());
    std::istringstream lines(finding.mend);
    for (std::string line; std::getline(lines, line);) std::printf("           %s\n", line.c_str());
  }
  if (options.json) std::printf("%s\n", json::serialize(out).c_str());
  return failed ? kExitFailure : 0;
}

}  // namespace terrace
