// enforced: what a constraint promises of the whole GPT before training, against the published arithmetic, and what the ledger says of it.
#include <nlohmann/json.hpp>

#include "tiny_run.h"
#include "train/csv_read.h"
#include "train/model_bounds.h"
#include "train/promised_norms.h"

namespace {

std::vector<std::string> enforced_gpt(int layers, std::vector<std::string> more = {}) {
  std::vector<std::string> set{"model.family=gpt", str("model.depths=[", layers, "]"), "model.num_heads=[4]", "model.embed_dim=32", "model.vocab_size=20",
                               "model.context=12", "model.bias=false", "model.qkv_bias=false", "model.drop_path_rate=0", "parts.norm=none",
                               "parts.attention=dot_mup", "parts.qkv=separate", "parts.residual=convex", "parts.init=orthogonal",
                               "parts.activation=gelu_scaled", "optimizer.name=muon", "optimizer.lr=0.1", "constraint.method=spectral_soft_cap",
                               "run.threads=1"};
  set.insert(set.end(), more.begin(), more.end());
  return set;
}

double promised_rms(const std::vector<std::string>& set, double sigma_max = 1) {
  const Training training(parse_recipe("", "enforced", set), true);
  const PromisedNorms norms(sigma_max);
  BoundTrace trace{norms, {}};
  return double(training.model->bound(0, trace).rms);
}

void write_text(const fs::path& path) {
  std::string text;
  for (int i = 0; i < 1200; i++) text += char('a' + (i * i + i / 7) % 20);
  write_bytes(path, text);
}

}  // namespace

// Reference: enforced Lipschitz 3.5 (i) and (iii), every norm 1 and the score's scale 1.
TEST_CASE("enforced: the promised rms bound of 3, 4, 6 and 12 layers") {
  for (const auto& [layers, bound] : std::vector<std::pair<int, double>>{{3, 0.928}, {4, 0.921}, {6, 0.915}, {12, 0.909}}) {
    CAPTURE(layers);
    CHECK(std::abs(promised_rms(enforced_gpt(layers)) - bound) < 5e-4);
  }
}

// The recursion of the reference by itself, for norms and scales of all sizes.
TEST_CASE("enforced: the promised bound follows the recursion of the reference") {
  for (const double sigma : {0.7, 1.0, 1.4, 2.0})
    for (const double scale : {0.5, 1.0, 3.0}) {
      const int layers = 3;
      const double share = 1.0 / (2 * layers), w = sigma;
      double a = 1, l = 1;
      for (int i = 0; i < layers; i++) {
        const double attention = w * w / 3 * (1 + 2 * scale * a * a * w * w), mlp = w * w;
        l = ((1 - share) + share * mlp) * ((1 - share) + share * attention) * l;
        a = (1 - share) * a + share * w * w / 3 * a;
        a = (1 - share) * a + share * w * w * a / gelu_divisor;
      }
      const double engine = promised_rms(enforced_gpt(layers, {str("parts.attention_scale=", scale)}), sigma);
      CAPTURE(sigma);
      CAPTURE(scale);
      CHECK(engine == doctest::Approx(l * w).epsilon(5e-4));   // the scaled GELU's slope is just below 1
      CHECK(engine <= l * w * (1 + 1e-9));
    }
}

TEST_CASE("enforced: a promise needs groups of heads, and nothing but matrices") {
  const double by_heads = promised_rms(enforced_gpt(3)), whole = promised_rms(enforced_gpt(3, {"constraint.per_head=false"}));
  CHECK(whole > 1.5 * by_heads);   // 3.5 (ii)
  const auto promise = [](const std::vector<std::string>& more) {
    return promised_bound(Training(parse_recipe("", "enforced", enforced_gpt(3, more)), true)).rms;
  };
  CHECK(promise({}) == doctest::Approx(by_heads));
  CHECK(promise({"constraint.sigma_max=1.2"}) > by_heads);
  CHECK(promise({"model.logit_scale=8"}) == doctest::Approx(8 * by_heads));
  for (const char* method : {"spectral_normalize", "stiefel", "spectral_soft_cap", "spectral_hard_cap"})
    CHECK(std::isfinite(promise({str("constraint.method=", method)})));
  for (const char* method : {"none", "weight_decay", "spectral_weight_decay", "spectral_hammer", "clipped_weight_decay"}) {
    CAPTURE(method);
    CHECK(std::isinf(promise({str("constraint.method=", method), "constraint.strength=0.1"})));
  }
  CHECK(std::isinf(promise({"model.bias=true"})));            // biases are free
  CHECK(std::isinf(promise({"parts.residual=weighted"})));    // and so are gains
}

TEST_CASE("enforced: a run stays below what its ledger promises") {
  const ScratchFolder folder;
  write_text(folder / "text.txt");
  const auto run = [&](const std::string& name, const std::vector<std::string>& more) {
    std::vector<std::string> set = enforced_gpt(2, {"data.path=" + (folder / "text.txt").string(), "data.batch_size=8", "schedule.epochs=2",
                                                    "optimizer.lr_base_batch=0", "schedule.min_lr=0"});
    set.insert(set.end(), more.begin(), more.end());
    REQUIRE(train(parse_recipe("", "enforced", set), folder / name) == 0);
    return nlohmann::json::parse(bytes_of(folder / name / "ledger.json"))["log10_promised_bound_rms"];
  };
  const nlohmann::json promised = run("enforced", {"constraint.sigma_max=1.5"});
  REQUIRE(promised.is_number());
  const CsvData steps = read_csv(folder / "enforced" / "steps.csv", {"bound_kind", "bound_blame"});
  REQUIRE(steps.rows > 10);
  for (const double rms : steps.numbers("log10_bound_rms")) CHECK(rms <= promised.get<double>() + 1e-5);
  CHECK(std::isfinite(steps.numbers("log10_bound_rms").back()));
  CHECK(steps.numbers("loss").back() < steps.numbers("loss").front());
  CHECK(run("free", {"constraint.method=none"}).is_null());
}
