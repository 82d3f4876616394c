# shellcheck shell=bash
# The package table: one function a distribution, sets as arguments.  Sourced by scripts/setup.
#
#   base   build, test and demo
#   ci     what .ci/run adds: formatting and shell checks
#   check  what scripts/check adds: the second compiler, sanitizers' runtimes, clang-tidy
#   bench  what scripts/bench-peers adds

packages_debian_12() {  # tested
  case "$1" in
    base) echo build-essential pkg-config cmake ninja-build ccache git ca-certificates \
            python3 python3-dev python3-venv libcapnp-dev capnproto libssl-dev libxxhash-dev \
            libboost1.81-dev libboost-json1.81-dev libcli11-dev libtomlplusplus-dev libspdlog-dev \
            libfmt-dev libsystemd-dev libseccomp-dev libgtest-dev libgmock-dev ;;
    ci) echo clang-format-14 shellcheck ;;
    check) echo clang-14 clang-tidy-14 clang-format-14 libclang-rt-14-dev lld-14 llvm-14 shellcheck ;;
    bench) echo redis-server ;;
  esac
}

packages_ubuntu_24_04() {  # untested
  case "$1" in
    base) packages_debian_12 base | sed 's/libboost1.81-dev/libboost1.83-dev/; s/libboost-json1.81-dev/libboost-json1.83-dev/' ;;
    ci) echo clang-format-14 shellcheck ;;
    *) packages_debian_12 "$1" ;;
  esac
}
