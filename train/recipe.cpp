// recipe.cpp: the preset, over it the file, over it each --set; a key that for_each_key does not show is refused.
#include "train/recipe.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <toml++/toml.h>

#include "engine/check.h"
#include "engine/nearest.h"
#include "train/embedded.h"

namespace {

constexpr size_t largest_file = 1 << 20;  // a recipe is a page; what is larger was named by mistake

// "file:line:column", or the --set argument itself: where the reader of a message has to look.
std::string place(const std::string& source, const toml::source_region& region) {
  return str(source, ":", region.begin.line, ":", region.begin.column);
}

std::string printable(std::string_view text) {
  std::string clean;
  for (const char c : text.substr(0, 80)) clean += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  return text.size() > 80 ? clean + "..." : clean;
}

// "the integer 3", for messages.
std::string given(const toml::node& node) {
  if (const auto* word = node.as_string()) return str("the word \"", printable(word->get()), '"');
  if (const auto* integer = node.as_integer()) return str("the integer ", integer->get());
  if (const auto* number = node.as_floating_point()) return str("the number ", number->get());
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  if (const auto* list = node.as_array()) return str("a list of ", list->size());
  return node.is_table() ? "a section" : "a date or time";
}

template <class T>
constexpr const char* expected = nullptr;
template <>
constexpr const char* expected<bool> = "true or false";
template <>
constexpr const char* expected<int> = "an integer";
template <>
constexpr const char* expected<int64_t> = "an integer";
template <>
constexpr const char* expected<double> = "a number";
template <>
constexpr const char* expected<std::string> = "a word in quotes";
template <>
constexpr const char* expected<std::vector<int>> = "a list of integers";
template <>
constexpr const char* expected<std::vector<double>> = "a list of numbers";
template <>
constexpr const char* expected<std::array<double, 2>> = "a list of two numbers";

// What the limit allows, in words; empty where the value is inside.
std::string outside(const Limit& limit, double value) {
  const bool too_small = limit.above ? value <= limit.least : value < limit.least;
  const bool too_large = limit.below ? value >= limit.most : value > limit.most;
  if (!too_small && !too_large && std::isfinite(value)) return "";
  if (!std::isfinite(value)) return "finite";
  const std::string low = str(limit.above ? "above " : "at least ", limit.least);
  const std::string high = str(limit.below ? "below " : "at most ", limit.most);
  if (std::isinf(limit.most)) return low;
  return std::isinf(limit.least) ? high : low + " and " + high;
}

// One value of a recipe, on its way from the text into its field.
struct Assignment {
  const std::string& where;  // file:line:column
  const Key& key;

  [[noreturn]] void wrong_type(const char* wanted, const toml::node& node) const {
    fail(Exit::config, where, ": ", key.path(), " must be ", wanted, ", it is ", given(node));
  }
  void check_limit(double value, const toml::node& node) const {
    const std::string allowed = outside(key.limit, value);
    if (!allowed.empty()) fail(Exit::config, where, ": ", key.path(), " must be ", allowed, ", it is ", given(node));
  }

  void set(bool& target, const toml::node& node, const char* wanted) const {
    if (!node.is_boolean()) wrong_type(wanted, node);
    target = node.as_boolean()->get();
  }
  void set(int64_t& target, const toml::node& node, const char* wanted) const {
    if (!node.is_integer()) wrong_type(wanted, node);
    const int64_t value = node.as_integer()->get();
    check_limit(static_cast<double>(value), node);
    target = value;
  }
  void set(int& target, const toml::node& node, const char* wanted) const {
    int64_t wide = 0;
    set(wide, node, wanted);
    if (wide != static_cast<int>(wide)) fail(Exit::config, where, ": ", key.path(), " is too large: ", wide);
    target = static_cast<int>(wide);
  }
  void set(double& target, const toml::node& node, const char* wanted) const {
    if (!node.is_number()) wrong_type(wanted, node);
    const double value =
        node.is_integer() ? static_cast<double>(node.as_integer()->get()) : node.as_floating_point()->get();
    check_limit(value, node);
    target = value;
  }
  void set(std::string& target, const toml::node& node, const char* wanted) const {
    if (!node.is_string()) wrong_type(wanted, node);
    const std::string word = node.as_string()->get();
    const auto& choices = key.limit.choices;
    if (!choices.empty() && std::find(choices.begin(), choices.end(), word) == choices.end()) {
      std::string list;
      for (const std::string& choice : choices) list += (list.empty() ? "'" : ", '") + choice + "'";
      fail(Exit::config, where, ": ", key.path(), " must be ", choices.size() > 1 ? "one of " : "", list, ", it is ",
           given(node));
    }
    target = word;
  }
  template <class T>
  void set(std::vector<T>& target, const toml::node& node, const char* wanted) const {
    if (!node.is_array()) wrong_type(wanted, node);
    std::vector<T> list;
    for (const toml::node& entry : *node.as_array()) set(list.emplace_back(), entry, wanted);
    if (list.empty()) wrong_type(wanted, node);
    target = list;
  }
  void set(std::array<double, 2>& target, const toml::node& node, const char* wanted) const {
    if (!node.is_array() || node.as_array()->size() != 2) wrong_type(wanted, node);
    for (size_t i = 0; i < 2; i++) set(target[i], (*node.as_array())[i], wanted);
  }
};

[[noreturn]] void unknown_key(const std::string& where, const std::string& section, const std::string& name) {
  std::vector<std::string> names;
  std::string home;
  for_each_key(Recipe::defaults(), [&](const Key& key, auto&) {
    if (key.section == section) names.push_back(key.name);
    if (key.name == name) home = key.section;
  });
  const std::string hint = home.empty() ? suggestion(name, names) : str("it belongs to [", home, "]");
  fail(Exit::config, where, ": [", section, "] has no key '", printable(name), "': ", hint);
}

// Returns if there is such a section.
void check_section(const std::string& where, const std::string& section) {
  std::vector<std::string> sections;
  std::string home;
  for_each_key(Recipe::defaults(), [&](const Key& key, auto&) {
    if (sections.empty() || sections.back() != key.section) sections.push_back(key.section);
    if (key.name == section) home = key.path();
  });
  if (std::find(sections.begin(), sections.end(), section) != sections.end()) return;
  const std::string hint = home.empty() ? suggestion(section, sections) : str("did you mean '", home, "'?");
  fail(Exit::config, where, ": there is no section [", printable(section), "]: ", hint);
}

void assign(Recipe& recipe, const std::string& where, const std::string& section, const std::string& name,
            const toml::node& node) {
  bool found = false;
  for_each_key(recipe, [&](const Key& key, auto& value) {
    if (key.section != section || key.name != name) return;
    Assignment{where, key}.set(value, node, expected<std::remove_cvref_t<decltype(value)>>);
    found = true;
  });
  if (!found) unknown_key(where, section, name);
}

const EmbeddedFile* find_preset(const std::string& name) {
  for (const EmbeddedFile& preset : presets())
    if (preset.name == name) return &preset;
  return nullptr;
}

toml::table parse_toml(const std::string& text, const std::string& source) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    fail(Exit::config, place(source, error.source()), ": ", printable(error.description()));
  }
}

