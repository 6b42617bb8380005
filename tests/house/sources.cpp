// What every source file keeps to: an opening line, a size, no machine's paths, no #if above the engine, fixed sums.
#include <doctest/doctest.h>

#include <functional>

#include "house.h"

namespace {

using std::string;

// The style asks for lines under 120 columns and files of about 300 lines; these are the fences behind that.
constexpr size_t widest_line = 160, longest_file = 400;

Faults opening_faults(const Source& source) {
  auto lines = lines_of(source.text);
  if (!lines.empty() && lines[0].starts_with("#!")) lines.erase(lines.begin());
  const string mark = is_code(source.path) ? "// " : "# ";
  const string first = lines.empty() ? "" : lines[0];
  if ((first.starts_with(mark) || first.starts_with("\"\"\"")) && first.size() > 20) return {};
  return {fault_at(source, 1, "the first line should be a comment that says what the file is for")};
}

Faults size_faults(const Source& source) {
  Faults faults;
  const auto lines = lines_of(source.text);
  for (size_t i = 0; i < lines.size(); i++)
    if (lines[i].size() > widest_line)
      faults.push_back(fault_at(source, i + 1, std::to_string(lines[i].size()) + " columns"));
  if (lines.size() > longest_file) faults.push_back(fault_at(source, lines.size(), "too long: one file, one idea"));
  return faults;
}

// The homes of a developer or of a build machine. Built from pieces, or this file would find itself.
Faults machine_path_faults(const Source& source) {
  Faults faults;
  const auto lines = lines_of(source.text);
  for (size_t i = 0; i < lines.size(); i++)
    for (const char* folder : {"work", "root", "tmp", "home", "farm", "mnt", "var/tmp"}) {
      const string path = string("/") + folder + "/";
      for (size_t at = lines[i].find(path); at != string::npos; at = lines[i].find(path, at + 1)) {
        const char before = at == 0 ? ' ' : lines[i][at - 1];
        const bool letter = std::isalnum(static_cast<unsigned char>(before));
        const bool part_of_another = letter || contains("._-/*}$>)", {&before, 1});
        if (!part_of_another) faults.push_back(fault_at(source, i + 1, "a path of one machine: " + path));
      }
    }
  return faults;
}

bool above_engine(const string& path) {
  for (const char* room : {"layers/", "models/", "data/", "train/"})
    if (path.starts_with(room)) return true;
  return false;
}

Faults conditional_faults(const Source& source) {
  Faults faults;
  if (!above_engine(source.path)) return faults;
  const auto lines = lines_of(without_comments(source.text));
  for (size_t i = 0; i < lines.size(); i++) {
    const size_t hash = lines[i].find_first_not_of(" \t");
    if (hash == string::npos || lines[i][hash] != '#') continue;
    const size_t word = lines[i].find_first_not_of(" \t", hash + 1);
    if (word == string::npos) continue;
    if (lines[i].compare(word, 2, "if") == 0 || lines[i].compare(word, 2, "el") == 0)
      faults.push_back(fault_at(source, i + 1, "#if has no place above engine/"));
  }
  return faults;
}

bool sums_across_threads(const string& line) {
  return contains(line, "reduction(+") && (contains(line, "parallel") || contains(line, "omp for"));
}

// A sum whose order depends on which thread comes first gives other bits on the next run.
Faults order_faults(const Source& source) {
  Faults faults;
  if (source.path.starts_with("tests/") || source.path.starts_with("bench/")) return faults;
  const auto lines = lines_of(without_comments(source.text));
  for (size_t i = 0; i < lines.size(); i++) {
    for (const char* word : {"atomicAdd", "atomic<float>", "atomic<double>", "omp atomic"})
      if (contains(lines[i], word)) faults.push_back(fault_at(source, i + 1, string(word) + ": sum in a fixed order"));
    if (sums_across_threads(lines[i])) faults.push_back(fault_at(source, i + 1, "threads: sum in a fixed order"));
    if (contains(lines[i], "<<<") && source.path != "engine/kernel.h")
      faults.push_back(fault_at(source, i + 1, "kernels start through launch() only"));
  }
  return faults;
}

using Checker = std::function<Faults(const Source&)>;

void check_all(std::initializer_list<std::string_view> extensions, const Checker& checker) {
  const auto sources = project_files(extensions);
  REQUIRE(!sources.empty());
  Faults faults;
  for (const auto& source : sources)
    for (const auto& fault : checker(source)) faults.push_back(fault);
  INFO(listed(faults));
  CHECK(faults.empty());
}

}  // namespace

