# Runs while installing; systemd/CMakeLists.txt sets unit, example, work, bin and doc.
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  set(configuration /etc/terrace)
else()
  set(configuration ${CMAKE_INSTALL_PREFIX}/etc/terrace)
endif()

file(READ ${unit} text)
foreach(place "/usr/bin/terraced=${bin}/terraced"
    "/etc/terrace/terraced.toml=${configuration}/terraced.toml" "/usr/share/doc/terrace=${doc}")
  string(REPLACE "=" ";" place ${place})
  list(GET place 0 from)
  list(GET place 1 to)
  string(FIND "${text}" "${from}" found)
  if(found EQUAL -1)
    message(FATAL_ERROR "${unit} does not name ${from}")
  endif()
  string(REPLACE "${from}" "${to}" text "${text}")
endforeach()
file(WRITE ${work}/terraced.service "${text}")
file(INSTALL DESTINATION ${CMAKE_INSTALL_PREFIX}/lib/systemd/system TYPE FILE
  FILES ${work}/terraced.service)

if(NOT EXISTS "$ENV{DESTDIR}${configuration}/terraced.toml")
  file(INSTALL DESTINATION ${configuration} TYPE FILE FILES ${example} RENAME terraced.toml)
endif()
