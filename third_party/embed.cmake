# cmake -P embed.cmake OUTPUT FILE...: a C++ source that gives the text of each file by its name (train/report.h).
set(output ${CMAKE_ARGV3})
set(entries "")
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE 4 ${last})
  get_filename_component(name "${CMAKE_ARGV${i}}" NAME)
  file(READ "${CMAKE_ARGV${i}}" text)
  # A page must not ask for a source map that does not travel with it.
  string(REGEX REPLACE "(/[/*])# sourceMappingURL=[^\n]*" "" text "${text}")
  string(APPEND entries "  if (name == \"${name}\") return R\"embedded(${text})embedded\";\n")
endforeach()
file(WRITE "${output}"
  "#include \"train/report.h\"\n\nstd::string_view report_asset(std::string_view name) {\n"
  "${entries}  return {};\n}\n")
