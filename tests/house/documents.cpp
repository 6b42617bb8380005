// What the documents promise is there: the scripts, the subcommands, the recipes and the pages that they link to.
#include <doctest/doctest.h>

#include <algorithm>

#include "house.h"

namespace {

using std::string;

// Words of the command lines in a page's ``` blocks, comments left out: one vector a line.
std::vector<std::vector<string>> commands_in(const string& page) {
  std::vector<std::vector<string>> commands;
  bool inside = false;
  for (const auto& line : lines_of(page)) {
    if (line.starts_with("```")) {
      inside = !inside;
      continue;
    }
    if (!inside) continue;
    std::istringstream words(line.substr(0, line.find(" #")));
    std::vector<string> command;
    for (string word; words >> word;) command.push_back(word);
    if (!command.empty() && command[0] == "$") command.erase(command.begin());
    if (!command.empty()) commands.push_back(command);
  }
  return commands;
}

// The page without its ``` blocks, where "](" is C++.
string without_code(const string& page) {
  string text;
  bool inside = false;
  for (const auto& line : lines_of(page)) {
    if (line.starts_with("```")) inside = !inside;
    else if (!inside) text += line + "\n";
  }
  return text;
}

// Targets of [text](target) and ![picture](target) that are files of the project, as paths from its root.
std::vector<string> links_in(const Source& page) {
  namespace fs = std::filesystem;
  std::vector<string> links;
  const string text = without_code(page.text);
  for (size_t at = text.find("]("); at != string::npos; at = text.find("](", at + 1)) {
    string target = text.substr(at + 2, text.find(')', at) - at - 2);
    target = target.substr(0, target.find('#'));
    if (target.empty() || contains(target, "://")) continue;
    links.push_back((fs::path(page.path).parent_path() / target).lexically_normal().generic_string());
  }
  return links;
}

std::vector<Source> sources_of_train() {
  auto sources = project_files({".cpp"});
  std::erase_if(sources, [](const Source& source) { return !source.path.starts_with("train/"); });
  return sources;
}

// A subcommand or a flag; --help comes with the parser.
bool has_word(const std::vector<Source>& train, const string& name) {
  return name == "--help" || std::any_of(train.begin(), train.end(), [&](const Source& source) {
    return contains(without_comments(source.text), '"' + name + '"');
  });
}

// A script that is missing or cannot be run, a subcommand or a flag nobody added, a recipe that is not there.
Faults command_faults(const Source& page, const std::vector<Source>& train) {
  namespace fs = std::filesystem;
  Faults faults;
  for (const auto& command : commands_in(page.text)) {
    const string& program = command[0];
    if (program.starts_with("scripts/")) {
      const auto permissions = fs::status(fs::path(SOURCE_DIR) / program).permissions();
      const bool runs = exists_in_project(program) && (permissions & fs::perms::owner_exec) != fs::perms::none;
      if (!runs) faults.push_back(page.path + ": " + program + " is not a script that runs");
    }
    if (program == "build/lipsgrad") {
      const size_t words = command.size() > 1 && command[1] == "data" ? 3 : 2;
      for (size_t i = 1; i < command.size(); i++)
        if ((i < words || command[i].starts_with("--")) && !has_word(train, command[i]))
          faults.push_back(page.path + ": lipsgrad has no " + command[i]);
    }
    for (const auto& word : command)
      if (word.starts_with("recipes/") && word.ends_with(".toml") && !exists_in_project(word))
        faults.push_back(page.path + ": there is no " + word);
  }
  return faults;
}

}  // namespace

TEST_CASE("house: what the documents name is there") {
  Faults faults;
  const auto train = sources_of_train();
  for (const auto& page : project_files({".md"})) {
    for (const auto& fault : command_faults(page, train)) faults.push_back(fault);
    for (const auto& link : links_in(page))
      if (!exists_in_project(link)) faults.push_back(page.path + ": links to " + link + ", which is not there");
  }
  INFO(listed(faults));
  CHECK(faults.empty());
}

TEST_CASE("house: the document test sees what it should") {
  const std::vector<Source> train = {{"train/main.cpp", "auto* eval = app.add_subcommand(\"eval\", \"...\");"}};
  const auto faults = [&](const string& block) {
    return command_faults({"a.md", "```\n" + block + "\n```\n"}, train).size();
  };
  CHECK(faults("scripts/test.sh   # all of it") == 0);
  CHECK(faults("scripts/gone.sh") == 1);
  CHECK(faults("build/lipsgrad eval runs/a") == 0);
  CHECK(faults("$ build/lipsgrad fly runs/a") == 1);
  CHECK(faults("build/lipsgrad eval recipes/gone.toml") == 1);
  CHECK(faults("build/lipsgrad eval runs/a --help --fast") == 1);
  CHECK(faults("build/lipsgrad data fly runs/a") == 2);
  CHECK(command_faults({"a.md", "scripts/gone.sh in plain text"}, train).empty());

  const Source page{"docs/a.md", "[b](b.md#part) [c](../c.md) [web](https://example.org) ![p](p.png) [here](#part)\n```\n[x](int i)\n```\n"};
  CHECK(links_in(page) == std::vector<string>{"docs/b.md", "c.md", "docs/p.png"});
}
