// command_certify.cpp: `lipsgrad eval --certify`: clean, certified and attacked accuracy at a list of l2 radii.
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "train/certify.h"
#include "train/commands.h"
#include "train/load_model.h"
#include "train/progress.h"
#include "train/split.h"

namespace {

// "36/255,1" -> their values.
std::vector<double> read_radii(const std::string& text) {
  std::vector<double> radii;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    double over = 0, under = 1;
    char slash = '/', rest = 0;
    const std::string word = text.substr(begin, end - begin);
    const int read = std::sscanf(word.c_str(), "%lf %c %lf %c", &over, &slash, &under, &rest);
    if ((read != 1 && read != 3) || slash != '/' || !(over / under > 0) || !std::isfinite(over / under))
      fail(Exit::usage, "--radii is a list like 36/255,1: lengths above 0; '", word, "' is none");
    radii.push_back(over / under);
    begin = end + 1;
  }
  return radii;
}

struct Counts {
  int64_t images = 0, correct = 0;
  struct AtRadius {
    int64_t certified = 0;                          // correct, and certain within it
    int64_t attacked = 0, withstood = 0;            // images that were attacked; correct and not broken
    int64_t attacked_certified = 0, refuted = 0;    // of those certified: attacked; broken, which must not happen
  };
  std::vector<AtRadius> at;
  std::vector<double> radii;   // of the correct images
};

double share(int64_t part, int64_t whole) { return double(part) / double(std::max<int64_t>(1, whole)); }

double median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::nth_element(v.begin(), v.begin() + int64_t(v.size() / 2), v.end());
  return v[v.size() / 2];
}

Counts run(Training& training, const Certifier& certifier, BatchSource& source, const std::vector<double>& radii, const EvalOptions& options,
           Progress& progress) {
  Counts counts;
  counts.at.resize(radii.size());
  Batch batch;
  int64_t done = 0;
  source.start(0);
  while (source.next(batch)) {
    const Input input = make_input(batch, training.recipe, 0, 0, false);
    constexpr int64_t piece = 16;
    const int64_t pieces = (input.count() + piece - 1) / piece;
    std::vector<Counts> parts(size_t(pieces), Counts{0, 0, std::vector<Counts::AtRadius>(radii.size()), {}});
    training.workers.run(pieces, [&](int64_t p) {
      const int64_t first = p * piece, count = std::min(piece, input.count() - first);
      const Certifier::Images images{training.input_of(input, first, count), labels_of(input, first, count, training.model->num_classes)};
      const Certifier::Verdict verdict = certifier.judge(images);
      Counts& part = parts[size_t(p)];
      std::vector<char> correct;
      for (int64_t i = 0; i < count; i++) {
        const int64_t label = images.labels[size_t(i)];
        correct.push_back(label >= 0 && verdict.predicted[size_t(i)] == label);
        part.images += label >= 0;
        part.correct += correct.back();
        if (correct.back()) part.radii.push_back(verdict.radius[size_t(i)]);
      }
      const bool attacks = options.attack_steps > 0 && (options.attack_images == 0 || done + first < options.attack_images);
      for (size_t r = 0; r < radii.size(); r++) {
        const std::vector<char> broken = attacks ? certifier.broken(images, radii[r], options.attack_steps, uint64_t(done + first)) : std::vector<char>();
        for (int64_t i = 0; i < count; i++) {
          if (images.labels[size_t(i)] < 0) continue;
          const bool certified = correct[size_t(i)] && verdict.radius[size_t(i)] > radii[r];
          part.at[r].certified += certified;
          if (!attacks) continue;
          part.at[r].attacked++;
          part.at[r].withstood += correct[size_t(i)] && !broken[size_t(i)];
          part.at[r].attacked_certified += certified;
          part.at[r].refuted += certified && broken[size_t(i)];
        }
      }
    });
    for (const Counts& part : parts) {
      counts.images += part.images, counts.correct += part.correct;
      counts.radii.insert(counts.radii.end(), part.radii.begin(), part.radii.end());
      for (size_t r = 0; r < radii.size(); r++) {
        Counts::AtRadius &to = counts.at[r], from = part.at[r];
        to.certified += from.certified, to.attacked += from.attacked, to.withstood += from.withstood;
        to.attacked_certified += from.attacked_certified, to.refuted += from.refuted;
      }
    }
    done += batch.count;
    if (!options.json && progress.wants_update()) progress.update(done, "");
  }
  return counts;
}

}  // namespace

