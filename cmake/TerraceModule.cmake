# One library a module, one place for the flags.
#
#   terrace_module(NAME storage_policy SOURCES a.cc b.cc LINKS storage_base FOREIGN PkgConfig::xxhash)
#   terrace_test(NAME policy_test SOURCES policy_test.cc LINKS storage_policy LABELS race bytes)
#   terrace_python_test(NAME kv_test SOURCES test_kv.py MODULE LABELS bytes)
#
# LINKS names modules of ours, FOREIGN other people's libraries (their headers come in as SYSTEM).
# MODULE: the test imports terrace_kv.  SERIAL: the test runs alone.  TIMEOUT: seconds, 120 unless
# given; five times as many in a sanitized build.
# LABELS: race (threads or processes share memory), bytes (layouts, hashes, copies).
# Every test finds the programs under $TERRACE_BIN; a Python test also imports from build/*/python.
#
# Targets beside the modules' own: tests_race and tests_bytes build the tests of that label,
# terrace_test_programs the programs that tests start; all_verify_interface_header_sets compiles
# every module's headers, each alone.

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_program(TERRACE_CCACHE ccache)
if(TERRACE_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${TERRACE_CCACHE})
endif()

add_library(terrace_flags INTERFACE)
target_include_directories(terrace_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(terrace_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
if(TERRACE_SANITIZE)
  string(REPLACE ";" "," terrace_sanitizers "${TERRACE_SANITIZE}")
  target_compile_options(terrace_flags INTERFACE
    -fsanitize=${terrace_sanitizers} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(terrace_flags INTERFACE -fsanitize=${terrace_sanitizers})
  set(terrace_sanitizer_options
    "UBSAN_OPTIONS=set:print_stacktrace=1"
    # A find ends the process, so that a daemon's or a child's is not only printed.
    "TSAN_OPTIONS=set:suppressions=${CMAKE_SOURCE_DIR}/scripts/tsan.supp second_deadlock_stack=1 halt_on_error=1")
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    # gcc 12 sees uninitialized values in kj's Maybe once a sanitizer has split its branches.
    target_compile_options(terrace_flags INTERFACE -Wno-maybe-uninitialized)
  endif()
  if("thread" IN_LIST TERRACE_SANITIZE)
    # TSan does not know fences, and gcc says so: a fence of ours is an error, Asio's do without.
    target_compile_definitions(terrace_flags INTERFACE BOOST_ASIO_DISABLE_FENCED_BLOCK)
  endif()
  if(CMAKE_CXX_COMPILER_ID MATCHES Clang AND "undefined" IN_LIST TERRACE_SANITIZE)
    # clang 14's function check cannot compile Asio's coroutine frames.
    target_compile_options(terrace_flags INTERFACE -fno-sanitize=function)
    target_link_options(terrace_flags INTERFACE -fno-sanitize=function)
  endif()
endif()

set(CMAKE_VERIFY_INTERFACE_HEADER_SETS ON)
foreach(label race bytes)
  add_custom_target(tests_${label})
endforeach()
# What tests start (terraced, terrace): `add_dependencies(terrace_test_programs terraced)`.
add_custom_target(terrace_test_programs)

function(terrace_module)
  cmake_parse_arguments(M "" "NAME" "SOURCES;LINKS;FOREIGN" ${ARGN})
  if(M_SOURCES)
    add_library(${M_NAME} STATIC ${M_SOURCES})
    target_link_libraries(${M_NAME} PUBLIC terrace_flags ${M_LINKS} ${M_FOREIGN} Threads::Threads)
  else()
    add_library(${M_NAME} INTERFACE)
    target_link_libraries(${M_NAME} INTERFACE terrace_flags ${M_LINKS} ${M_FOREIGN})
  endif()
  _terrace_header_set(${M_NAME})
endfunction()

# The folder's headers become the module's header set, which is what the target
# all_verify_interface_header_sets compiles.
function(_terrace_header_set name)
  file(GLOB headers ${CMAKE_CURRENT_SOURCE_DIR}/*.h)
  if(NOT headers)
    return()
  endif()
  get_target_property(type ${name} TYPE)
  set(scope PUBLIC)
  if(type STREQUAL INTERFACE_LIBRARY)
    set(scope INTERFACE)
  endif()
  target_sources(${name} ${scope}
    FILE_SET HEADERS BASE_DIRS ${CMAKE_SOURCE_DIR} FILES ${headers})
endfunction()

function(terrace_test)
  cmake_parse_arguments(T "SERIAL" "NAME;TIMEOUT" "SOURCES;LINKS;LABELS" ${ARGN})
  add_executable(${T_NAME} ${T_SOURCES})
  target_link_libraries(${T_NAME} PRIVATE terrace_flags ${T_LINKS} GTest::gmock GTest::gtest_main)
  foreach(label IN LISTS T_LABELS)
    add_dependencies(tests_${label} ${T_NAME})
  endforeach()
  add_test(NAME ${T_NAME} COMMAND ${T_NAME})
  _terrace_test_properties()
endfunction()

# pytest in the interpreter that the extension is built for; no test of what is not there.
function(terrace_python_test)
  cmake_parse_arguments(T "MODULE;SERIAL" "NAME;TIMEOUT" "SOURCES;LABELS" ${ARGN})
  if(NOT TERRACE_PYTEST OR (T_MODULE AND NOT TERRACE_PYTHON_MODULE))
    return()
  endif()
  list(TRANSFORM T_SOURCES PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  add_test(NAME ${T_NAME}
    COMMAND ${Python_EXECUTABLE} -m pytest -q -p no:cacheprovider ${T_SOURCES})
  _terrace_test_properties()
  set_property(TEST ${T_NAME} APPEND PROPERTY ENVIRONMENT_MODIFICATION
    PYTHONPATH=path_list_prepend:${CMAKE_BINARY_DIR}/python PYTHONDONTWRITEBYTECODE=set:1)
endfunction()

# What both kinds of test have, out of the caller's T_ variables.
macro(_terrace_test_properties)
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  if(TERRACE_SANITIZE)
    math(EXPR T_TIMEOUT "5 * ${T_TIMEOUT}")
  endif()
  # By modification: a test that sets ENVIRONMENT for itself keeps these.
  set_tests_properties(${T_NAME} PROPERTIES TIMEOUT ${T_TIMEOUT} LABELS "${T_LABELS}"
    ENVIRONMENT_MODIFICATION "TERRACE_BIN=set:${CMAKE_BINARY_DIR}/bin;${terrace_sanitizer_options}")
  if(T_SERIAL)
    set_tests_properties(${T_NAME} PROPERTIES RUN_SERIAL ON)
  endif()
endmacro()
