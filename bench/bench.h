#pragma once

// `terrace bench WORKLOAD`: measurements against the machine's limits, taken in the same run.  Each
// workload starts a private daemon beside the running binary and stops it afterwards.
//
// Threads: main.

namespace terrace {

// argv[0] is "bench".  Answers the exit code.
int RunBench(int argc, char** argv);

}  // namespace terrace
