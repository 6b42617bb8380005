// optimizer.h: what all update rules share: the gathered gradient, pieces of even size, clipping, the constraint and the average.
#pragma once
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/workers.h"
#include "train/constraint.h"

struct MuonOptions {
  double momentum = 0.95;                // of the moving average that is made orthogonal
  bool nesterov = true;
  double momentum_start = 0.95;          // of the first step; rises to `momentum` over momentum_steps
  int momentum_steps = 0;
  std::string coefficients = "auto";     // orthogonalize.h; auto: youjiacheng6 under a constraint, else muon5
  std::string scale = "rms";             // of an update: rms sqrt(out / in), original sqrt(max(1, out / in)), match_adamw 0.2 sqrt(max)
  bool embedding_rows = false;           // embedded tokens move by their rows' momentum at RMS 1, the dual of that norm, instead of by AdamW
  double adamw_lr = 0.015;               // AdamW's rate for all that is not Muon's, as a multiple of Muon's (1 for match_adamw)
};

struct OptimizerOptions {
  std::string name = "adamw";            // adamw, sgd, lars, lion, muon
  std::array<double, 2> betas{0.9, 0.98};   // adamw, lion, and the adamw inside muon
  double eps = 1e-8;                     // adamw, lars
  double momentum = 0.9;                 // sgd, lars
  bool nesterov = false;                 // sgd
  double trust = 1e-3;                   // lars: the trust coefficient
  double weight_decay = 0.05;            // of parameters that decay (matrices and convolutions)
  double weight_decay_1d = 5e-4;         // of all others
  double clip_grad = 5.0;                // largest global l2 norm of the gradient; 0: off
  double ema_decay = 0;                  // 0: no average is kept
  std::vector<bool> mine;                // parameters whose state and update are this process's (ZeRO-1); empty: all
  MuonOptions muon;
  ConstraintOptions constraint;
};

// The gradient of a step, summed over shards by halves (engine/comm.h).
struct GradientNorms {
  double total = 0;                  // l2 norm of all of it
  std::vector<double> parameters;    // of each parameter
};

// The numbers of some parameters packed behind one another: for state that not every parameter has.
struct Packing {
  std::vector<int64_t> at, whole_at;   // [parameter]: where its numbers begin here, and in the state of all ranks together; -1: it has none
  int64_t size = 0, whole_size = 0;    // with padding; that of the flat buffers if all parameters are in it
  // mine: those of this process; empty: all.
  Packing(const ParameterStore& store, const std::vector<bool>& parameters, const std::vector<bool>& mine);
};

class Optimizer {
 public:
  Optimizer(ParameterStore& store, const OptimizerOptions& options);
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;

  // Sums the shards' gradients into the first one's buffer and measures them. Changes no weight.
  virtual GradientNorms gather(Workers& workers) { return norms_of(squares(workers, store_.shards())); }
  // The same in two parts: the sum of squares of each of this process's parameters, summed over the first `shards` buffers; and what follows from all.
  std::vector<double> squares(Workers& workers, int shards);
  static GradientNorms norms_of(const std::vector<double>& squares);
  // One step: the rule, then the constraint, then the average.
  void update(Workers& workers, double lr, const GradientNorms& norms);
  // Brings the weights to where the constraint promises they are; update() does it before the first step.
  void project(Workers& workers);
  // What a checkpoint must hold beside weights, `steps` and `ema`, by the names it has there.
  virtual std::map<std::string, Tensor*> state();
  // How those are packed that hold numbers of this process's parameters only. The others are the same everywhere.
  virtual std::map<std::string, const Packing*> packings() const { return {}; }

  int64_t steps = 0;   // updates so far
  Tensor ema;          // flat; empty without EMA
  std::function<void()> share_weights;   // ZeRO-1: fetches what other processes have updated
  std::function<void(const Tensor&)> sum_over_ranks;   // ZeRO-1 on a device, where no host adds up the squares of gradients

 protected:
  // A stretch of one parameter: small enough that threads share the work, fixed so that sums never depend on them.
  struct Piece {
    int parameter;
    int64_t begin, end;   // in the flat buffers
    int64_t size() const { return end - begin; }
  };
  virtual void step(Workers& workers, double lr, const GradientNorms& norms) = 0;
  // The largest spectral norm that this step's change of W / sqrt(out / in) can have; nothing if the rule gives no such limit.
  virtual std::optional<double> update_norm(const WeightMatrix& matrix, double lr) const { return std::nullopt; }

  double clip_factor(double norm) const;   // as torch.nn.utils.clip_grad_norm_ has it
  double decay_of(int parameter) const;
  std::vector<Piece> pieces_of(const std::vector<bool>& parameters) const;
  std::vector<bool> mine_of(std::vector<bool> parameters) const;   // those of them that are this process's
  int64_t place(const Packing& packing, const Piece& piece) const {
    return packing.at[piece.parameter] + piece.begin - store_.parameters()[piece.parameter].offset;
  }
  // f.template operator()<T>(piece), then the piece's average if nothing changes the weights afterwards.
  template <class F> void each_piece(Workers& workers, const std::vector<Piece>& pieces, F&& f) {
    dispatch(store_.dtype(), [&]<class T>() {
      if constexpr (std::is_same_v<T, bf16>) check(false, "[optimizer] weights and gradients are kept in f32 or f64");
      else
        workers.run(int64_t(pieces.size()), [&](int64_t i) {
          f.template operator()<T>(pieces[i]);
          if (ema && averages_in_step_) average(pieces[i]);
        });
    });
  }

  ParameterStore& store_;
  const OptimizerOptions options_;
  std::vector<Piece> pieces_;       // of this process's parameters
  bool averages_in_step_;           // while a piece is in the cache; false where the weights change once more

 private:
  void average(const Piece& piece);
  std::unique_ptr<Constraint> constraint_;   // none: null
};

// A rule whose only state is one momentum for every number.
class MomentumOptimizer : public Optimizer {
 public:
  MomentumOptimizer(ParameterStore& store, const OptimizerOptions& options)
      : Optimizer(store, options), packing_(store, std::vector<bool>(store.parameters().size(), true), options.mine) {
    m_ = Tensor::zeros({packing_.size}, store.dtype());
  }
  std::map<std::string, Tensor*> state() override {
    std::map<std::string, Tensor*> all = Optimizer::state();
    all[options_.name + ".m"] = &m_;
    return all;
  }
  std::map<std::string, const Packing*> packings() const override { return {{options_.name + ".m", &packing_}}; }

 protected:
  Packing packing_;
  Tensor m_;   // packed
};

// The rule that the options name. Error(Exit::config) for a name or a combination that does not exist.
std::unique_ptr<Optimizer> make_optimizer(ParameterStore& store, const OptimizerOptions& options);

// The rules, each in its file.
std::unique_ptr<Optimizer> make_adamw(ParameterStore& store, const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_sgd(ParameterStore& store, const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_lars(ParameterStore& store, const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_lion(ParameterStore& store, const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_muon(ParameterStore& store, const OptimizerOptions& options);
