// embedded.h: files built into the binary; third_party/embed.cmake writes the other half.
#pragma once
#include <string_view>
#include <vector>

struct EmbeddedFile {
  std::string_view name, text;   // the name without its folder, and a recipe's without .toml
};

const std::vector<EmbeddedFile>& presets();       // recipes/*.toml
const std::vector<EmbeddedFile>& report_page();   // train/report_page/* and dygraphs
