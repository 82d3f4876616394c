#pragma once

// A terraced of the bench's own: its socket lies in a new folder; both end with this object.
//
// Threads: main.

#include <sys/types.h>

#include <string>
#include <vector>

#include "storage/base/result.h"

namespace terrace {

class PrivateDaemon {
 public:
  // Starts the terraced that lies beside this program, waits until it serves.
  static Result<PrivateDaemon> Start(const std::vector<std::string>& arguments);
  PrivateDaemon(PrivateDaemon&& other) noexcept;
  PrivateDaemon& operator=(PrivateDaemon&&) = delete;
  ~PrivateDaemon();

  const std::string& socket() const { return socket_; }

 private:
  PrivateDaemon(pid_t pid, std::string folder)
      : pid_(pid), folder_(std::move(folder)), socket_(folder_ + "/terraced.sock") {}

  pid_t pid_;
  std::string folder_, socket_;
};

}  // namespace terrace
