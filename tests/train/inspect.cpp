// inspect: the tables of a run and its bound as a tree, as text and as JSON.
#include "train/inspect.h"

#include <cmath>

#include <fmt/format.h>

#include "engine/check.h"
#include "synthetic_run.h"
#include "tiny_run.h"
#include "train/ledger.h"
#include "train/model_bounds.h"
#include "train/tree_text.h"

namespace {

using nlohmann::json;

json inspected(const fs::path& run, InspectOptions options = {}) {
  options.json = true;
  return json::parse(inspect_run(run, options));
}

// f(node) of every node, ancestors first.
void walk(const json& node, const std::function<void(const json&)>& f) {
  f(node);
  for (const json& part : node.value("parts", json::array())) walk(part, f);
}

std::vector<std::string> names_of(const json& parts) {
  std::vector<std::string> names;
  for (const json& part : parts) names.push_back(part["name"]);
  return names;
}

bool equal_trees(const BoundNode& a, const BoundNode& b) {
  bool equal = a.name == b.name && a.kind == b.kind && a.join == b.join && a.parts.size() == b.parts.size();
  equal = equal && std::abs(a.log10_bound - b.log10_bound) < 1e-6 && (a.join != BoundTree::sum || std::abs(a.weight - b.weight) < 1e-5);
  if (!equal) MESSAGE(a.name, " ", a.kind, " ", a.log10_bound, " x ", a.weight, " against ", b.name, " ", b.kind, " ", b.log10_bound, " x ", b.weight);
  for (size_t i = 0; equal && i < a.parts.size(); i++) equal = equal_trees(a.parts[i], b.parts[i]);
  return equal;
}

}  // namespace

TEST_CASE("inspect: overview, layers and heads, as text and as JSON") {
  const TestFolder folder("inspect");
  write_synthetic_run(folder.path / "a", {.steps = 300});
  write_synthetic_run(folder.path / "b", {.steps = 300, .diverges_at = 200, .unbounded = true});
  const std::string text = inspect_run(folder.path / "a", {.filter = "^layers\\.0"});
  CHECK(text.starts_with("a\n  step 299   epoch 2   images 19200\n"));
  CHECK(text.find("layers.0.blocks.1.attn ") != text.npos);
  CHECK(text.find("layers.1.blocks.1") == text.npos);
  CHECK(text.find("▇") != text.npos);
  CHECK(text.find("more (--limit 0") != text.npos);
  CHECK(inspect_run(folder.path / "a", {.filter = "attn[", .limit = 0}).find("layers.0") == std::string::npos);

  const auto all = json::parse(inspect_run(folder.path / "a", {.sort = "norm", .step = 150, .json = true}));
  CHECK(all["step"] == 150);
  CHECK(all["top1"].is_number());
  CHECK(all["heads"].size() == 138);
  CHECK(all["layers"][0]["spectral_norm"] >= all["layers"][1]["spectral_norm"]);
  double largest = 0;
  for (const CsvColumn& column : read_csv(folder.path / "a" / "norms.csv").columns) {
    if (column.name.starts_with("sigma.")) largest = std::max(largest, column.numbers[150]);
  }
  CHECK(all["layers"][0]["spectral_norm"] == largest);

  const std::string lost = inspect_run(folder.path / "b", {});
  CHECK(lost.find("loss not a number") != lost.npos);
  CHECK(lost.find("unbounded, because of layers.0.blocks.0.attn") != lost.npos);
  CHECK_THROWS_WITH_AS(inspect_run(folder.path / "a", {.sort = "size"}), doctest::Contains("bound, norm or name"),
                       Error);
  CHECK_THROWS_WITH_AS(inspect_run(folder.path / "a", {.step = -5}), doctest::Contains("before the first step"),
                       Error);
}

TEST_CASE("inspect: constants of the tree are products and sums of their parts, parts without a column included") {
  const TestFolder folder("tree");
  write_synthetic_run(folder.path / "a", {.steps = 300});
  const json all = inspected(folder.path / "a"), tree = all["tree"];
  CHECK(tree["name"] == "network");
  CHECK(tree["parts"].size() == 19);
  double shares = 0;
  for (const json& stage : tree["parts"]) shares += stage["share"].get<double>();
  CHECK(shares == doctest::Approx(1));
  int sums = 0, solved = 0;
  walk(tree, [&](const json& node) {
    CAPTURE(node["name"].get<std::string>());
    if (node["join"] == "leaf") {
      solved += node["name"] == "" && node["kind"] == "";
      CHECK(node["log10_bound"].is_number());
      return;
    }
    double product = 0;
    for (const json& part : node["parts"]) product += part["log10_bound"].get<double>();
    if (node["join"] == "sum") product = std::log10(node["skip"].get<double>() + node["weight"].get<double>() * std::pow(10, product)), sums++;
    CHECK(node["log10_bound"].get<double>() == doctest::Approx(product));
  });
  CHECK(sums == 48);
  CHECK(solved == 1 + 12 * 3);   // the patch embedding's convolution; of each block two convolutions and the attention's map

  double naive = 0;
  for (const CsvColumn& column : read_csv(folder.path / "a" / "norms.csv").columns)
    if (column.name.starts_with("sigma.")) naive += std::log10(column.numbers.back());
  CHECK(all["log10_naive_product"].get<double>() == doctest::Approx(naive));
  CHECK(all["heads"][0]["entropy_floor"].is_number());
}

