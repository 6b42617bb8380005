// tree_text.h: the bound as a tree in the terminal, or as JSON.
#pragma once
#include <functional>

#include "train/bound_node.h"

struct TreeView {
  std::string sort = "";                                 // siblings by: bound, name; else in the order of the model
  std::function<bool(const std::string&)> keeps = {};    // of names: what is kept comes with its ancestors; empty: all
  int depth = 0;                                         // levels under the network; 0 for all
};

// One line a node: name, kind or formula, constant, share of the network's log10 bound; where any is known certified, measured and their ratio.
std::string tree_text(BoundNode root, const TreeView& view);
// {"name", "kind", "join", "log10_bound", "unbounded", "share", "skip", "weight", "log10_certified", "log10_measured", "parts"}, null for what is not known.
nlohmann::json tree_json(BoundNode root, const TreeView& view);

// 10^x in four digits, however large: "12.35", "1.235e+400", "unbounded", "-" for nan.
std::string power_of_ten(double x);
// Larger first; nan comes last.
bool above(double a, double b);
