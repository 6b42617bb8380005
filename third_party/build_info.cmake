# cmake -P build_info.cmake OUTPUT SOURCE_DIR COMPILER BUILD_TYPE FLAGS: writes the values
# of train/build_info.h, if they changed.
find_program(GIT git)
set(version "")
if(GIT)
  execute_process(COMMAND ${GIT} -C "${CMAKE_ARGV4}" describe --always --dirty --tags
                  OUTPUT_VARIABLE version OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(NOT version)
  set(version "unknown")
endif()
set(text "#include \"train/build_info.h\"

namespace build_info {
const char* const version = R\"(${version})\";
const char* const compiler = R\"(${CMAKE_ARGV5})\";
const char* const build_type = R\"(${CMAKE_ARGV6})\";
const char* const flags = R\"(${CMAKE_ARGV7})\";
}
")
file(CONFIGURE OUTPUT "${CMAKE_ARGV3}" CONTENT "${text}" @ONLY)