Recipe read_recipe(const std::string& text, const std::string& source);

Recipe read_preset(const toml::node& name, const std::string& where) {
  if (!name.is_string()) fail(Exit::config, where, ": preset must be a word in quotes, it is ", given(name));
  const std::string word = name.as_string()->get();
  const EmbeddedFile* preset = find_preset(word);
  if (!preset)
    fail(Exit::config, where, ": no preset is called '", printable(word), "': ", suggestion(word, preset_names()));
  return read_recipe(std::string(preset->text), "preset " + word);
}

// The text over its preset over the defaults. Presets may stand on presets.
Recipe read_recipe(const std::string& text, const std::string& source) {
  const toml::table table = parse_toml(text, source);
  Recipe recipe;
  if (const toml::node* name = table.get("preset")) recipe = read_preset(*name, place(source, name->source()));

  for (const auto& [section_key, section_node] : table) {
    const std::string section(section_key.str()), where = place(source, section_key.source());
    if (section == "preset") continue;
    check_section(where, section);
    if (!section_node.is_table())
      fail(Exit::config, where, ": ", section, " must be a section, [", section, "], it is ", given(section_node));
    for (const auto& [key, node] : *section_node.as_table())
      assign(recipe, place(source, key.source()), section, std::string(key.str()), node);
  }
  return recipe;
}

// The value of a --set in TOML's words; what is not TOML is a word without its quotes.
toml::table parse_value(const std::string& value) {
  try {
    toml::table table = toml::parse("value = " + value);
    if (table.size() == 1) return table;
  } catch (const toml::parse_error&) {}
  return toml::table{{"value", value}};
}

void override_key(Recipe& recipe, const std::string& argument) {
  const std::string where = "--set " + printable(argument);
  const size_t equals = argument.find('='), dot = argument.find('.');
  if (equals == std::string::npos) fail(Exit::usage, where, ": write --set SECTION.KEY=VALUE");
  const std::string section = argument.substr(0, std::min(dot, equals));
  check_section(where, section);
  const std::string name = dot < equals ? argument.substr(dot + 1, equals - dot - 1) : "";
  const std::string value = argument.substr(equals + 1);

  toml::table table = parse_value(value);
  for_each_key(recipe, [&](const Key& key, auto& target) {  // data.path=2024 is a word all the same
    const bool is_word = std::is_same_v<decltype(target), std::string&> && !table.get("value")->is_string();
    if (is_word && key.section == section && key.name == name) table.insert_or_assign("value", value);
  });
  assign(recipe, where, section, name, *table.get("value"));
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(largest_file + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(0, file.gcount())));
  if (!file.is_open() || file.bad()) fail(Exit::no_input, path, ": cannot be read");
  if (text.size() > largest_file) fail(Exit::bad_data, path, ": is not a recipe: it is larger than 1 MiB");
  return text;
}

Recipe finish(Recipe recipe, const std::vector<std::string>& set) {
  for (const std::string& argument : set) override_key(recipe, argument);
  validate(recipe);
  return recipe;
}

}  // namespace

Recipe parse_recipe(const std::string& text, const std::string& source, const std::vector<std::string>& set) {
  return finish(read_recipe(text, source), set);
}

Recipe load_recipe(const std::string& file_or_preset, const std::vector<std::string>& set) {
  if (const EmbeddedFile* preset = find_preset(file_or_preset))
    return finish(read_recipe(std::string(preset->text), "preset " + file_or_preset), set);
  std::error_code error;
  const auto kind = std::filesystem::status(file_or_preset, error).type();
  if (kind == std::filesystem::file_type::directory)
    fail(Exit::no_input, file_or_preset, ": is a folder, not a recipe file");
  if (kind == std::filesystem::file_type::not_found)
    fail(Exit::no_input, printable(file_or_preset), ": no such recipe file, and no preset of this name: ",
         suggestion(recipe_name(file_or_preset), preset_names()));
  return finish(read_recipe(read_file(file_or_preset), file_or_preset), set);
}

std::string recipe_name(const std::string& file_or_preset) {
  return std::filesystem::path(file_or_preset).stem().string();
}

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const EmbeddedFile& preset : presets()) names.emplace_back(preset.name);
  return names;
}
