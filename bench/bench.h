#pragma once

// `terrace bench WORKLOAD`: measurements against the machine's limits, taken in the same run.  Each
// workload starts a daemon of its own beside the running binary and stops it afterwards; hit and
// put measure one that runs already when they are given its socket.  churn and trace compare
// policies, for which they need pools of their own; nvme compares with fio, in turns.
//
// Threads: main.

namespace terrace {

// argv[0] is "bench".  Answers the exit code.
int RunBench(int argc, char** argv);

}  // namespace terrace
