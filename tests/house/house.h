// house.h: what the tests of the house itself share: the project's files, and their text without comments.
#pragma once
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

struct Source {
  std::string path;   // from the root of the project, as in "engine/check.h"
  std::string text;
};

// What a test found: one line a fault, "engine/check.h:12: ..."; empty when all is well.
using Faults = std::vector<std::string>;

inline std::string listed(const Faults& faults) {
  std::string all;
  for (const auto& fault : faults) all += "\n  " + fault;
  return all;
}

inline std::string fault_at(const Source& source, size_t line, const std::string& what) {
  return source.path + ":" + std::to_string(line) + ": " + what;
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

inline std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  std::istringstream in{std::string(text)};
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

inline bool exists_in_project(const std::string& path) {
  return std::filesystem::exists(std::filesystem::path(SOURCE_DIR) / path);
}

inline bool has_extension(const std::string& path, std::initializer_list<std::string_view> extensions) {
  for (const auto extension : extensions)
    if (std::string_view(path).ends_with(extension)) return true;
  return false;
}

inline bool is_code(const std::string& path) { return has_extension(path, {".h", ".cpp", ".cu"}); }

// All files with one of these endings in the rooms and in the root itself; never a build, a run or a data set.
inline std::vector<Source> project_files(std::initializer_list<std::string_view> extensions) {
  namespace fs = std::filesystem;
  const fs::path root = SOURCE_DIR;
  std::vector<Source> sources;
  const auto take = [&](const fs::directory_entry& entry) {
    const std::string path = fs::relative(entry.path(), root).generic_string();
    if (entry.is_regular_file() && has_extension(path, extensions)) sources.push_back({path, read_text(entry.path())});
  };
  for (const char* room : {"engine", "layers", "models", "data", "train", "recipes", "scripts", "tests", "bench",
                           "third_party", "cmake", "docs", ".ci"})
    if (fs::is_directory(root / room))
      for (const auto& entry : fs::recursive_directory_iterator(root / room)) take(entry);
  for (const auto& entry : fs::directory_iterator(root)) take(entry);
  return sources;
}

// The text with every comment turned into spaces; line numbers stay. Strings stay, and a "//" in one is no comment.
inline std::string without_comments(std::string text) {
  enum { code, line_comment, block_comment, string, character } state = code;
  for (size_t i = 0; i < text.size(); i++) {
    const char c = text[i], next = i + 1 < text.size() ? text[i + 1] : '\0';
    switch (state) {
      case code:
        if (c == '/' && next == '/') state = line_comment, text[i] = ' ';
        else if (c == '/' && next == '*') state = block_comment, text[i] = text[i + 1] = ' ', i++;
        else if (c == '"') state = string;
        else if (c == '\'' && (i == 0 || !std::isalnum(static_cast<unsigned char>(text[i - 1])))) state = character;
        break;
      case line_comment:
        if (c == '\n') state = code;
        else text[i] = ' ';
        break;
      case block_comment:
        if (c == '*' && next == '/') state = code, text[i] = text[i + 1] = ' ', i++;
        else if (c != '\n') text[i] = ' ';
        break;
      case string:
      case character:
        if (c == '\\') i++;
        else if (c == (state == string ? '"' : '\'') || c == '\n') state = code;
        break;
    }
  }
  return text;
}
