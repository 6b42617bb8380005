// statistics_history.cpp: reads the newest row of each window after each step.
#include "train/statistics_history.h"

#include "layers/normality.h"

StatisticsHistory::StatisticsHistory(const ParameterStore& store) : store_(store) {
  const auto find = [&](const std::string& name) {
    for (size_t i = 0; i < store.buffers().size(); i++)
      if (store.buffers()[i].name == name) return int(i);
    return -1;
  };
  for (const BufferInfo& info : store.buffers()) {
    const std::string suffix = ".buffer_x2";
    if (!info.name.ends_with(suffix)) continue;
    const std::string layer = info.name.substr(0, info.name.size() - suffix.size());
    const int iters = find(layer + ".iters");
    series_.push_back({"activation." + layer, find(info.name), iters, {}});
    series_.push_back({"gradient." + layer, find(layer + ".buffer_gz"), iters, {}});
  }
}

void StatisticsHistory::note() {
  for (Series& s : series_) {
    const Tensor windows = store_.raw_buffer(s.buffer);   // [M, C]
    const int64_t newest = int64_t(store_.raw_buffer(s.iters).item()) % windows.dim(0);
    s.rows.push_back(windows.slice(newest, 1).values());
    if (int64_t(s.rows.size()) > window) s.rows.pop_front();
  }
}

std::vector<std::string> StatisticsHistory::columns() const {
  std::vector<std::string> names;
  for (const Series& s : series_) names.push_back(s.column);
  return names;
}

std::vector<double> StatisticsHistory::pnac() const {
  std::vector<double> shares;
  for (const Series& s : series_) {
    std::vector<double> all;
    for (const auto& row : s.rows) all.insert(all.end(), row.begin(), row.end());
    shares.push_back(::pnac(Tensor::from(Shape{int64_t(s.rows.size()), int64_t(s.rows[0].size())}, all, DType::f64)));
  }
  return shares;
}
