// report.cpp: fills the page with its parts and the data of the runs.
#include "train/report.h"

#include <map>

#include "engine/check.h"
#include "engine/durable_file.h"
#include "train/embedded.h"

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

std::string_view asset(std::string_view name) {
  for (const EmbeddedFile& file : report_page())
    if (file.name == name) return file.text;
  fail(Exit::internal, "[report] the page asks for '", name, "', which was not built in");
}

// {{name}} -> the asset of that name, {{data}} -> the data. What is put in is not looked through again.
std::string filled(std::string_view page, std::string_view data) {
  std::string out;
  while (true) {
    const std::size_t open = page.find("{{"), close = page.find("}}", open);
    out += page.substr(0, open);
    if (open == page.npos || close == page.npos) return out;
    const std::string_view name = page.substr(open + 2, close - open - 2);
    const std::string_view part = name == "data" ? data : asset(name);
    out += part;
    page.remove_prefix(close + 2);
  }
}

// Inside a script element only "<" could end it; the rest of JSON is safe there.
std::string script_safe(const json& value) {
  const std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  std::string safe;
  safe.reserve(text.size());
  for (const char c : text) {
    if (c == '<') {
      safe += "\\u003c";
    } else {
      safe += c;
    }
  }
  return safe;
}

}  // namespace

void write_report(const std::vector<fs::path>& runs, const fs::path& output) {
  if (runs.empty()) fail(Exit::usage, "report needs at least one run, such as runs/quickstart");
  json data = {{"runs", json::array()}};
  std::map<std::string, int> names;
  for (const fs::path& path : runs) {
    RunTables run = read_run(path);
    if (names[run.name]++ > 0) run.name = path.lexically_normal().string();   // two folders of one name, told apart
    data["runs"].push_back(report_data(run));
  }
  write_file_atomically(output, filled(asset("page.html"), script_safe(data)));
}
