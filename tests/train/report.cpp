// report: curves keep their extremes, pages are whole whatever the run was like.
#include "train/report.h"

#include <cmath>
#include <cstdlib>
#include <fstream>

#include <doctest/doctest.h>

#include "engine/check.h"
#include "engine/durable_file.h"
#include "train/decimate.h"
#include "synthetic_run.h"

namespace {

const double not_number = std::numeric_limits<double>::quiet_NaN();
const double inf = std::numeric_limits<double>::infinity();

// The page of runs; kept where LIPSGRAD_KEEP_REPORTS names a folder, to be looked at.
std::string page_of(const TestFolder& folder, const std::vector<std::string>& names, const std::string& title) {
  std::vector<std::filesystem::path> runs;
  for (const std::string& name : names) runs.push_back(folder.path / name);
  const char* keep = std::getenv("LIPSGRAD_KEEP_REPORTS");
  const std::filesystem::path output = (keep ? std::filesystem::path(keep) : folder.path) / (title + ".html");
  write_report(runs, output);
  return read_file(output);
}

nlohmann::json data_in(const std::string& page) {
  const std::string open = "id=\"data\">";
  const std::size_t begin = page.find(open) + open.size();
  return nlohmann::json::parse(page.substr(begin, page.find("</script>", begin) - begin));
}

}  // namespace

TEST_CASE("decimate: few points stay, many keep first, last, extremes and what is no number") {
  std::vector<double> steps, values;
  for (int i = 0; i < 5001; i++) {
    steps.push_back(i);
    values.push_back(std::sin(i * 0.01));
  }
  CHECK(thin_extremes(values, 6000) == values);
  values[1234] = 77;
  values[1240] = -55;
  values[3000] = not_number;
  values[4000] = inf;
  const auto at = thin_steps(steps, 500), thin = thin_extremes(values, 500);
  REQUIRE(at.size() == thin.size());
  CHECK(at.size() <= 500);
  CHECK(std::is_sorted(at.begin(), at.end(), [](double a, double b) { return a <= b; }));
  CHECK(at.front() == 0);
  CHECK(at.back() == 5000);
  CHECK(thin.back() == values.back());
  const auto has = [&](double v) { return std::find(thin.begin(), thin.end(), v) != thin.end(); };
  CHECK(has(77));
  CHECK(has(-55));
  CHECK(has(inf));
  CHECK(std::count_if(thin.begin(), thin.end(), [](double v) { return std::isnan(v); }) == 1);

  const auto lowest = bucket_lowest(values, 500);
  CHECK(lowest.size() == bucket_steps(steps, 500).size());
  CHECK(std::find(lowest.begin(), lowest.end(), -55) != lowest.end());
  CHECK(std::count_if(lowest.begin(), lowest.end(), [](double v) { return std::isnan(v); }) == 1);
}

TEST_CASE("report: one page of a whole run, with nothing from elsewhere") {
  const TestFolder folder("report");
  write_synthetic_run(folder.path / "cosine", {});
  const std::string page = page_of(folder, {"cosine"}, "one");
  for (const char* part : {"{{data", "{{style.css", "{{dygraph", "{{page.js"}) CHECK(page.find(part) == page.npos);
  CHECK(page.find("<script src") == page.npos);
  CHECK(page.find("<link rel=\"stylesheet\"") == page.npos);
  CHECK(page.find("sourceMappingURL") == page.npos);
  CHECK(page.find("Dygraph") != page.npos);
  CHECK(page.size() < 6'000'000);
  const auto run = data_in(page)["runs"][0];
  CHECK(run["name"] == "cosine");
  CHECK(run["steps"]["rows"] == 2000);
  CHECK(run["entropy"]["columns"].size() == 139);
  CHECK(run["entropy"]["points"] == 1000);
  CHECK(run["bounds"] == nlohmann::json::array({{0.0, "estimate", ""}}));
  CHECK(run["entropy_floor"]["columns"] == run["entropy"]["columns"]);
  CHECK(run["certified"]["points"] == 20);
  CHECK(run["measured"]["columns"].back() == "network");
  CHECK(run["tree"]["parts"].size() == 19);
  CHECK(run["tree"]["parts"][1]["log10_certified"].is_number());
  CHECK(!run["ledger"].contains("tree"));
  CHECK(run["best_top1"]["value"].get<double>() > 0.9);
}

