#include "daemon/app/instance_lock.h"

#include <unistd.h>

#include <filesystem>

namespace terrace {

Result<InstanceLock> InstanceLock::Take(const std::string& socket) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(socket).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) {
    return Status(StatusCode::kInvalid, "socket = " + socket + ": its folder cannot be made (" +
                                            error.message() + "): use another path");
  }
  Result<LockFile> lock = LockFile::Take(socket + ".lock");
  if (!lock.ok() && lock.status().code() == StatusCode::kDenied) {
    return Status(StatusCode::kDenied,
                  lock.status().message() +
                      ": run as the folder's owner, or use another socket with --socket");
  }
  if (!lock.ok() && lock.status().code() == StatusCode::kBusy) {
    return Status(StatusCode::kBusy, "socket = " + socket + " is " + lock.status().message() +
                                         ": stop it, or use another socket");
  }
  if (!lock.ok()) return lock.status();
  // Whoever made this socket is gone: it would have held the lock.
  if (std::filesystem::is_socket(socket, error)) unlink(socket.c_str());
  return InstanceLock(*std::move(lock));
}

}  // namespace terrace
