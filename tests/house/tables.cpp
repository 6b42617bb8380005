// The tables of the documents hold what the program knows: every recipe key with its meaning, every column of the ledger.
#include <doctest/doctest.h>

#include <algorithm>
#include <regex>

#include "house.h"

namespace {

using std::string;

// {"model.img_size", "height and width of the input, pixels"} for each key("...", ...) of train/recipe.h.
std::vector<std::pair<string, string>> recipe_keys(const string& header) {
  const std::regex part(R"re(struct (\w+)Recipe \{|key\("(\w+)",[^"]*?(?:one_of\(\{[^}]*\}\),[^"]*)?"([^"]*)"(?:\s*"([^"]*)")?\))re");
  std::vector<std::pair<string, string>> keys;
  string section;
  for (std::sregex_iterator at(header.begin(), header.end(), part), end; at != end; ++at) {
    if ((*at)[1].matched) section = string(1, char(std::tolower((*at)[1].str()[0]))) + (*at)[1].str().substr(1);
    else keys.push_back({section + "." + (*at)[2].str(), (*at)[3].str() + (*at)[4].str()});
  }
  return keys;
}

// The words in the first column of a page's tables: | `word` | ...
std::vector<string> first_column(const string& page) {
  std::vector<string> words;
  for (const string& line : lines_of(page))
    if (line.starts_with("| `")) words.push_back(line.substr(3, line.find('`', 3) - 3));
  return words;
}

Faults key_faults(const string& header, const string& page) {
  Faults faults;
  const auto keys = recipe_keys(header);
  for (const auto& [key, meaning] : keys)
    if (!contains(page, "| `" + key + "` | " + meaning))
      faults.push_back("docs/recipes.md wants the row | `" + key + "` | " + meaning + " |");
  for (const string& word : first_column(page)) {
    const auto is_it = [&](const auto& key) { return key.first == word; };
    if (std::none_of(keys.begin(), keys.end(), is_it))
      faults.push_back("docs/recipes.md explains " + word + ", which is no key of train/recipe.h");
  }
  return faults;
}

// The columns that a table is opened with: table(paths.steps(), {"step", "epoch", ...}).
Faults column_faults(const string& ledger, const string& page) {
  Faults faults;
  const std::regex table(R"(table\(paths\.\w+\(\), \{([^}]*)\})"), word(R"re("(\w+)")re");
  for (std::sregex_iterator at(ledger.begin(), ledger.end(), table), end; at != end; ++at) {
    const string columns = (*at)[1];
    for (std::sregex_iterator column(columns.begin(), columns.end(), word); column != end; ++column)
      if (!contains(page, "| `" + (*column)[1].str() + "` |"))
        faults.push_back("docs/ledger.md wants a row for the column " + (*column)[1].str());
  }
  return faults;
}

string text_of(const char* path) { return read_text(std::filesystem::path(SOURCE_DIR) / path); }

}  // namespace

TEST_CASE("house: docs/recipes.md explains every key, and no other") {
  const string header = text_of("train/recipe.h");
  REQUIRE(recipe_keys(header).size() > 60);
  const Faults faults = key_faults(header, text_of("docs/recipes.md"));
  INFO(listed(faults));
  CHECK(faults.empty());
}

TEST_CASE("house: docs/ledger.md explains every column") {
  const Faults faults = column_faults(text_of("train/ledger.cpp"), text_of("docs/ledger.md"));
  INFO(listed(faults));
  CHECK(faults.empty());
}

TEST_CASE("house: the table tests see what they should") {
  const string header =
      "struct ModelRecipe {\n  key(\"size\", m.size, between(1, 9), \"how large\");\n"
      "  key(\"norm\", m.norm, one_of({\"a\", \"b\"}),\n      \"which norm\");\n};\n"
      "struct EmaRecipe {\n  key(\"decay\", e.decay, below(1), \"of the \"\n    \"mean; 0: off\");\n};\n";
  CHECK(recipe_keys(header) == std::vector<std::pair<string, string>>{
      {"model.size", "how large"}, {"model.norm", "which norm"}, {"ema.decay", "of the mean; 0: off"}});
  const string page = "| `model.size` | how large |\n| `model.norm` | which norm: a or b |\n| `ema.decay` | of the mean; 0: off |\n";
  CHECK(key_faults(header, page).empty());
  CHECK(key_faults(header, page + "| `model.gone` | what was |\n").size() == 1);
  CHECK(key_faults(header, "| `model.size` | how small |\n").size() == 3);

  const string ledger = "x = table(paths.steps(), {\"step\",\n \"loss\"});\ny = table(paths.norms(), with_step(norms));\n";
  CHECK(column_faults(ledger, "| `step` | number |\n| `loss` | mean |\n").empty());
  CHECK(column_faults(ledger, "| `step` | number |\n").size() == 1);
}
