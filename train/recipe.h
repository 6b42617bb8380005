// recipe.h: all that can be chosen about a run: defaults first, then what each key may be and what it means.
#pragma once
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

// What a value may be. For a list it holds for every entry.
struct Limit {
  double least = -std::numeric_limits<double>::infinity(), most = std::numeric_limits<double>::infinity();
  bool above = false, below = false;    // the ends themselves are excluded
  std::vector<std::string> choices{};  // for words: the only ones
};
inline Limit anything() { return {}; }
inline Limit at_least(double least) { return {.least = least}; }
inline Limit above(double least) { return {.least = least, .above = true}; }
inline Limit above_up_to(double least, double most) { return {.least = least, .most = most, .above = true}; }
inline Limit between(double least, double most) { return {.least = least, .most = most}; }
inline Limit below(double most) { return {.least = 0, .most = most, .below = true}; }
inline Limit one_of(std::vector<std::string> choices) { return {.choices = std::move(choices)}; }

struct ModelRecipe {
  std::string family = "swin";
  int img_size = 224, patch_size = 4, in_chans = 3, num_classes = 1000;
  int embed_dim = 96;
  std::vector<int> depths{2, 2, 6, 2}, num_heads{3, 6, 12, 24};
  int window_size = 7;
  double mlp_ratio = 4.0, drop_path_rate = 0.2;
  bool shift_windows = true;
  std::string norm_position = "pre";
  bool conv_branches = false;
  std::vector<int> stripe_widths{1, 2, 7, 7};
  int token_dim = 64;
  std::string pool = "token";
  bool qkv_bias = true, bias = true, merge_bias = false;
  int vocab_size = 0, context = 0;
  double rotary_base = 10000.0, logit_scale = 1.0;
  int rotary_still = 0;

  static void each_key(auto& model, auto&& key) {
    key("family", model.family, one_of({"swin", "cswin", "vit", "t2t_vit", "mlp", "gpt"}),
        "the backbone; vit, t2t_vit, mlp and gpt have one entry in depths and num_heads");
    key("img_size", model.img_size, between(1, 16384), "height and width of the input, pixels");
    key("patch_size", model.patch_size, between(1, 16384), "side of the patch that becomes one token, pixels");
    key("in_chans", model.in_chans, between(1, 64), "colour channels: 3 colour, 1 grey");
    key("num_classes", model.num_classes, between(1, 1e7), "classes to tell apart");
    key("embed_dim", model.embed_dim, between(1, 65536), "width of the first stage; it doubles from stage to stage");
    key("depths", model.depths, between(1, 1000), "blocks of each stage");
    key("num_heads", model.num_heads, between(1, 1024), "attention heads of each stage");
    key("window_size", model.window_size, between(1, 1024), "side of the attention window, tokens");
    key("mlp_ratio", model.mlp_ratio, above_up_to(0, 64), "hidden width of the MLP over its width");
    key("drop_path_rate", model.drop_path_rate, below(1), "chance of dropping the last branch; it grows linearly from 0 at the first");
    key("shift_windows", model.shift_windows, anything(), "every second block attends in windows moved by half (Swin)");
    key("norm_position", model.norm_position, one_of({"pre", "post"}), "norm before each branch, or after the residual sum");
    key("conv_branches", model.conv_branches, anything(), "two 7x7 depthwise branches before the attention of each block (LipsFormer)");
    key("stripe_widths", model.stripe_widths, between(1, 1024), "cswin: width of the stripes of each stage, tokens");
    key("token_dim", model.token_dim, between(2, 4096), "t2t_vit: width of the two token transformers");
    key("pool", model.pool, one_of({"token", "mean"}), "vit: what the classifier reads: a class token, or the mean of all tokens (and no class token)");
    key("qkv_bias", model.qkv_bias, anything(), "queries, keys and values have a bias");
    key("bias", model.bias, anything(), "every other linear map, convolution and norm has one; false: none anywhere");
    key("merge_bias", model.merge_bias, anything(), "swin: the linear maps between stages have one too, as a fused model needs it");
    key("vocab_size", model.vocab_size, between(0, 1 << 24), "gpt: tokens that there are");
    key("context", model.context, between(0, 1 << 20), "gpt: tokens of a sequence");
    key("rotary_base", model.rotary_base, above(0), "gpt: base of the rotary frequencies");
    key("rotary_still", model.rotary_still, between(0, 65536), "gpt: how many of the slowest rotary frequencies are zero");
    key("logit_scale", model.logit_scale, above(0), "swin, vit and gpt: a constant behind the head");
  }
  bool operator==(const ModelRecipe&) const = default;
};

