// recipe_text.cpp: a recipe as TOML, and the hash of what defines its model.
#include <fmt/format.h>

#include "train/recipe.h"

namespace {

std::string toml_value(bool value) { return value ? "true" : "false"; }
std::string toml_value(int value) { return fmt::format("{}", value); }
std::string toml_value(int64_t value) { return fmt::format("{}", value); }

// The shortest text that reads back as the same number, and as a number with a point.
std::string toml_value(double value) {
  const std::string text = fmt::format("{}", value);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

std::string toml_value(const std::string& value) {
  std::string text = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    const bool control = static_cast<unsigned char>(c) < ' ' || c == '\x7f';
    text += control ? fmt::format("\\u{:04X}", static_cast<int>(c)) : std::string(1, c);
  }
  return text + '"';
}

std::string toml_list(const auto& list) {
  std::string text;
  for (const auto& entry : list) text += (text.empty() ? "" : ", ") + toml_value(entry);
  return "[" + text + "]";
}
std::string toml_value(const std::vector<int>& list) { return toml_list(list); }
std::string toml_value(const std::vector<double>& list) { return toml_list(list); }
std::string toml_value(const std::array<double, 2>& list) { return toml_list(list); }

// Where training starts and how it is disturbed: no part of the map that the weights mean.
bool defines_model(const Key& key) {
  if (key.section == "parts") return key.name != "init" && key.name != "alpha";
  return key.section == "model" && key.name != "drop_path_rate";
}

uint64_t fnv1a(uint64_t hash, const std::string& text) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

std::string to_toml(const Recipe& recipe) {
  std::string text, section;
  for_each_key(recipe, [&](const Key& key, const auto& value) {
    if (section != key.section) text += fmt::format("{}[{}]\n", section.empty() ? "" : "\n", key.section);
    section = key.section;
    text += fmt::format("{:<36}  # {}\n", key.name + " = " + toml_value(value), key.meaning);
  });
  return text;
}

uint64_t model_hash(const Recipe& recipe) {
  std::vector<std::string> defaults;
  for_each_key(Recipe::defaults(), [&](const Key&, const auto& value) { defaults.push_back(toml_value(value)); });
  uint64_t hash = 0xcbf29ce484222325;
  size_t index = 0;
  for_each_key(recipe, [&](const Key& key, const auto& value) {
    const std::string text = toml_value(value);
    const bool is_default = text == defaults[index++];
    if (!is_default && defines_model(key)) hash = fnv1a(hash, key.path() + "=" + text + "\n");
  });
  return hash;
}
