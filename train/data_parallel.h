// data_parallel.h: one training on several ranks: its share of each batch, the small numbers that ranks tell each other, and ZeRO-1.
//
// data.batch_size is that of all ranks together. Each has the whole model, takes an even share of every batch, and ends every step with the same weights:
// gradients are summed in one stated order (comm.h), so that n ranks of s shards equal one process of n * s shards bit for bit, where n is a power of two
// and nothing mixes images across shares. With zero = 1 (ZeRO-1, as DeepSpeed and torch's ZeroRedundancyOptimizer have it) the optimizer's state of a
// parameter, its summed gradient and its update live at one rank only; the weights are gathered afterwards.
#pragma once
#include "train/gradient_buckets.h"
#include "train/optimizer.h"
#include "train/recipe.h"

class DataParallel {
 public:
  // comm: null for a single process.
  DataParallel(std::shared_ptr<Communicator> comm, ParameterStore& store, const OptimizerOptions& options, bool zero);

  int rank() const { return comm_->rank; }
  int size() const { return comm_->size; }
  bool leads() const { return rank() == 0; }   // the one that prints and writes the run folder
  const std::vector<int>& owners() const { return owners_; }   // of each parameter under ZeRO-1; else none
  std::vector<bool> mine() const;                              // the parameters that this rank updates
  Communicator& comm() { return *comm_; }

  // Each rank's numbers, in the order of ranks; as many from each.
  std::vector<double> gather(const std::vector<double>& mine, const std::string& what);
  double sum(double mine, const std::string& what);
  bool any(bool mine, const std::string& what) { return sum(mine, what) > 0; }
  std::vector<std::string> gather_text(const std::string& mine, const std::string& what);
  void meet(const std::string& what) { comm_->wait(comm_->barrier(what)); }   // nobody goes on before all are there
  void await_first(const std::string& what) { comm_->wait(comm_->barrier(what, true)); }   // behind something that the first rank does alone
  // Error(Exit::config) that begins with `what` where not all ranks say the same.
  void check_same(const std::string& mine, const std::string& what);
  void share_buffers();   // every rank goes on from the first one's

  // Gradients and weights lie on a device, where this communicator, which must outlive this object's use, finds them.
  void move_to(Communicator& of_device);

  // ZeRO-1: a number of each parameter from its owner; all weights from their owners; a packed tensor of state as a whole, and back.
  void share(std::vector<double>& of_parameters, const std::string& what);
  void share_weights();
  void add_up(const Tensor& x, const std::string& what) { of_weights_->wait(of_weights_->all_reduce(x, what)); }   // where the weights are
  Tensor whole(const Tensor& state, const Packing& packing, const std::string& what);
  void take_mine(const Tensor& whole, const Packing& packing, const Tensor& state) const;

  std::unique_ptr<GradientBuckets> buckets;   // null for a single process

 private:
  std::shared_ptr<Communicator> comm_;
  Communicator* of_weights_;
  ParameterStore& store_;
  std::vector<int> owners_;
};

// Who keeps which parameter under ZeRO-1: whole parameters, largest first, each to the rank with least so far. Muon's matrices are balanced among
// themselves by what their orthogonalisation costs, size times smaller side; everything else by size.
std::vector<int> spread_parameters(const ParameterStore& store, const OptimizerOptions& options, int ranks);

// Error(Exit::config) where not all ranks were started with the same recipe and the same binary, or the batch cannot be shared evenly.
void check_same_start(Communicator& comm, const Recipe& recipe, bool resumes);