TEST_CASE("house: every file opens with what it is for") {
  check_all({".h", ".cpp", ".cu", ".sh", ".py", ".toml", ".cmake"}, opening_faults);
}
TEST_CASE("house: lines and files fit a screen") { check_all({".h", ".cpp", ".cu", ".sh", ".py"}, size_faults); }
TEST_CASE("house: no path of one machine") {
  check_all({".h", ".cpp", ".cu", ".sh", ".py", ".toml", ".cmake", ".txt", ".md", "/run"}, machine_path_faults);
}
TEST_CASE("house: no #if above the engine") { check_all({".h", ".cpp", ".cu"}, conditional_faults); }
TEST_CASE("house: sums have a fixed order, kernels one door") { check_all({".h", ".cpp", ".cu"}, order_faults); }

TEST_CASE("house: the source tests see what they should") {
  const auto count = [](const Checker& checker, const string& path, const string& text) {
    return checker({path, text}).size();
  };

  CHECK(count(opening_faults, "engine/a.h", "// a.h: what this file is for.\n#pragma once\n") == 0);
  CHECK(count(opening_faults, "engine/a.h", "#pragma once\n// a.h: what this file is for.\n") == 1);
  CHECK(count(opening_faults, "engine/a.h", "// a.h\n") == 1);
  CHECK(count(opening_faults, "engine/a.h", "") == 1);
  CHECK(count(opening_faults, "scripts/a.sh", "#!/bin/bash\n# a.sh: what this file is for.\n") == 0);
  CHECK(count(opening_faults, "scripts/a.sh", "#!/bin/bash\nset -e\n") == 1);

  CHECK(count(size_faults, "engine/a.h", string(widest_line, 'x') + "\n") == 0);
  CHECK(count(size_faults, "engine/a.h", string(widest_line + 1, 'x') + "\n") == 1);
  CHECK(count(size_faults, "engine/a.h", string(longest_file, '\n')) == 0);
  CHECK(count(size_faults, "engine/a.h", string(longest_file + 1, '\n')) == 1);

  const string home = string("/") + "work/";
  CHECK(count(machine_path_faults, "docs/a.md", "see " + home + "main") == 1);
  CHECK(count(machine_path_faults, "docs/a.md", home + "main") == 1);
  CHECK(count(machine_path_faults, "docs/a.md", "\"" + home + "main\"") == 1);
  CHECK(count(machine_path_faults, "docs/a.md", "the frame" + home + "main, $root" + home + "x, /usr/share/x") == 0);

  CHECK(count(conditional_faults, "layers/a.h", "#ifdef X\n") == 1);
  CHECK(count(conditional_faults, "data/a.cpp", "  # if X\n#else\n#endif\n") == 2);
  CHECK(count(conditional_faults, "layers/a.h", "#pragma once\n#include <x>\n// #if\nif (x) {}\n") == 0);
  CHECK(count(conditional_faults, "engine/a.h", "#ifdef X\n") == 0);

  CHECK(count(order_faults, "engine/ops/a.cu", "atomicAdd(&x, 1.0f);\n") == 1);
  CHECK(count(order_faults, "engine/ops/a.cu", "// no atomicAdd here\n") == 0);
  CHECK(count(order_faults, "layers/a.cpp", "std::atomic<float> sum;\n") == 1);
  CHECK(count(order_faults, "engine/map.h", "#pragma omp parallel for reduction(+ : sum)\n") == 1);
  CHECK(count(order_faults, "engine/map.h", "#pragma omp simd reduction(+ : sum)\n") == 0);
  CHECK(count(order_faults, "engine/ops/a.cu", "kernel<<<1, 32>>>(x);\n") == 1);
  CHECK(count(order_faults, "engine/kernel.h", "kernel<<<1, 32>>>(x);\n") == 0);
}