TEST_CASE("inspect: the tree as lines, certified beside measured, with their ratio") {
  const TestFolder folder("tree_lines");
  write_synthetic_run(folder.path / "a", {.steps = 300});
  const std::string text = inspect_run(folder.path / "a", {.depth = 3});
  for (const char* part : {"no bound of a network with residuals and attention", "├─ layers.0.blocks.0", "│  ├─ scale_layers.0", "└─ head",
                           "│  │  └─ GELU", " x f", "100.0 %"})
    CHECK_MESSAGE(text.find(part) != text.npos, part);
  // A block's certificate is 1.012 times its estimate, and what was measured 0.45 times.
  const json block = inspected(folder.path / "a")["tree"]["parts"][1];
  const double bound = block["log10_bound"], certified = block["log10_certified"], measured = block["log10_measured"];
  CHECK(std::pow(10, certified - bound) == doctest::Approx(1.012));
  CHECK(std::pow(10, certified - measured) == doctest::Approx(1.012 / 0.45));
  CHECK(text.find(fmt::format("{:.3f}", 1.012 / 0.45)) != text.npos);

  const std::string shallow = inspect_run(folder.path / "a", {.depth = 1});
  CHECK(shallow.find("└─ head") != shallow.npos);
  CHECK(shallow.find("scale_layers.0 ") == shallow.npos);
}

TEST_CASE("inspect: the tree sorted within siblings, filtered with ancestors, at another step") {
  const TestFolder folder("tree_view");
  write_synthetic_run(folder.path / "a", {.steps = 300});
  const json sorted = inspected(folder.path / "a", {.sort = "bound"})["tree"];
  walk(sorted, [](const json& node) {
    const json parts = node.value("parts", json::array());
    for (size_t i = 1; i < parts.size(); i++) CHECK(parts[i - 1]["log10_bound"].get<double>() >= parts[i]["log10_bound"].get<double>());
  });
  const json named = inspected(folder.path / "a", {.sort = "name"})["tree"];
  CHECK(names_of(named["parts"]).front() == "head");

  const json kept = inspected(folder.path / "a", {.filter = "blocks.1.mlp.fc1"})["tree"];
  CHECK(names_of(kept["parts"]) == std::vector<std::string>{"layers.0.blocks.1", "layers.1.blocks.1", "layers.2.blocks.1", "layers.3.blocks.1"});
  CHECK(names_of(kept["parts"][0]["parts"]) == std::vector<std::string>{"layers.0.blocks.1.alpha2"});
  CHECK(inspected(folder.path / "a", {.filter = "no such layer"})["tree"].is_null());

  const json early = inspected(folder.path / "a", {.step = 50})["tree"];
  const CsvData steps = read_csv(folder.path / "a" / "steps.csv", {"bound_kind", "bound_blame"});
  CHECK(early["log10_bound"].get<double>() == doctest::Approx(steps.numbers("log10_bound_l2")[50]).epsilon(1e-6));
  CHECK(early["log10_certified"].is_null());   // the first evaluation is at step 99
}

TEST_CASE("inspect: runs without a tree, proofs, floors or bounds are shown as far as they go") {
  const TestFolder folder("tree_missing");
  write_synthetic_run(folder.path / "old", {.steps = 120, .proven = false});
  for (const char* gone : {"ledger.json", "entropy_floor.csv"}) fs::remove(folder.path / "old" / gone);
  const json old = inspected(folder.path / "old");
  CHECK(old["tree"].is_null());
  CHECK(old["heads"][0]["entropy_floor"].is_null());
  CHECK(inspect_run(folder.path / "old", {}).find("certified") == std::string::npos);

  write_synthetic_run(folder.path / "open", {.steps = 120, .unbounded = true});
  const json open = inspected(folder.path / "open")["tree"];
  CHECK(open["unbounded"] == true);
  CHECK(open["parts"][1]["parts"][2]["name"] == "layers.0.blocks.0.alpha1");
  CHECK(open["parts"][1]["parts"][2]["unbounded"] == true);
  CHECK(open["parts"][1]["parts"][2]["weight"].is_null());
  const std::string text = inspect_run(folder.path / "open", {.depth = 0});
  CHECK(text.find("1 + a x f") != text.npos);
}

TEST_CASE("inspect: a run's tables give the tree that its model has") {
  ScratchFolder scratch;
  const RunPaths paths{scratch / "run"};
  Training training(tiny_recipe("unused"), true);
  BoundNode model;
  {
    const RunFolder run = RunFolder::create(paths.root);
    Ledger ledger(run.paths, training);
    StepResult result;
    result.entropies = {std::vector<double>(training.model->heads(), 1.0), std::vector<InputSquares>(training.model->attentions().size()), 1};
    result.gradient.parameters.resize(training.model->store.parameters().size());
    ledger.before_update(0, result);
    ledger.step({.step = 0}, result);
    model = bound_node(*bound_model(training, *training.norms).network.tree);
  }
  const auto tables = bound_node(read_run(paths.root), {});
  REQUIRE(tables);
  CHECK(equal_trees(model, *tables));
}
