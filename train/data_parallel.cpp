// data_parallel.cpp: what ranks tell each other beside gradients, and who keeps what.
#include "train/data_parallel.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>

#include "train/build_info.h"
#include "train/muon.h"

namespace {

std::vector<Part> one_of_each(int64_t n, int ranks) {
  std::vector<Part> parts;
  for (int r = 0; r < ranks; r++) parts.push_back({n * r, n * (r + 1), r});
  return parts;
}

std::vector<std::string> gather_texts(Communicator& comm, const std::string& mine, const std::string& what) {
  Tensor lengths = Tensor::zeros({comm.size}, DType::f64);
  lengths.data<double>()[comm.rank] = double(mine.size());
  comm.wait(comm.all_gather(lengths, one_of_each(1, comm.size), "the lengths of " + what));
  std::vector<Part> parts;
  int64_t total = 0;
  for (int r = 0; r < comm.size; r++) {
    parts.push_back({total, total + int64_t(lengths.data<double>()[r]), r});
    total = parts.back().end;
  }
  std::vector<std::string> all(comm.size);
  if (total == 0) return all;
  const Tensor text = Tensor::empty({total}, DType::u8);
  std::memcpy(text.raw() + parts[comm.rank].begin, mine.data(), mine.size());
  comm.wait(comm.all_gather(text, parts, what));
  for (const Part& part : parts) all[part.owner].assign(text.raw() + part.begin, size_t(part.size()));
  return all;
}

Tensor on_host(const Tensor& x) { return x.device() == Device{} ? x : x.to(Device{}); }

void spread(std::vector<int>& owners, std::vector<int> parameters, const std::vector<double>& cost, int ranks) {
  std::stable_sort(parameters.begin(), parameters.end(), [&](int a, int b) { return cost[a] > cost[b]; });
  std::vector<double> load(ranks);
  for (const int p : parameters) {
    owners[p] = int(std::min_element(load.begin(), load.end()) - load.begin());
    load[owners[p]] += cost[p];
  }
}

}  // namespace

std::vector<int> spread_parameters(const ParameterStore& store, const OptimizerOptions& options, int ranks) {
  const std::vector<bool> muons = options.name == "muon" ? owned_by_muon(store, options.muon) : std::vector<bool>(store.parameters().size());
  std::vector<int> owners(store.parameters().size()), matrices, others;
  std::vector<double> cost(owners.size());
  for (size_t p = 0; p < owners.size(); p++) {
    const ParameterInfo& info = store.parameters()[p];
    cost[p] = double(info.size());
    if (muons[p] && info.kind == ParameterKind::matrix) {
      const int64_t rows = info.shape[0] / info.row_groups, columns = info.size() / std::max<int64_t>(1, info.shape[0]);
      cost[p] *= double(std::min(rows, columns));
    }
    (muons[p] ? matrices : others).push_back(int(p));
  }
  spread(owners, matrices, cost, ranks);
  spread(owners, others, cost, ranks);
  return owners;
}

void check_same_start(Communicator& comm, const Recipe& recipe, bool resumes) {
  if (comm.size == 1) return;
  const std::string mine = str(std::hash<std::string>()(to_toml(recipe)), resumes ? " resumed " : " ", build_info::version);
  const std::vector<std::string> all = gather_texts(comm, mine, "what was started");
  for (int r = 1; r < comm.size; r++)
    if (all[r] != all[0]) fail(Exit::config, "ranks 0 and ", r, " were started with different recipes or binaries: give all the same ones");
  const int batch_size = recipe.data.batch_size;
  if (batch_size % comm.size != 0)
    fail(Exit::config, "data.batch_size ", batch_size, " is that of all ranks together and ", comm.size, " ranks do not divide it");
  if (recipe.run.shards > batch_size / comm.size)
    fail(Exit::config, "run.shards ", recipe.run.shards, " is more than the ", batch_size / comm.size, " images that each of ", comm.size,
         " ranks has of data.batch_size ", batch_size, ": each part of a batch needs an image");
}

