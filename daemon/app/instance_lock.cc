#include "daemon/app/instance_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace terrace {
namespace {

std::string HolderOf(int fd) {
  char text[32] = {};
  const ssize_t got = pread(fd, text, sizeof text - 1, 0);
  const std::string pid(text, got > 0 ? static_cast<size_t>(got) : 0);
  if (pid.empty()) return "another process";
  std::ifstream comm("/proc/" + pid + "/comm");
  std::string name;
  std::getline(comm, name);
  return "pid " + pid + (name.empty() ? "" : " (" + name + ")");
}

}  // namespace

Result<InstanceLock> InstanceLock::Take(const std::string& socket) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(socket).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) {
    return Status(StatusCode::kInvalid, "socket = " + socket + ": its folder cannot be made (" +
                                            error.message() + "): use another path");
  }
  const std::string path = socket + ".lock";
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid() && (errno == EACCES || errno == EPERM)) {
    return Status(StatusCode::kDenied,
                  "open " + path + ": " + std::strerror(errno) +
                      ": run as the folder's owner, or use another socket with --socket");
  }
  if (!fd.valid()) return ErrnoStatus("open " + path, errno);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return Status(StatusCode::kBusy, "socket = " + socket + " is held by " + HolderOf(fd.get()) +
                                         ": stop it, or use another socket");
  }
  const std::string pid = std::to_string(getpid());
  if (ftruncate(fd.get(), 0) != 0 ||
      pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return ErrnoStatus("write " + path, errno);
  }
  // Whoever made this socket is gone: it would have held the lock.
  if (std::filesystem::is_socket(socket, error)) unlink(socket.c_str());
  return InstanceLock(std::move(fd));
}

}  // namespace terrace
