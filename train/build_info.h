// build_info.h: what this binary was built from and how; CMake writes the values (third_party/build_info.cmake).
#pragma once

namespace build_info {
extern const char* const version;      // git describe, or "unknown" outside a repository
extern const char* const compiler;
extern const char* const build_type;
extern const char* const flags;
}