struct PartsRecipe {
  std::string norm = "layer", attention = "dot";
  double tau = 10.0, nu = 1.0, attention_eps = 1e-6;
  std::string residual = "plain";
  double alpha = 0.0;
  std::string init = "trunc_normal";
  double norm_eps = 1e-5;
  double norm_alpha = 0.9;
  int norm_window = 4, norm_warmup = 4000;
  std::string norm_filter = "none";
  double attention_scale = 1.0, temperature = 1.0;
  std::string qk_norm = "none", qkv = "fused";
  std::string weight = "plain", gamma_init = "sigma", activation = "gelu";

  static void each_key(auto& parts, auto&& key) {
    key("norm", parts.norm, one_of({"layer", "rms", "center", "ball", "batch", "moving_average_batch", "power", "unified", "none"}),
        "over a token: LayerNorm, RMSNorm, CenterNorm (LipsFormer), projection onto a ball; over the batch: BN, MABN, PN, UN; or none");
    key("attention", parts.attention, one_of({"dot", "dot_mup", "cosine", "cosine_bounded", "l2"}),
        "dot product over sqrt(d), or over d; cosine (LipsFormer as released); cosine_bounded (its paper: values normalised too); "
        "distances (Kim et al. 2021)");
    key("tau", parts.tau, above(0), "temperature of cosine attention: the largest logit");
    key("nu", parts.nu, above(0), "cosine_bounded: length of the normalised values");
    key("attention_eps", parts.attention_eps, above(0), "cosine_bounded: epsilon inside the root; the bound rests on it");
    key("residual", parts.residual, one_of({"plain", "weighted", "layer_scale", "rezero", "convex", "deepnorm", "admin"}),
        "x + f(x); x + alpha * f(x) with a learnable alpha a channel (weighted, layer_scale) or one for all (rezero); "
        "(1 - alpha) x + alpha f(x); or those that go with norms after the sum (deepnorm, admin)");
    key("alpha", parts.alpha, at_least(0),
        "alpha at the start; 0: as published: 1 / number of blocks, 0.1 to 1e-6 (layer_scale), 0 (rezero), 1 / branches (convex)");
    key("init", parts.init, one_of({"trunc_normal", "xavier", "spectral", "orthogonal", "fixup", "deepnorm"}),
        "weights at the start; spectral: xavier over its spectral norm; orthogonal: all singular values 1, branches end in 0");
    key("norm_eps", parts.norm_eps, at_least(0), "epsilon of norms, qk_norm's too");
    key("norm_alpha", parts.norm_alpha, below(1), "norms over the batch: what their moving averages keep in a step");
    key("norm_window", parts.norm_window, between(1, 1024), "unified and moving_average_batch: steps that a statistic is averaged over");
    key("norm_warmup", parts.norm_warmup, at_least(0), "norms over the batch: steps before they smooth their statistics");
    key("norm_filter", parts.norm_filter, one_of({"none", "pooled", "per_channel"}),
        "unified: outliers are left out by the threshold of the released code (pooled) or of the paper");
    key("attention_scale", parts.attention_scale, above(0), "dot_mup: factor of q k / d");
    key("temperature", parts.temperature, above(0), "attention logits are divided by it");
    key("qk_norm", parts.qk_norm, one_of({"none", "layer", "rms"}), "norm over each head of queries and keys");
    key("qkv", parts.qkv, one_of({"fused", "separate"}), "queries, keys and values by one matrix or by three");
    key("weight", parts.weight, one_of({"plain", "sigma_reparam", "spectral_norm", "weight_norm"}),
        "the matrix itself; gamma / sigma times it with gamma learned; 1 / sigma times it; rows of learned length");
    key("gamma_init", parts.gamma_init, one_of({"sigma", "one"}), "sigma_reparam: gamma at the start (released code, paper)");
    key("activation", parts.activation, one_of({"gelu", "gelu_scaled", "relu"}), "between the layers of an MLP; gelu_scaled: gelu / 1.1290");
  }
  bool operator==(const PartsRecipe&) const = default;
};

