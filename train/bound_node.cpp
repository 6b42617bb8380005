// bound_node.cpp: columns of tables on the tree that ledger.json has, and what they leave for the parts without a column.
#include "train/bound_node.h"

#include <algorithm>
#include <cmath>

#include "layers/linear.h"

using nlohmann::json;

namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

// A branch is a product without a name: its factors are the parts of the sum.
void take_parts_of_branch(BoundNode& node) {
  if (node.join != BoundTree::sum || node.parts.size() != 1) return;
  BoundNode& branch = node.parts.front();
  if (branch.join != BoundTree::product || !branch.name.empty()) return;
  std::vector<BoundNode> factors = std::move(branch.parts);
  node.parts = std::move(factors);
}

// Of what is a factor of the network; what is inside a branch is none.
void note_shares(BoundNode& node, double network) {
  node.share = node.log10_bound / network;
  if (node.join == BoundTree::product)
    for (BoundNode& part : node.parts) note_shares(part, network);
}

BoundNode of_model(const BoundTree& tree) {
  BoundNode node{.name = tree.name, .kind = tree.kind, .join = tree.join, .log10_bound = double(std::log10(tree.lipschitz))};
  if (tree.join == BoundTree::sum) node.skip = tree.skip, node.weight = tree.weight;
  for (const auto& part : tree.parts) node.parts.push_back(of_model(*part));
  take_parts_of_branch(node);
  return node;
}

// One table at one row.
struct Row {
  const CsvData& table;
  std::optional<std::size_t> at;
  double log10_of(const std::string& column) const { return std::log10(number_at(table, column, at)); }
};

struct Rows {
  Row bounds, certified, measured;
};

double log10_of_parts(const BoundNode& node) {
  double sum = 0;
  for (const BoundNode& part : node.parts) sum += part.log10_bound;
  return sum;
}

// Gives a node its constant, and the one part of a product that has none what the others leave.
void settle(BoundNode& node, double log10_bound) {
  node.log10_bound = log10_bound;
  if (node.join != BoundTree::product || !std::isfinite(log10_bound)) return;
  BoundNode* open = nullptr;
  double rest = log10_bound;
  for (BoundNode& part : node.parts) {
    if (!std::isnan(part.log10_bound)) rest -= part.log10_bound;
    else if (open) return;
    else open = &part;
  }
  if (open && std::isfinite(rest)) settle(*open, rest);
}

BoundTree::Join join_of(const std::string& word) {
  return word == "sum" ? BoundTree::sum : word == "product" ? BoundTree::product : BoundTree::leaf;
}

BoundNode of_tables(const json& tree, const Rows& rows) {
  BoundNode node{.name = tree.value("name", ""), .kind = tree.value("kind", ""), .join = join_of(tree.value("join", ""))};
  if (const auto parts = tree.find("parts"); parts != tree.end() && parts->is_array())
    for (const json& part : *parts) node.parts.push_back(of_tables(part, rows));
  double own = unknown;
  if (!node.name.empty()) {
    own = rows.bounds.log10_of(node.name);
    node.log10_certified = rows.certified.log10_of(node.name);
    node.log10_measured = rows.measured.log10_of(node.name);
  } else if (node.kind == "GELU") {
    own = std::log10(gelu_lipschitz);
  }
  if (node.join == BoundTree::product && !node.parts.empty() && std::isnan(own)) own = log10_of_parts(node);
  settle(node, own);
  if (node.join == BoundTree::sum) {
    take_parts_of_branch(node);
    node.skip = tree.value("skip", 1.0);
    const double branch = log10_of_parts(node);
    if (std::isfinite(own) && std::isfinite(branch)) node.weight = std::max(0.0, (std::pow(10, own) - node.skip) / std::pow(10, branch));
  }
  return node;
}

double or_else(double value, double otherwise) { return std::isfinite(value) || std::isnan(otherwise) ? value : otherwise; }

}  // namespace

BoundNode bound_node(const BoundTree& tree) {
  BoundNode node = of_model(tree);
  note_shares(node, node.log10_bound);
  return node;
}

std::optional<BoundNode> bound_node(const RunTables& run, std::optional<std::int64_t> step) {
  if (!run.ledger.is_object() || !run.ledger.contains("tree") || !run.ledger["tree"].is_object()) return {};
  const auto row = [&](const CsvData& table) { return Row{table, row_at(table, step)}; };
  const Rows rows{row(run.lipschitz), row(run.certified), row(run.measured)};
  BoundNode root = of_tables(run.ledger["tree"], rows);
  // Above 1e308 only the logarithms are numbers.
  root.log10_bound = or_else(root.log10_bound, number_at(run.steps, "log10_bound_l2", row_at(run.steps, step)));
  root.log10_certified = or_else(root.log10_certified, number_at(run.certified, "log10_bound_l2", rows.certified.at));
  note_shares(root, root.log10_bound);
  return root;
}

double log10_naive_product(const RunTables& run, std::optional<std::int64_t> step) {
  const auto row = row_at(run.norms, step);
  double sum = unknown;
  for (const CsvColumn& column : run.norms.columns) {
    if (!column.name.starts_with("sigma.")) continue;
    sum = (std::isnan(sum) ? 0 : sum) + std::log10(number_at(run.norms, column.name, row));
  }
  return sum;
}
