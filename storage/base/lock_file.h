#pragma once

// A file that one process at a time holds, for as long as the value lives; its pid stands in it.
// The file stays when the lock ends: removing it would let two processes hold one name.
//
// Threads: a value; one owner.

#include <string>
#include <utility>

#include "storage/base/fd.h"
#include "storage/base/result.h"

namespace terrace {

class LockFile {
 public:
  // Makes the file (mode 0600), not its folder; follows no link.  Does not wait: kBusy with the
  // message "held by pid N (NAME)", for the caller to say of what.  kDenied by the file's mode.
  // On a full file system it is held all the same, and only its holder's name is missing.
  static Result<LockFile> Take(const std::string& path);

 private:
  explicit LockFile(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace terrace