struct DataRecipe {
  std::string path, train = "train", val = "val";
  int batch_size = 128, workers = 2;
  std::string interpolation = "bicubic";
  bool scaled_decode = false;
  double max_damaged = 0.01;

  static void each_key(auto& data, auto&& key) {
    key("path", data.path, anything(), "folder of the dataset");
    key("train", data.train, anything(), "training part: a folder of classes or of tar shards inside path");
    key("val", data.val, anything(), "validation part, likewise");
    key("batch_size", data.batch_size, between(1, 1 << 20), "images a step (times optimizer.accumulate), of all ranks together");
    key("workers", data.workers, between(1, 1024), "threads that decode and augment; they do not change the pixels");
    key("interpolation", data.interpolation, one_of({"bicubic", "bilinear", "random"}),
        "how images are resized, and moved by auto_augment; random: drawn each time, bicubic in evaluation");
    key("scaled_decode", data.scaled_decode, anything(),
        "training: a JPEG whose crop is at least twice the image is decoded at 1/2, 1/4 or 1/8; faster for large photographs, pixels differ slightly");
    key("max_damaged", data.max_damaged, at_least(0),
        "damaged images of a part that a run bears: from 1 on their number; below, a share of the part, but ten at least; 0: none");
  }
  bool operator==(const DataRecipe&) const = default;
};

struct AugmentRecipe {
  bool random_resized_crop = true;
  std::array<double, 2> scale{0.08, 1.0}, ratio{0.75, 1.3333333333333333};
  int crop_padding = 0;
  double hflip = 0.5;
  std::string auto_augment = "none";
  double color_jitter = 0.0, hue = 0.0;
  int repeats = 1;
  double mixup = 0.8, cutmix = 1.0, mix_prob = 1.0, mix_switch_prob = 0.5;
  std::string mix_order = "deit";
  double label_smoothing = 0.1, erasing = 0.25;
  std::string erasing_mode = "pixel";
  int erasing_count = 1;
  double crop_pct = 0.875;
  std::vector<double> mean{0.485, 0.456, 0.406}, std{0.229, 0.224, 0.225};

  static void each_key(auto& augment, auto&& key) {
    key("random_resized_crop", augment.random_resized_crop, anything(), "train on a random part of each image, resized to img_size");
    key("scale", augment.scale, above_up_to(0, 1), "its share of the image's area, from and to");
    key("ratio", augment.ratio, above(0), "its width over its height, from and to");
    key("crop_padding", augment.crop_padding, between(0, 16384), "without random_resized_crop: random crop of the image padded by so many pixels");
    key("hflip", augment.hflip, between(0, 1), "chance of a horizontal flip");
    key("auto_augment", augment.auto_augment, anything(),
        "operations on the pixels, in timm's words: none, 3a, original, v0, or a string such as rand-m9-mstd0.5-inc1");
    key("color_jitter", augment.color_jitter, between(0, 1), "brightness, contrast and colour by factors of 1 - this to 1 + this, in random order");
    key("hue", augment.hue, between(0, 0.5), "in the same random order: the hue turned by up to this part of its circle, either way");
    key("repeats", augment.repeats, between(1, 256), "times an image of the shuffled order is taken in a row, each augmented anew (DeiT: 3)");
    key("mixup", augment.mixup, at_least(0), "alpha of mixup; 0: off");
    key("cutmix", augment.cutmix, at_least(0), "alpha of cutmix; 0: off");
    key("mix_prob", augment.mix_prob, between(0, 1), "chance that a batch is mixed at all");
    key("mix_switch_prob", augment.mix_switch_prob, between(0, 1), "chance of cutmix where both are on");
    key("mix_order", augment.mix_order, one_of({"deit", "timm"}),
        "normalised and erased, then mixed (deit); or mixed and rounded as bytes, then normalised and erased (timm)");
    key("label_smoothing", augment.label_smoothing, below(1), "share of the target spread over all classes");
    key("erasing", augment.erasing, between(0, 1), "chance that a box is put over an image");
    key("erasing_count", augment.erasing_count, between(1, 8), "then from 1 to so many boxes, drawn evenly, that share its area");
    key("erasing_mode", augment.erasing_mode, one_of({"pixel", "rand", "const"}),
        "what a box is filled with, behind normalisation: normal noise, one normal colour, or zero");
    key("crop_pct", augment.crop_pct, above_up_to(0, 1), "evaluation: img_size over the short side before the centre crop");
    key("mean", augment.mean, anything(), "subtracted from each channel, of pixels in 0..1");
    key("std", augment.std, above(0), "then divides it");
  }
  bool operator==(const AugmentRecipe&) const = default;
};

