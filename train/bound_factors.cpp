// bound_factors.cpp: columns of lipschitz.csv by the tree of ledger.json, and neighbours put together.
#include "train/bound_factors.h"

#include <algorithm>
#include <cmath>

namespace {

// "layers.2" of "layers.2.blocks.3", and any other name as it stands.
std::string family(const std::string& name) {
  const std::size_t first = name.find('.'), second = name.find('.', first == name.npos ? first : first + 1);
  return second == name.npos ? name : name.substr(0, second);
}

// Puts neighbours together of which `together` says so; `named` gives the name of the first and last of them.
template <class Together, class Named> std::vector<BoundFactor> merged(const std::vector<BoundFactor>& factors, Together&& together, Named&& named) {
  std::vector<BoundFactor> out;
  for (std::size_t i = 0, first = 0; i < factors.size(); i++) {
    if (i > first && together(first, i)) {
      for (std::size_t k = 0; k < factors[i].log10_bound.size(); k++) out.back().log10_bound[k] += factors[i].log10_bound[k];
      out.back().name = named(factors[first].name, factors[i].name);
    } else {
      out.push_back(factors[i]);
      first = i;
    }
  }
  return out;
}

}  // namespace

std::vector<BoundFactor> bound_factors(const RunTables& run) {
  std::vector<BoundFactor> factors;
  if (!run.ledger.is_object() || !run.ledger.contains("tree") || !run.ledger["tree"].is_object()) return factors;
  for (const auto& part : run.ledger["tree"].value("parts", nlohmann::json::array())) {
    const std::string name = part.value("name", "");
    std::vector<double> values = name.empty() ? std::vector<double>() : run.lipschitz.numbers(name);
    if (values.empty()) continue;
    for (double& v : values) v = std::log10(v);
    factors.push_back({name, std::move(values)});
  }
  return factors;
}

std::vector<BoundFactor> grouped_factors(std::vector<BoundFactor> factors, std::size_t most) {
  if (factors.size() <= most) return factors;
  factors = merged(factors, [&](std::size_t first, std::size_t i) { return family(factors[first].name) == family(factors[i].name); },
                   [](const std::string& first, const std::string&) { return family(first); });
  const std::vector<BoundFactor> single = factors;
  const auto word = [&](std::size_t i) { return single[i].name.substr(0, single[i].name.find('.')); };
  const auto number = [](const std::string& name) { return name.substr(name.rfind('.') + 1); };
  for (std::size_t size = 2; factors.size() > most && size <= single.size(); size++)
    factors = merged(single, [&](std::size_t first, std::size_t i) { return i - first < size && word(i) == word(first); },
                     [&](const std::string& first, const std::string& last) { return first + "-" + number(last); });
  return factors;
}
