// figures: every figure is there in three forms, whatever the run was like, and factors taken together keep their product.
#include "train/figures.h"

#include <doctest/doctest.h>

#include "engine/check.h"
#include "engine/durable_file.h"
#include "synthetic_run.h"
#include "train/bound_factors.h"

namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

// Kept where LIPSGRAD_KEEP_REPORTS names a folder, to be looked at.
fs::path output_of(const TestFolder& folder, const std::string& name) {
  const char* keep = std::getenv("LIPSGRAD_KEEP_REPORTS");
  return (keep ? fs::path(keep) : folder.path) / name;
}

int png_width(const std::string& bytes) {   // big-endian, behind the signature and the header's name
  int width = 0;
  for (int i = 16; i < 20; i++) width = width << 8 | static_cast<unsigned char>(bytes[i]);
  return width;
}

void check_files(const fs::path& folder, const Names& names) {
  for (const std::string& name : names) {
    CAPTURE(name);
    CHECK(read_file((folder / (name + ".pdf")).string()).starts_with("%PDF-"));
    const std::string svg = read_file((folder / (name + ".svg")).string()), png = read_file((folder / (name + ".png")).string());
    CHECK(svg.starts_with("<?xml"));
    CHECK(svg.find("nan") == svg.npos);
    CHECK(png.substr(1, 3) == "PNG");
    CHECK(png_width(png) == 1020);   // 3.4 inches of 300 dots
  }
}

}  // namespace

TEST_CASE("figures: of one run, each as SVG, PDF and PNG") {
  const TestFolder folder("figures");
  write_synthetic_run(folder.path / "a", {.steps = 400, .promised = 9});
  const fs::path output = output_of(folder, "figures");
  const Names names = write_figures({folder.path / "a"}, output);
  CHECK(names == Names{"loss", "accuracy", "factors", "stretch", "promise", "norms", "entropy", "entropy_floor"});
  check_files(output, names);
}

TEST_CASE("figures: of several runs, those that diverged, have no bound or hardly began among them") {
  const TestFolder folder("figures_odd");
  write_synthetic_run(folder.path / "diverged", {.steps = 300, .diverges_at = 150, .unbounded = true});
  write_synthetic_run(folder.path / "one_row", {.steps = 1, .proven = false});
  RunFolder::create(folder.path / "empty");
  write_file_atomically((folder.path / "empty" / "recipe.toml").string(), "");
  const fs::path output = output_of(folder, "figures_odd");
  const Names names = write_figures({folder.path / "diverged", folder.path / "one_row", folder.path / "empty"}, output);
  CHECK(names == Names{"loss", "accuracy", "bound", "diverged-stretch", "diverged-norms", "diverged-entropy", "diverged-entropy_floor",
                       "one_row-factors", "one_row-norms", "one_row-entropy", "one_row-entropy_floor"});
  check_files(output, names);
  CHECK(write_figures({folder.path / "empty"}, output).empty());
}

TEST_CASE("figures: factors taken together keep their product and say what they hold") {
  std::vector<BoundFactor> factors{{"patch_embed", {1}}};
  for (int i = 0; i < 12; i++) factors.push_back({"blocks." + std::to_string(i), {double(i)}});
  factors.push_back({"head", {-2}});
  const auto groups = grouped_factors(factors, 8);
  CHECK(groups.size() == 8);
  CHECK(groups[1].name == "blocks.0-1");
  double sum = 0;
  for (const BoundFactor& group : groups) sum += group.log10_bound[0];
  CHECK(sum == 1 + 66 - 2);

  const TestFolder folder("factors");
  write_synthetic_run(folder.path / "a", {.steps = 3});
  const auto swin = grouped_factors(bound_factors(read_run(folder.path / "a")), 8);
  Names names;
  for (const BoundFactor& group : swin) names.push_back(group.name);
  CHECK(names == Names{"patch_embed", "layers.0", "layers.1", "layers.2", "layers.3", "norm", "mean_tokens", "head"});
  const double network = read_csv(folder.path / "a" / "steps.csv", {"bound_kind", "bound_blame"}).numbers("log10_bound_l2")[2];
  sum = 0;
  for (const BoundFactor& group : swin) sum += group.log10_bound[2];
  CHECK(sum == doctest::Approx(network).epsilon(1e-6));
}
