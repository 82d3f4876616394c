# shellcheck shell=bash
# The package table: one function a distribution, which prints the packages of a set.  Sourced by
# scripts/setup.
#
#   base   build, test and demo
#   ci     what .ci/run adds: formatting and shell checks
#   check  what scripts/check adds to both: the second compiler, its sanitizers, clang-tidy
#   bench  what scripts/bench-peers and `terrace bench nvme` add

packages_debian_12() {  # tested
  case "$1" in
    base)
      echo build-essential pkg-config cmake ninja-build ccache git ca-certificates
      echo python3 python3-dev python3-venv
      echo libcapnp-dev capnproto libssl-dev libxxhash-dev libzstd-dev libboost1.81-dev libboost-json1.81-dev
      echo libcli11-dev libtomlplusplus-dev libspdlog-dev libfmt-dev libsystemd-dev
      echo liburing-dev librocksdb-dev
      echo libgtest-dev libgmock-dev
      ;;
    ci) echo clang-format-14 shellcheck ;;
    check) echo clang-14 clang-tidy-14 libclang-rt-14-dev lld-14 llvm-14; packages_debian_12 ci ;;
    bench) echo redis-server fio ;;
  esac
}

packages_ubuntu_24_04() {  # untested
  packages_debian_12 "$1" | sed 's/1\.81-dev/1.83-dev/g'
}
