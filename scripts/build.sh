# shellcheck shell=bash
# How the scripts configure and build, by the tools' paths: another CMake or Python on the PATH is
# not the one that this was tried with.  Sourced, from the root.

# configure PRESET: says what CMake said only if it failed.
configure() {
  local log=build/configure-$1.log
  mkdir -p build
  /usr/bin/cmake --preset "$1" > "$log" 2>&1 || { cat "$log" >&2; return 1; }
}

# build PRESET [TARGET ...]: the first of these that fails ends it.  A compiler of a big file takes
# 1 to 2 GB: as many at once as there are cores, and not more than fit.
build() {
  local preset=$1 jobs memory_jobs
  shift
  jobs=$(nproc)
  memory_jobs=$(awk '/^MemAvailable:/ { print int($2 / 1500000) + 1 }' /proc/meminfo)
  ((jobs <= memory_jobs)) || jobs=$memory_jobs
  /usr/bin/cmake --build "build/$preset" -j "$jobs" ${1:+--target "$@"}
}