struct OptimizerRecipe {
  std::string name = "adamw";
  double lr = 5e-4;
  int lr_base_batch = 512;
  std::array<double, 2> betas{0.9, 0.98};
  double eps = 1e-8, weight_decay = 0.05, weight_decay_1d = 5e-4, clip_grad = 5.0;
  int accumulate = 1;
  double momentum = 0.9, momentum_start = 0.85;
  int momentum_steps = 0;
  bool nesterov = false;
  double trust_coefficient = 1e-3;
  std::string coefficients = "auto", update_scale = "rms";
  double adamw_lr = 0.015;
  std::string embedding = "adamw";

  static void each_key(auto& optimizer, auto&& key) {
    key("name", optimizer.name, one_of({"adamw", "sgd", "lars", "lion", "muon"}), "the update rule");
    key("lr", optimizer.lr, at_least(0), "learning rate at lr_base_batch images a step");
    key("lr_base_batch", optimizer.lr_base_batch, between(0, 1 << 30),
        "all rates are scaled by batch_size * accumulate / this; 0: taken as they are");
    key("betas", optimizer.betas, below(1), "decay of the first and the second moment");
    key("eps", optimizer.eps, above(0), "added to the root of the second moment");
    key("weight_decay", optimizer.weight_decay, at_least(0), "decoupled decay of weights with two or more dimensions");
    key("weight_decay_1d", optimizer.weight_decay_1d, at_least(0), "of biases, norms, residual scales and position tables");
    key("clip_grad", optimizer.clip_grad, at_least(0), "largest global gradient norm; 0: off");
    key("accumulate", optimizer.accumulate, between(1, 1 << 16),
        "batches whose gradients are averaged into one step");
    key("momentum", optimizer.momentum, below(1), "sgd, lars, muon: what the moving average of gradients keeps");
    key("momentum_start", optimizer.momentum_start, below(1), "muon: momentum of the first step, if momentum_steps is above 0");
    key("momentum_steps", optimizer.momentum_steps, at_least(0), "muon: steps over which it rises to momentum; 0: it starts there");
    key("nesterov", optimizer.nesterov, anything(), "sgd, muon: look one step ahead");
    key("trust_coefficient", optimizer.trust_coefficient, above(0), "lars: step over weight, in norm");
    key("coefficients", optimizer.coefficients,
        one_of({"auto", "muon5", "lipschitz5", "youjiacheng6", "polar_express5", "polar_express8"}),
        "muon: of the orthogonalisation; auto: youjiacheng6, never above 1, under a constraint, else muon5");
    key("update_scale", optimizer.update_scale, one_of({"rms", "original", "match_adamw"}),
        "muon: sqrt(out / in), sqrt(max(1, out / in)), or 0.2 sqrt(max(out, in)) times the orthogonal matrix");
    key("embedding", optimizer.embedding, one_of({"adamw", "rows"}), "muon: embedded tokens go by AdamW, or by their rows' momentum at RMS 1");
    key("adamw_lr", optimizer.adamw_lr, above(0), "muon: AdamW's rate for all that is not a matrix, as a multiple of muon's");
  }
  bool operator==(const OptimizerRecipe&) const = default;
};