TEST_CASE("report: runs that diverged, ended at once, were never evaluated or have no bound") {
  const TestFolder folder("odd");
  write_synthetic_run(folder.path / "diverged",
                      {.steps = 600, .diverges_at = 350, .unbounded = true, .lr = 1e-2, .seed = 2});
  write_synthetic_run(folder.path / "one_row", {.steps = 1});
  write_synthetic_run(folder.path / "no_eval", {.steps = 300, .evaluated = false});
  write_synthetic_run(folder.path / "old", {.steps = 50, .proven = false});
  for (const char* gone : {"ledger.json", "entropy_floor.csv", "events.csv"}) std::filesystem::remove(folder.path / "old" / gone);
  CHECK(data_in(page_of(folder, {"old"}, "old"))["runs"][0]["tree"].is_null());
  RunFolder::create(folder.path / "empty");
  write_file_atomically((folder.path / "empty" / "recipe.toml").string(), "");   // begun, and nothing more
  const auto diverged = data_in(page_of(folder, {"diverged"}, "diverged"))["runs"][0];
  CHECK(diverged["last"]["loss"] == "nan");
  CHECK(diverged["last"]["log10_bound_l2"] == "inf");
  CHECK(diverged["bounds"][0] == nlohmann::json({0.0, "unbounded", "layers.0.blocks.0.attn"}));
  CHECK(diverged["events"][1][3] == "loss is nan, \"refused\"\nupdate left out");
  CHECK(data_in(page_of(folder, {"one_row"}, "one_row"))["runs"][0]["steps"]["points"] == 1);
  CHECK(data_in(page_of(folder, {"no_eval"}, "no_eval"))["runs"][0]["best_top1"].is_null());
  CHECK(data_in(page_of(folder, {"empty"}, "empty"))["runs"][0]["steps"]["rows"] == 0);
  CHECK(data_in(page_of(folder, {"diverged", "no_eval", "one_row"}, "three"))["runs"].size() == 3);
}

TEST_CASE("report: text of a run cannot end the script it travels in; a bound too large for a float stays finite") {
  const TestFolder folder("hostile");
  const RunFolder run = RunFolder::create(folder.path / "a");
  std::ofstream(run.paths.recipe()) << "x = \"</script><script>alert(1)</script> {{data}} \xff\"\n";
  CsvTable table = CsvTable::create(run.paths.lipschitz(), {"step", "head"});
  table.add(0).add(1e200).end_row();
  const auto data = data_in(page_of(folder, {"a"}, "hostile"))["runs"][0];
  CHECK(data["recipe"].get<std::string>().find("</script><script>alert(1)</script> {{data}}") != std::string::npos);
  CHECK(data["lipschitz"]["type"] == "f64");
}

TEST_CASE("report: what is not a run is named") {
  const TestFolder folder("none");
  CHECK_THROWS_WITH_AS(write_report({folder.path / "nowhere"}, folder.path / "r.html"),
                       doctest::Contains("is not a folder"), Error);
  CHECK_THROWS_WITH_AS(write_report({folder.path}, folder.path / "r.html"), doctest::Contains("holds no run"), Error);
}

// For bench/report_page.sh, which times it in a browser; half a minute is too long for a test.
TEST_CASE("report: a long run of LipsFormer-Swin-T stays below 15 MB" * doctest::skip()) {
  const TestFolder folder("long");
  write_synthetic_run(folder.path / "long", {.steps = 20000, .steps_per_epoch = 1000, .promised = 15});
  const std::string page = page_of(folder, {"long"}, "long");
  MESSAGE("report.html: ", double(page.size()) / 1e6, " MB");
  CHECK(page.size() < 15'000'000);
}
