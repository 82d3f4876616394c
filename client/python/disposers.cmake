# Two Cap'n Protos in one process.  kj's HeapDisposer<T>::instance is a static member of a template,
# which g++ makes unique in the process, across modules that are loaded RTLD_LOCAL.  Beside a module
# with another version inside (pycapnp), the one's objects would be freed by the other's code.  So
# terrace_kv's module brings an ordinary definition of each that the system's libraries have.  They
# are loaded with it and find it before their own, and what is not unique is seen by nobody else.
# (Their archives would do too, but cannot be linked into a shared object.)
#
# terrace_write_disposers(FILE): writes these definitions; each object is a pointer into its vtable.
function(terrace_write_disposers file)
  set(definitions)
  foreach(library kj kj-async capnp capnp-rpc)
    get_target_property(location CapnProto::${library} IMPORTED_LOCATION)
    execute_process(COMMAND ${CMAKE_NM} --dynamic --defined-only ${location}
      OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
    string(REGEX MATCHALL " u _ZN2kj1_12HeapDisposerI[A-Za-z0-9_.$]+E8instanceE" found "${symbols}")
    foreach(line IN LISTS found)
      string(SUBSTRING "${line}" 3 -1 instance)
      string(REGEX REPLACE "^_ZN(.*)8instanceE$" "_ZTVN\\1E" vtable "${instance}")
      string(FIND "${symbols}" " ${vtable}\n" at)
      if(NOT at EQUAL -1)
        list(APPEND definitions "disposer ${instance} ${vtable}")
      endif()
    endforeach()
  endforeach()
  list(REMOVE_DUPLICATES definitions)
  list(JOIN definitions "\n" definitions)
  file(CONFIGURE OUTPUT ${file} @ONLY CONTENT [=[
asm(R"(
.macro disposer instance vtable
.weak \instance
.type \instance, %object
.size \instance, 8
\instance: .quad \vtable + 16
.endm
.pushsection .data.rel.ro, "aw"
.balign 8
@definitions@
.popsection
.purgem disposer
)");
]=])
endfunction()
