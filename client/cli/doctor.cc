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

// The two lines that give huge pages, for as much memory as `dram = "auto"` would take.
std::string HugePageLines() {
  const Result<MachineMemory> machine = ReadMachineMemory();
  const uint64_t bytes = machine.ok() ? AutoDramBytes(*machine) : kGiB;
  std::ostringstream lines;
  lines << "sysctl -w vm.nr_hugepages=" << (bytes + bytes / 32) / kHugePageBytes + 16
        << "\necho advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled";
  return lines.str();
}

Finding CheckHugePages() {
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
  if (finding.grade == Grade::kWarning) finding.mend = HugePageLines();
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

Finding CheckVersions(const std::string& own, const Result<std::unique_ptr<Client>>& client) {
  if (client.ok()) {
    const Result<std::string> status = (*client)->StatusJson();
    if (status.ok()) return CompareVersions(own, *status);
  }
  return {.grade = Grade::kWarning,
          .subject = "versions",
          .found = "terrace " + own + ", no daemon to compare with",
          .mend = "start terraced, or name its socket with --socket"};
}

// Put, get, compare, remove: in a namespace of its own.
Finding CheckRoundTrip(const Result<std::unique_ptr<Client>>& client) {
  Finding finding{.grade = Grade::kFailure, .subject = "round trip", .found = {}, .mend = {}};
  if (!client.ok()) {
    finding.found = client.status().message();
    finding.mend = "start terraced, or name its socket with --socket";
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
      CheckHugePages(),
      CheckLimit("descriptors", RLIMIT_NOFILE, 2 * kSegmentCountMax + 8 * kSessionCountMax,
                 "LimitNOFILE=65536 in the unit, or ulimit -n 65536"),
      CheckLimit("locked memory", RLIMIT_MEMLOCK, kGiB,
                 "LimitMEMLOCK=infinity in the unit: io_uring registers buffers with it"),
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
                finding.found.c_str());
    std::istringstream lines(finding.mend);
    for (std::string line; std::getline(lines, line);) std::printf("           %s\n", line.c_str());
  }
  if (options.json) std::printf("%s\n", json::serialize(out).c_str());
  return failed ? kExitFailure : 0;
}

}  // namespace terrace