DataParallel::DataParallel(std::shared_ptr<Communicator> comm, ParameterStore& store, const OptimizerOptions& options, bool zero)
    : comm_(comm ? std::move(comm) : solo_communicator()), of_weights_(comm_.get()), store_(store) {
  if (size() == 1) return;
  if (zero) owners_ = spread_parameters(store, options, size());
  if (store.shards() > 0) buckets = std::make_unique<GradientBuckets>(store, *comm_, owners_);
}

void DataParallel::move_to(Communicator& of_device) {
  of_weights_ = &of_device;
  buckets = std::make_unique<GradientBuckets>(store_, of_device, owners_);
}

std::vector<bool> DataParallel::mine() const {
  std::vector<bool> mine(store_.parameters().size(), true);
  for (size_t p = 0; p < owners_.size(); p++) mine[p] = owners_[p] == rank();
  return mine;
}

std::vector<double> DataParallel::gather(const std::vector<double>& mine, const std::string& what) {
  if (size() == 1 || mine.empty()) return mine;
  const int64_t n = int64_t(mine.size());
  const Tensor all = Tensor::zeros({n * size()}, DType::f64);
  std::copy(mine.begin(), mine.end(), all.data<double>() + n * rank());
  comm_->wait(comm_->all_gather(all, one_of_each(n, size()), what));
  return all.values();
}

double DataParallel::sum(double mine, const std::string& what) {
  const std::vector<double> all = gather({mine}, what);
  return std::accumulate(all.begin(), all.end(), 0.0);
}

std::vector<std::string> DataParallel::gather_text(const std::string& mine, const std::string& what) {
  return size() == 1 ? std::vector{mine} : gather_texts(*comm_, mine, what);
}

void DataParallel::check_same(const std::string& mine, const std::string& what) {
  const std::vector<std::string> all = gather_text(mine, what);
  for (size_t r = 1; r < all.size(); r++)
    if (all[r] != all[0]) fail(Exit::config, what, ": rank 0 has ", all[0], ", rank ", r, " has ", all[r], ": give all ranks the same");
}

void DataParallel::share_buffers() {
  if (size() == 1 || store_.buffers().empty()) return;
  comm_->wait(comm_->broadcast(store_.raw_buffer_values(), 0, "the buffers"));
  store_.host_changed_buffers();
}

void DataParallel::share(std::vector<double>& of_parameters, const std::string& what) {
  if (owners_.empty()) return;
  const std::vector<double> all = gather(of_parameters, what);
  for (size_t p = 0; p < of_parameters.size(); p++) of_parameters[p] = all[size_t(owners_[p]) * of_parameters.size() + p];
}

void DataParallel::share_weights() {
  if (owners_.empty()) return;
  of_weights_->wait(of_weights_->all_gather(store_.values_in_use(), parts_of(store_, owners_, 0, int(owners_.size()), 0), "the weights"));
}

Tensor DataParallel::whole(const Tensor& state, const Packing& packing, const std::string& what) {
  if (owners_.empty()) return state;
  const Tensor packed = on_host(state);
  const Tensor all = Tensor::zeros({packing.whole_size}, store_.dtype());
  std::vector<Part> parts;
  for (size_t p = 0; p < owners_.size(); p++) {
    if (packing.whole_at[p] < 0) continue;
    const int64_t n = store_.parameters()[p].size();
    parts.push_back({packing.whole_at[p], packing.whole_at[p] + n, owners_[p]});
    if (packing.at[p] >= 0) std::memcpy(all.slice(packing.whole_at[p], n).raw(), packed.slice(packing.at[p], n).raw(), size_t(n) * size_of(store_.dtype()));
  }
  comm_->wait(comm_->all_gather(all, parts, what));
  return all;
}

void DataParallel::take_mine(const Tensor& whole, const Packing& packing, const Tensor& state) const {
  const Tensor packed = on_host(state);
  for (size_t p = 0; p < packing.at.size(); p++) {
    if (packing.at[p] < 0) continue;
    const int64_t n = store_.parameters()[p].size();
    std::memcpy(packed.slice(packing.at[p], n).raw(), whole.slice(packing.whole_at[p], n).raw(), size_t(n) * size_of(store_.dtype()));
  }
  if (state.device() != Device{}) state.copy_from(packed);
}