int run_certify(const EvalOptions& options) {
  const std::vector<double> radii = read_radii(options.radii);
  std::vector<std::string> set = options.set;
  set.push_back("run.dtype=f64");   // what is certified is the map, not its rounding in f32
  const LoadedModel loaded = load_model({options.target, options.weights, set, options.ema});
  Training& training = *loaded.training;
  const Certifier certifier(training);
  const Split data = open_split(training.recipe, false);
  Progress progress;
  if (!options.json) progress.start("certify", data.samples());
  const Counts counts = run(training, certifier, *data.source, radii, options, progress);
  if (!options.json) progress.finish();

  // How far the network is known to stretch: pixels to logits, as the bound it stands against.
  const double deviation = *std::min_element(training.recipe.augment.std.begin(), training.recipe.augment.std.end());
  const double bound = double(certifier.bound().network.lipschitz) / deviation;
  double measured = NAN;
  Batch batch;
  data.source->start(0);
  if (training.recipe.ledger.measure_samples > 0 && data.source->next(batch))
    measured = training.stretches(make_input(batch, training.recipe, 0, 0, false)).back() / deviation;

  const std::string blame = certifier.bound().network.blame;
  int64_t refuted = 0;
  for (const auto& at : counts.at) refuted += at.refuted;
  if (options.json) {
    nlohmann::json json{{"images", counts.images}, {"top1", share(counts.correct, counts.images)}, {"median_radius", median(counts.radii)},
                        {"lipschitz_features", certifier.lipschitz()}, {"lipschitz_logits", bound}, {"measured_logits", measured},
                        {"blame", blame}, {"refuted", refuted}, {"weights", loaded.weights}};
    for (size_t r = 0; r < radii.size(); r++) {
      const Counts::AtRadius& at = counts.at[r];
      json["radii"].push_back({{"radius", radii[r]}, {"certified", share(at.certified, counts.images)}, {"attacked", at.attacked},
                               {"withstood", share(at.withstood, at.attacked)}, {"attacked_certified", at.attacked_certified}, {"refuted", at.refuted}});
    }
    fmt::print("{}\n", json.dump());
  } else {
    if (!blame.empty()) fmt::print("nothing can be certified: {} has no Lipschitz bound\n", blame);
    fmt::print("clean top-1 {:.2f} %  {} images, median certified radius {:.4f} of the correct ones\n", 100 * share(counts.correct, counts.images),
               counts.images, median(counts.radii));
    fmt::print("bound, pixels to features {:.4g} ({}), to logits {:.4g}, stretch found to logits {:.4g}\n", certifier.lipschitz(),
               certifier.by_tokens() ? "by the longest token" : "l2", bound, measured);
    fmt::print("{:>8}{:>12}{:>24}{:>28}\n", "radius", "certified", "withstands the attack", "certified ones broken");
    for (size_t r = 0; r < radii.size(); r++) {
      const Counts::AtRadius& at = counts.at[r];
      fmt::print("{:>8.4f}{:>10.2f} %{:>13} of {:>6}{:>17} of {:>6}\n", radii[r], 100 * share(at.certified, counts.images),
                 at.attacked ? fmt::format("{:.2f} %", 100 * share(at.withstood, at.attacked)) : "-", at.attacked, at.refuted, at.attacked_certified);
    }
  }
  if (refuted > 0) fail(Exit::failure, refuted, " certificates were refuted by the attack: a bound is wrong; please report it");
  return int(Exit::ok);
}
