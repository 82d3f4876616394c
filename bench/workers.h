#pragma once

// Client processes of a workload.  They end with this object, and with the parent.
//
// Threads: the one that forks; none other may run in the parent.

#include <sys/types.h>

#include <functional>
#include <vector>

namespace terrace {

class Workers {
 public:
  Workers() = default;
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  ~Workers();  // kills who still runs

  // Runs `work` in a new process, which ends after it.
  void Start(const std::function<void()>& work);
  // Whether none has ended; a parent that waits for a word of theirs asks between looks.
  bool AllRun();
  // Waits for their ends.
  void Join();

 private:
  std::vector<pid_t> running_;
};

}  // namespace terrace
