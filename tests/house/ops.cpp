// Every op that engine/ops.h declares has a case in tests/engine/op_*.cpp: without one nobody has tried its backward. And every op counts what
// it moves.
#include <doctest/doctest.h>

#include <algorithm>

#include "house.h"

namespace {

using std::string;

// The functions that a header declares: what stands before the first parenthesis of each statement outside braces.
std::vector<string> declared_functions(const string& header) {
  const auto lines = lines_of(without_comments(header));
  string statement;
  std::vector<string> names;
  int braces = 0, parentheses = 0;
  const auto finish = [&] {
    const size_t open = statement.find('(');
    if (open != string::npos) {
      const size_t end = statement.find_last_not_of(" \t", open - 1) + 1;
      size_t begin = end;
      const auto part_of_name = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
      while (begin > 0 && part_of_name(statement[begin - 1])) begin--;
      const string name = statement.substr(begin, end - begin);
      const bool has_type = statement.find_first_not_of(" \t") < begin;
      const bool is_new = std::find(names.begin(), names.end(), name) == names.end();
      if (has_type && !name.empty() && is_new) names.push_back(name);
    }
    statement.clear();
  };
  for (const auto& line : lines) {
    if (line.starts_with("#")) continue;
    for (const char c : line + " ") {
      parentheses += (c == '(') - (c == ')');
      // A brace inside parentheses is a default argument, another one the body of a struct or of a function.
      if (c == '{' && parentheses == 0) braces++;
      if (braces == 0) {
        if (c == ';' && parentheses == 0) finish();
        else statement += c;
      }
      if (c == '}' && parentheses == 0 && --braces == 0 && contains(statement, "(")) finish();
    }
  }
  return names;
}

// TEST_CASE("ops: NAME"), TEST_CASE("ops: NAME ...") or TEST_CASE("NAME: ...").
bool has_case(const string& test, const string& name) {
  for (const string end : {"\"", " ", ","})
    if (contains(test, "TEST_CASE(\"ops: " + name + end)) return true;
  return contains(test, "TEST_CASE(\"" + name + ":");
}

Faults ops_without_case(const string& header, const std::vector<Source>& tests) {
  Faults faults;
  for (const auto& name : declared_functions(header)) {
    const auto tries_it = [&](const Source& test) { return has_case(without_comments(test.text), name); };
    if (std::none_of(tests.begin(), tests.end(), tries_it))
      faults.push_back("engine/ops.h declares " + name + ": it wants a case \"ops: " + name + "\" in tests/engine/op_*.cpp");
  }
  return faults;
}

// An op counts its kernels itself or in the header of ops/ that it shares with others; a product counts itself.
Faults ops_without_count(const std::vector<Source>& sources) {
  const auto counts = [](const string& text) { return contains(text, "count_kernel(") || contains(text, "gemm("); };
  Faults faults;
  for (const auto& op : sources) {
    const string text = without_comments(op.text);
    if (!op.path.ends_with(".cu") || !contains(text, "OpRange range(") || counts(text)) continue;
    const auto is_shared = [&](const Source& header) {
      return header.path.ends_with(".h") && contains(op.text, "#include \"" + header.path + "\"") && counts(without_comments(header.text));
    };
    if (std::none_of(sources.begin(), sources.end(), is_shared)) faults.push_back(op.path + " counts no bytes: it wants a count_kernel for each kernel");
  }
  return faults;
}

}  // namespace

TEST_CASE("house: every op counts what it moves") {
  std::vector<Source> sources;
  for (const auto& source : project_files({".cu", ".h"}))
    if (source.path.starts_with("engine/ops/")) sources.push_back(source);
  REQUIRE(sources.size() > 40);
  const Faults faults = ops_without_count(sources);
  INFO(listed(faults));
  CHECK(faults.empty());
}

TEST_CASE("house: the test of counts sees what it should") {
  const string range = "const OpRange range(\"a\");\n";
  CHECK(ops_without_count({{"engine/ops/a.cu", range + "// count_kernel({x}, {y});\n"}}).size() == 1);
  CHECK(ops_without_count({{"engine/ops/a.cu", range + "count_kernel({x}, {y});\n"}}).empty());
  CHECK(ops_without_count({{"engine/ops/a.cu", "#include \"engine/ops/b.h\"\n" + range}, {"engine/ops/b.h", "count_kernel({x}, {y});\n"}}).empty());
  CHECK(ops_without_count({{"engine/ops/a.cu", "#include \"engine/ops/b.h\"\n" + range}, {"engine/ops/b.h", "int b();\n"}}).size() == 1);
}

TEST_CASE("house: every op has a case") {
  std::vector<Source> tests;
  for (const auto& source : project_files({".cpp"}))
    if (source.path.starts_with("tests/engine/op_")) tests.push_back(source);
  const Faults faults = ops_without_case(read_text(string(SOURCE_DIR) + "/engine/ops.h"), tests);
  INFO(listed(faults));
  CHECK(faults.empty());
}

TEST_CASE("house: the op test sees what it should") {
  const string header =
      "// gone(x): a comment\n#pragma once\n#include \"engine/tensor.h\"\n"
      "struct WindowMap { int window; int shift(int i) const { return i; } };\n"
      "Tensor gelu(const Tensor& x);                 // [N, C]; see erf(x)\n"
      "Tensor linear(const Tensor& x, const Tensor& w,\n              const Gemm& options = {}, double eps = f(1));\n"
      "std::pair<Tensor, Tensor> add_norm(const Tensor& x, double eps = 1e-5);\n"
      "inline Tensor half(const Tensor& x) { return scale(x, 0.5); }\n"
      "Tensor add(const Tensor& x, const Tensor& y);\n"
      "Tensor add(const Tensor& x, double y);\n"
      "using Heads = int;\n";
  CHECK(declared_functions(header) == std::vector<string>{"gelu", "linear", "add_norm", "half", "add"});

  const std::vector<Source> tests = {
      {"tests/engine/op_a.cpp", "TEST_CASE(\"ops: gelu\") {}\nTEST_CASE(\"linear: a fact\") {}\n// TEST_CASE(\"ops: add\")\n"},
      {"tests/engine/op_b.cpp", "TEST_CASE(\"ops: add_norm of two\") {}\nTEST_CASE(\"ops: half\") {}\n"}};
  CHECK(ops_without_case(header, tests).size() == 1);
  CHECK(ops_without_case("Tensor gelu(const Tensor& x);", tests).empty());
}
