# What there is of Python, found once and said in one line when something is absent:
#   TERRACE_PYTHON_MODULE  terrace_kv can be built: development files and nanobind
#   TERRACE_PYTEST         the interpreter has pytest
# Both are off without TERRACE_PYTHON.

set(TERRACE_PYTHON_MODULE OFF)
set(TERRACE_PYTEST OFF)
if(NOT TERRACE_PYTHON)
  return()
endif()

find_package(Python QUIET COMPONENTS Interpreter OPTIONAL_COMPONENTS Development.Module)
set(terrace_absent)
if(NOT Python_Interpreter_FOUND)
  list(APPEND terrace_absent "the interpreter ${Python_EXECUTABLE}")
else()
  if(NOT Python_Development.Module_FOUND)
    list(APPEND terrace_absent "the development files (python3-dev)")
  endif()
  execute_process(COMMAND ${Python_EXECUTABLE} -m nanobind --cmake_dir
    OUTPUT_STRIP_TRAILING_WHITESPACE OUTPUT_VARIABLE nanobind_ROOT ERROR_QUIET
    RESULT_VARIABLE terrace_no_nanobind)
  if(terrace_no_nanobind)
    list(APPEND terrace_absent nanobind)
  endif()
endif()
if(NOT terrace_absent)
  set(TERRACE_PYTHON_MODULE ON)
endif()
if(Python_Interpreter_FOUND AND TERRACE_TESTS)
  execute_process(COMMAND ${Python_EXECUTABLE} -c "import pytest"
    OUTPUT_QUIET ERROR_QUIET RESULT_VARIABLE terrace_no_pytest)
  if(terrace_no_pytest)
    list(APPEND terrace_absent pytest)
  else()
    set(TERRACE_PYTEST ON)
  endif()
endif()
if(terrace_absent)
  string(REPLACE ";" ", " terrace_absent "${terrace_absent}")
  if(TERRACE_PYTHON_MODULE)
    set(terrace_left_out "the Python tests are")
  else()
    set(terrace_left_out "terrace_kv and its tests are")
  endif()
  message(STATUS "${terrace_left_out} left out: Python lacks ${terrace_absent} (scripts/setup)")
endif()