struct ConstraintRecipe {
  std::string method = "none";
  double sigma_max = 1.0, strength = 0.0;
  bool per_head = true;

  static void each_key(auto& constraint, auto&& key) {
    key("method", constraint.method,
        one_of({"none", "weight_decay", "spectral_weight_decay", "spectral_normalize", "stiefel", "spectral_hammer", "spectral_soft_cap",
                "spectral_hard_cap", "clipped_weight_decay"}),
        "what holds the spectral norms of the weights after each step");
    key("sigma_max", constraint.sigma_max, above(0), "largest norm of a weight as a map between RMS norms");
    key("strength", constraint.strength, at_least(0), "of the three decays; 0: weight_decay takes 1 / sigma_max");
    key("per_head", constraint.per_head, anything(), "queries, keys and values are held head by head, which a sound bound needs");
  }
  bool operator==(const ConstraintRecipe&) const = default;
};

struct ScheduleRecipe {
  int epochs = 300;
  double warmup_epochs = 0.0, warmup_lr = 5e-7, min_lr = 5e-6;
  std::string shape = "cosine";
  double temperature_epoch = 0.0, temperature = 1.0;

  static void each_key(auto& schedule, auto&& key) {
    key("epochs", schedule.epochs, between(1, 1e6), "passes over the training data");
    key("shape", schedule.shape, one_of({"cosine", "linear", "constant"}), "how the rate falls behind the warmup");
    key("warmup_epochs", schedule.warmup_epochs, at_least(0), "epochs of linear rise before that");
    key("warmup_lr", schedule.warmup_lr, at_least(0), "where the rise begins, scaled like lr");
    key("min_lr", schedule.min_lr, at_least(0), "where it ends, scaled like lr");
    key("temperature", schedule.temperature, above(0),
        "from temperature_epoch on all attention logits are also divided by this: below 1 sharpens");
    key("temperature_epoch", schedule.temperature_epoch, at_least(0), "when, in epochs");
  }
  bool operator==(const ScheduleRecipe&) const = default;
};

struct EmaRecipe {
  double decay = 0.0;

  static void each_key(auto& ema, auto&& key) {
    key("decay", ema.decay, below(1), "moving average of the weights, evaluated beside them; 0: off");
  }
  bool operator==(const EmaRecipe&) const = default;
};

struct LedgerRecipe {
  int every = 1, power_iterations = 1, certify_every = 100, measure_samples = 8;
  double entropy_alarm = 0.02, norm_alarm = 10;

  static void each_key(auto& ledger, auto&& key) {
    key("every", ledger.every, at_least(0), "steps between two rows of bounds, entropies and norms; 0: never");
    key("power_iterations", ledger.power_iterations, between(1, 1000),
        "of each weight and row, starting from the row before");
    key("certify_every", ledger.certify_every, at_least(0), "steps between two rows of certified bounds; each evaluation has one too. 0: only those");
    key("measure_samples", ledger.measure_samples, between(0, 4096),
        "validation samples on which each evaluation looks for the largest stretch, of the network and of each stage; 0: none");
    key("entropy_alarm", ledger.entropy_alarm, between(0.0, 1.0),
        "share of the most that a head's entropy can be, below which an event says that it has collapsed; 0: no alarm");
    key("norm_alarm", ledger.norm_alarm, at_least(0), "growth of a spectral norm over 100 rows that is an event, where the norm is above 1; 0: no alarm");
  }
  bool operator==(const LedgerRecipe&) const = default;
};

struct RunRecipe {
  int64_t seed = 0;
  int threads = 0, shards = 2, micro_batch = 0;
  bool checkpoint_activations = false;
  std::string device = "cpu", dtype = "f32";
  bool capture = true;
  int zero = 0;
  double comm_timeout = 600.0;
  int eval_every = 1, checkpoint_every = 1, checkpoint_steps = 0, keep_checkpoints = 2;

