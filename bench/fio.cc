#include "bench/fio.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

namespace terrace {
namespace {

std::string OnPath(const std::string& name) {
  const char* const path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string candidate = (folder.empty() ? "." : folder) + "/" + name;
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return "";
}

std::string ReadAll(const std::string& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Answers the exit code; -1 when it did not come to one.  What it says on stderr goes to a file.
int RunProgram(const std::vector<std::string>& words, const std::string& said) {
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    // It removes its shared memory when it is asked to end, and would leave it when killed.
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(0);
    const int log = open(said.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (log >= 0) {
      dup2(log, STDERR_FILENO);
      dup2(log, STDOUT_FILENO);
    }
    execv(argv[0], argv.data());
    _exit(127);
  }
  int status = -1;
  if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

}  // namespace

Result<Fio> Fio::Find(const std::string& folder) {
  const std::string binary = OnPath("fio");
  if (binary.empty()) {
    return Status(StatusCode::kNotFound,
                  "fio is not installed, and it is what Terrace is compared with: run "
                  "`scripts/setup --bench`, or install your distribution's package fio");
  }
  Fio fio(binary, folder);
  constexpr uint64_t kBlock = 64 << 10;
  const FioJob probe{.file = folder + "/probe",
                     .pattern = "write",
                     .block_bytes = kBlock,
                     .range_bytes = kBlock,
                     .io_bytes = kBlock};
  fio.huge_ = fio.Run(probe).ok();
  if (!fio.huge_) {
    const Result<double> small = fio.Run(probe);
    if (!small.ok()) return small.status();
  }
  unlink(probe.file.c_str());
  return fio;
}

Result<double> Fio::Run(const FioJob& job) const {
  const std::string out = folder_ + "/fio.json", said = folder_ + "/fio.said";
  std::vector<std::string> words = {binary_,
                                    "--name=terrace",
                                    "--filename=" + job.file,
                                    "--rw=" + job.pattern,
                                    "--bs=" + std::to_string(job.block_bytes),
                                    "--iodepth=" + std::to_string(job.depth),
                                    "--offset=" + std::to_string(job.offset),
                                    "--size=" + std::to_string(job.range_bytes),
                                    "--io_size=" + std::to_string(job.io_bytes),
                                    std::string("--iomem=") + (huge_ ? "shmhuge" : "malloc"),
                                    "--ioengine=io_uring",
                                    "--direct=1",
                                    "--fixedbufs=1",
                                    "--registerfiles=1",
                                    "--thread=1",
                                    "--norandommap=1",
                                    "--randrepeat=0",
                                    "--output-format=json",
                                    "--output=" + out};
  if (job.pattern == "write") words.emplace_back("--end_fsync=1");
  if (job.zeros) words.emplace_back("--zero_buffers=1");
  const int code = RunProgram(words, said);
  if (code != 0) {
    return Status(StatusCode::kIoError,
                  "fio ended with " + std::to_string(code) + ": " + ReadAll(said) + ReadAll(out));
  }
  boost::system::error_code error;
  const boost::json::value found = boost::json::parse(ReadAll(out), error);
  const std::string side = job.pattern == "write" ? "write" : "read";
  const boost::json::value* const rate =
      error ? nullptr : found.find_pointer("/jobs/0/" + side + "/bw_bytes", error);
  if (rate == nullptr || !rate->is_number() || rate->to_number<double>() <= 0) {
    return Status(StatusCode::kIoError, "fio did not say how fast it was: " + ReadAll(out));
  }
  return rate->to_number<double>();
}

}  // namespace terrace
