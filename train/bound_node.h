// bound_node.h: the bound of a network as a tree of numbers, from a model in memory or from the tables of a run.
#pragma once
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "layers/lipschitz/bound.h"
#include "train/run_tables.h"

// A layer, or a part of one. Its constant is the product of its parts, of a sum skip + weight times that product; constants are decimal
// logarithms, infinite where there is no bound and nan where none is known.
struct BoundNode {
  std::string name, kind;
  BoundTree::Join join = BoundTree::leaf;
  double log10_bound = std::numeric_limits<double>::quiet_NaN();
  double skip = 0, weight = std::numeric_limits<double>::quiet_NaN();   // of a sum
  double share = std::numeric_limits<double>::quiet_NaN();   // of the network's log10 bound; only of what is a factor of it
  double log10_certified = std::numeric_limits<double>::quiet_NaN();
  double log10_measured = std::numeric_limits<double>::quiet_NaN();
  std::vector<BoundNode> parts;
};

// Of a model as it stands.
BoundNode bound_node(const BoundTree& tree);
// As a run's tables have it at a step, the last one unless given: lipschitz.csv on the tree of ledger.json, certified.csv and measured.csv where they
// are. Parts without a column get what their layer leaves for them. Nothing where ledger.json has no tree.
std::optional<BoundNode> bound_node(const RunTables& run, std::optional<std::int64_t> step);
// log10 of the product of all sigma.* of norms.csv: no bound of a network with residuals or attention; nan where there are none.
double log10_naive_product(const RunTables& run, std::optional<std::int64_t> step);
