// inspect.cpp: one row of each table of a run, as text or as JSON.
#include "train/inspect.h"

#include <cmath>

#include <fmt/format.h>

#include "engine/check.h"
#include "train/inspect_tables.h"
#include "train/tree_text.h"

using nlohmann::json;

namespace {

// JSON knows no infinity: null, and the kind says why.
json or_null(double value) { return std::isfinite(value) ? json(value) : json(); }

json overview(const RunTables& run, const InspectOptions& options) {
  const auto step_row = row_at(run.steps, options.step), epoch_row = row_at(run.epochs, options.step);
  json out = {{"run", run.name}};
  for (const char* name : {"step", "epoch", "samples", "loss", "lr", "grad_norm", "images_per_s"}) {
    out[name] = or_null(number_at(run.steps, name, step_row));
  }
  out["log10_bound"] = or_null(number_at(run.steps, "log10_bound_l2", step_row));
  out["bound_kind"] = text_at(run.steps, "bound_kind", step_row);
  out["bound_blame"] = text_at(run.steps, "bound_blame", step_row);
  out["eval_epoch"] = or_null(number_at(run.epochs, "epoch", epoch_row));
  out["eval_loss"] = or_null(number_at(run.epochs, "loss", epoch_row));
  for (const char* name : {"top1", "top5", "ema_top1", "images", "damaged"}) {
    out[name] = or_null(number_at(run.epochs, name, epoch_row));
  }
  out["log10_naive_product"] = or_null(log10_naive_product(run, options.step));
  out["events"] = run.events.rows;
  return out;
}

std::string as_json(const RunTables& run, const InspectOptions& options, const std::vector<Layer>& layers,
                    const std::vector<Head>& heads, const std::optional<BoundNode>& tree, const TreeView& view) {
  json out = overview(run, options);
  out["tree"] = tree ? tree_json(*tree, view) : json();
  out["layers"] = json::array();
  for (const Layer& layer : layers) {
    out["layers"].push_back({{"name", layer.name}, {"kind", layer.kind}, {"bound", or_null(layer.bound)},
                             {"unbounded", std::isinf(layer.bound)}, {"spectral_norm", or_null(layer.spectral_norm)}});
  }
  out["heads"] = json::array();
  for (const Head& head : heads) {
    out["heads"].push_back(
        {{"name", head.name}, {"entropy", or_null(head.entropy)}, {"entropy_max", or_null(head.most)}, {"entropy_floor", or_null(head.floor)}});
  }
  return out.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string overview_text(const json& all) {
  const auto show = [&](const char* key) {
    return all[key].is_number() ? number_text(all[key].get<double>()) : std::string("-");
  };
  const std::string kind = all["bound_kind"], blame = all["bound_blame"];
  std::string bound = (all["log10_bound"].is_number() ? power_of_ten(all["log10_bound"]) : "-") + (kind.empty() ? "" : " (" + kind + ")");
  if (kind == "unbounded") bound = "unbounded, because of " + (blame.empty() ? "an unnamed layer" : blame);
  const bool not_finite = all["step"].is_number() && !all["loss"].is_number();
  std::string text = fmt::format("{}\n", all["run"].get<std::string>());
  text += fmt::format("  step {}   epoch {}   images {}\n",
                      all["step"].is_number() ? fmt::format("{}", all["step"].get<double>()) : "-", show("epoch"),
                      all["samples"].is_number() ? fmt::format("{}", all["samples"].get<double>()) : "-");
  text += fmt::format("  loss {}   lr {}   gradient norm {}   {} images/s\n",
                      not_finite ? "not a number" : show("loss"), show("lr"), show("grad_norm"), show("images_per_s"));
  text += fmt::format("  evaluation (epoch {}): loss {}   top-1 {}   top-5 {}\n", show("eval_epoch"),
                      show("eval_loss"), show("top1"), show("top5"));
  text += fmt::format("  network bound {}\n", bound);
  if (all["log10_naive_product"].is_number())
    text += fmt::format("  product of the spectral norms of all weights {}: no bound of a network with residuals and attention\n",
                        power_of_ten(all["log10_naive_product"]));
  const auto events = all["events"].get<std::size_t>();
  if (events > 0) text += fmt::format("  {} event{} in events.csv\n", events, events == 1 ? "" : "s");
  return text;
}

}  // namespace

std::string inspect_run(const std::filesystem::path& path, const InspectOptions& options) {
  const RunTables run = read_run(path);
  if (options.step && run.steps.rows > 0 && !row_at(run.steps, options.step)) {
    fail(Exit::usage, "--step ", *options.step, " is before the first step of ", path.string(), ", ",
         run.steps.numbers("step")[0]);
  }
  const std::vector<Layer> layers = layers_of(run, options);
  const std::vector<Head> heads = heads_of(run, options);
  const std::optional<BoundNode> tree = bound_node(run, options.step);
  TreeView view{.sort = options.sort, .depth = options.depth.value_or(options.filter.empty() && !options.json ? 2 : 0)};
  if (!options.filter.empty()) view.keeps = [filter = NameFilter(options.filter)](const std::string& name) { return filter.keeps(name); };
  if (options.json) return as_json(run, options, layers, heads, tree, view);
  const std::string shown = tree ? tree_text(*tree, view) : "";
  return overview_text(overview(run, options)) + (shown.empty() ? "" : "\n" + shown) + layers_text(layers, options.limit) +
         heads_text(heads, options.limit);
}