  static void each_key(auto& run, auto&& key) {
    key("seed", run.seed, at_least(0), "of everything random");
    key("threads", run.threads, between(0, 4096), "CPU threads; 0: all cores");
    key("shards", run.shards, between(1, 4096),
        "parts into which a batch is split; fixes the order of sums, so that threads do not change results");
    key("micro_batch", run.micro_batch, between(0, 1 << 20), "images a pass inside a shard; 0: chosen by the engine");
    key("checkpoint_activations", run.checkpoint_activations, anything(),
        "recompute activations in the backward pass: less memory, more time");
    key("device", run.device, one_of({"cpu", "cuda"}), "where the model runs");
    key("dtype", run.dtype, one_of({"f32", "tf32", "bf16", "f64"}), "of activations; tf32: f32 whose products a GPU makes with 10 bits of mantissa");
    key("capture", run.capture, anything(), "on a GPU: record the whole step as one graph and replay it; the numbers are the same");
    key("zero", run.zero, between(0, 1), "several ranks: 1 spreads the optimizer's state and update over them (ZeRO-1), with equal results; 0: each has all");
    key("comm_timeout", run.comm_timeout, above(0), "several ranks: seconds until one that does not arrive ends the run");
    key("eval_every", run.eval_every, at_least(0), "epochs between two evaluations; 0: only after the last");
    key("checkpoint_every", run.checkpoint_every, at_least(0),
        "epochs between two checkpoints; 0: only after the last");
    key("checkpoint_steps", run.checkpoint_steps, at_least(0), "also every so many steps; 0: no");
    key("keep_checkpoints", run.keep_checkpoints, at_least(1), "the newest that are kept");
  }
  bool operator==(const RunRecipe&) const = default;
};

struct Recipe {
  ModelRecipe model;
  PartsRecipe parts;
  DataRecipe data;
  AugmentRecipe augment;
  OptimizerRecipe optimizer;
  ConstraintRecipe constraint;
  ScheduleRecipe schedule;
  EmaRecipe ema;
  LedgerRecipe ledger;
  RunRecipe run;

  static const Recipe& defaults() {
    static const Recipe recipe;
    return recipe;
  }
  static void each_section(auto& recipe, auto&& section) {
    section("model", recipe.model);
    section("parts", recipe.parts);
    section("data", recipe.data);
    section("augment", recipe.augment);
    section("optimizer", recipe.optimizer);
    section("constraint", recipe.constraint);
    section("schedule", recipe.schedule);
    section("ema", recipe.ema);
    section("ledger", recipe.ledger);
    section("run", recipe.run);
  }
  bool operator==(const Recipe&) const = default;
};

// One key as for_each_key shows it.
struct Key {
  const std::string section, name;
  const Limit& limit;
  const char* meaning;
  std::string path() const { return section + "." + name; }
};

// visit(key, value) for every key, in the order in which they are printed. This is the only list of them.
void for_each_key(auto& recipe, auto&& visit) {
  Recipe::each_section(recipe, [&](const char* section, auto& values) {
    values.each_key(values, [&](const char* name, auto& value, const Limit& limit, const char* meaning) {
      visit(Key{section, name, limit, meaning}, value);
    });
  });
}

// A recipe file or a preset's name, and the --set SECTION.KEY=VALUE that override it. Checked as a whole.
// Throws Error(Exit::no_input) where there is no such recipe, Error(Exit::config) for anything wrong in it.
Recipe load_recipe(const std::string& file_or_preset, const std::vector<std::string>& set = {});

// The same of a text; `source` stands for it in messages.
Recipe parse_recipe(const std::string& text, const std::string& source, const std::vector<std::string>& set = {});

// "recipes/fashion-swin.toml" -> "fashion-swin": what a run of it is called unless told otherwise.
std::string recipe_name(const std::string& file_or_preset);

// Throws Error(Exit::config) with one sentence where keys that are fine alone do not go together.
void validate(const Recipe& recipe);

// Every key with its value and its meaning; parse_recipe reads it back to an equal recipe.
std::string to_toml(const Recipe& recipe);

// Equal for recipes whose weights fit each other and mean the same map. It covers only what differs from the defaults,
// so it stays as it is when a key is added; the defaults of [model] and [parts] are therefore never changed.
uint64_t model_hash(const Recipe& recipe);

// The recipes that the binary carries: recipes/*.toml.
std::vector<std::string> preset_names();
