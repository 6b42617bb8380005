// training.h: a model in training: the batch split over shards, forward and backward, the guard, and the update.
#pragma once
#include <memory>
#include <optional>

#include "data/batch.h"
#include "engine/profile.h"
#include "engine/workers.h"
#include "layers/lipschitz/certified_norms.h"
#include "layers/lipschitz/spectral_weights.h"
#include "models/model.h"
#include "train/data_parallel.h"
#include "train/optimizer.h"
#include "train/recipe.h"

// The model that a recipe describes; its parameters laid out, not yet drawn.
std::unique_ptr<Model> build_model(const Recipe& recipe);
DType recipe_dtype(const Recipe& recipe);
Device recipe_device(const Recipe& recipe);
// The type in which a recipe's weights and gradients are kept: f64 for f64, else f32.
DType master_dtype(const Recipe& recipe);
int recipe_threads(const Recipe& recipe);
OptimizerOptions optimizer_options(const Recipe& recipe);

// One batch as the model takes it: raw pixels with what is still to be done to them, or images that are already normalised.
struct Input {
  Tensor pixels;            // u8 [B, H, W, C]
  PixelPlan plan;
  Tensor images;            // or [B, C, H, W], normalised
  Tensor targets;           // [B, K]; rows of zeros do not count
  Tensor tokens, labels;    // or a text: i32 [B, T]; a label of -1 does not count
  int64_t valid = 0;        // rows of logits that count
  Tensor staged_plan;       // the plan as a GPU reads it; empty: it is taken from `plan`
  Input to(Device device) const;
  const Tensor& samples() const { return tokens ? tokens : pixels ? pixels : images; }
  int64_t count() const { return samples().dim(0); }
};
// first_sample: images of the same step that came before this batch.
Input make_input(const Batch& batch, const Recipe& recipe, uint32_t step, int64_t first_sample, bool training);

// What each row of logits of samples [first, first + count) should say; -1: nothing.
std::vector<int64_t> labels_of(const Input& batch, int64_t first, int64_t count, int64_t classes);

// What a step was made of and what came out of it, before the update.
struct StepResult {
  double loss = 0;               // mean over the images that count
  GradientNorms gradient;
  EntropySums entropies;         // divide by samples for the means
  int64_t images = 0;
};

struct EvalResult {
  double loss = 0, top1 = 0, top5 = 0;   // means
  int64_t images = 0;
};

// How a forward is meant. deterministic: statistics over the batch as in training, but nothing dropped.
enum class Pass { training, deterministic, evaluation };

class DeviceStep;

class Training {
 public:
  // for_training = false: no gradients and no optimizer, for evaluation. comm: of several ranks, each with a training of the same recipe.
  Training(const Recipe& recipe, bool for_training, std::shared_ptr<Communicator> comm = nullptr);
  ~Training();

  // A whole step: the gradients, then the update. `between` sees what came out while the host's weights are still those of before; if it throws,
  // nothing has moved. On a GPU the update has happened by then unless a gradient was not finite; `meanwhile` is what the host does while it
  // computes. The CPU has no such time and does not call it.
  StepResult step(const std::vector<Input>& batches, uint32_t number, double lr, const std::function<void(const StepResult&)>& between,
                  const std::function<void()>& meanwhile = {});
  // Starts the way of a later step's batches to the GPU.
  void send_ahead(const std::vector<Input>& batches);
  // Forward and backward of one optimizer step (several batches are accumulated), summed over shards and ranks; the batches are this rank's shares.
  // Changes no weight.
  StepResult gradients(const std::vector<Input>& batches, uint32_t step, Pass pass = Pass::training);
  void update(double lr, const StepResult& result) { optimizer->update(workers, lr, result.gradient); }
  // If the loss or a gradient of that result is not finite: the op and layer where it first appeared.
  NonFinite first_non_finite(const std::vector<Input>& batches, uint32_t step);
  // The first thing that a fresh run does if it has parts.residual "admin"; otherwise it changes nothing.
  void initialise_admin(const Input& batch);
  // The ops of gradients() for one batch, on this thread, all as one shard and without computing: for whoever has a Profile open.
  void dry_step(const Input& batch);

  // Patch rows (or tokens) of samples [first, first + count) of a batch, in the type of activations unless another is given.
  Tensor input_of(const Input& batch, int64_t first, int64_t count, std::optional<DType> dtype = {}) const;
  Mode evaluation_mode() const { return mode_of(Pass::evaluation, 0, 0); }
  // Logits of a whole batch at once, in the dtype of activations, by all cores.
  Tensor logits(const Input& batch, Pass pass = Pass::evaluation);
  // The largest stretch (l2) that an ascent from the first recipe.ledger.measure_samples of a batch finds of each stage, and last of the network, in
  // evaluation; a text's network begins behind its embedding, whose own column is nan.
  std::vector<double> stretches(const Input& batch);
  // Adds the sums (not means) of a batch, of this rank alone; logits [B, K] in f32 if asked for.
  void evaluate(const Input& batch, EvalResult& sums, Tensor* logits = nullptr);

  const Recipe recipe;
  std::unique_ptr<Model> model;
  Workers workers;
  const Device device;
  std::unique_ptr<SpectralNorms> norms;
  std::unique_ptr<CertifiedNorms> certified;
  std::unique_ptr<SpectralWeights> spectral;
  double temperature;   // all attention logits are divided by it too: the schedule's; the trainer changes it when its time comes
  std::unique_ptr<DataParallel> parallel;
  std::unique_ptr<Optimizer> optimizer;
  std::map<std::string, OpCost>* profile = nullptr;   // if set, gradients() and evaluate() add their costs here
  size_t arena_bytes() const;

 private:
  struct Range {
    int64_t begin, end;
  };
  Range shard_range(int64_t count, int shard) const;
  int64_t micro_batch(int64_t in_shard, Pass pass) const;
  void add_costs(const std::vector<std::map<std::string, OpCost>>& shards);
  Mode mode_of(Pass pass, uint32_t step, int64_t first_sample) const;
  EntropySums no_entropies() const;
  Tensor loss_of(const Tensor& logits, const Input& batch, int64_t first, int64_t count, double weight) const;
  // One shard's part of one batch; returns its part of the loss.
  double run_shard(const Input& batch, int shard, double weight, Pass pass, const Mode& mode, EntropySums& entropies, bool last = false);
  // Losses and entropies of all shards of all ranks, added in their order.
  void add_shards(StepResult& result, const std::vector<double>& losses, const std::vector<EntropySums>& entropies);

  std::vector<std::unique_ptr<Arena>> arenas_;   // one a shard
  std::unique_ptr<Communicator> device_comm_;    // of several GPUs
  std::unique_ptr<DeviceStep> device_step_;      // on a GPU
  friend class DeviceStep;
};
