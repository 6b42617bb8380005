// bound_factors.h: the stages whose constants multiply to a network's bound, over the steps of a run.
#pragma once
#include <string>
#include <vector>

#include "train/run_tables.h"

struct BoundFactor {
  std::string name;
  std::vector<double> log10_bound;   // a row of lipschitz.csv each
};

// The named parts of the tree in ledger.json that have a column; none without a tree.
std::vector<BoundFactor> bound_factors(const RunTables& run);
// Neighbours taken together until at most `most` are left where that can be: first those of one "layers.N", then runs of "blocks.N".
std::vector<BoundFactor> grouped_factors(std::vector<BoundFactor> factors, std::size_t most);
