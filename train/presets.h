// presets.h: the files of recipes/, built into the binary (cmake/embed_presets.cmake writes the other half).
#pragma once
#include <string_view>
#include <vector>

struct Preset {
  std::string_view name, text;
};

const std::vector<Preset>& presets();
