# cmake -P embed.cmake OUTPUT FUNCTION FILE...: a C++ source whose FUNCTION gives the files by name (train/embedded.h).
set(output ${CMAKE_ARGV3})
set(function ${CMAKE_ARGV4})
set(entries "")
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE 5 ${last})
  get_filename_component(name "${CMAKE_ARGV${i}}" NAME)
  string(REGEX REPLACE "\\.toml$" "" name "${name}")
  file(READ "${CMAKE_ARGV${i}}" text)
  # A page must not ask for a source map that does not travel with it.
  string(REGEX REPLACE "(/[/*])# sourceMappingURL=[^\n]*" "" text "${text}")
  string(APPEND entries "      {\"${name}\", R\"embedded(${text})embedded\"},\n")
endforeach()
file(WRITE "${output}"
  "#include \"train/embedded.h\"\n\nconst std::vector<EmbeddedFile>& ${function}() {\n"
  "  static const std::vector<EmbeddedFile> files{\n${entries}  };\n  return files;\n}\n")
