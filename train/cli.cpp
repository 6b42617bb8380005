// cli.cpp: every subcommand with its flags and its help, and the one place where an error becomes an exit code.
#include "train/cli.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <new>

#include "engine/check.h"
#include "train/embedded.h"
#include "engine/nearest.h"
#include "train/recipe.h"


namespace {

// A subcommand that does something, and what it does.
struct Action {
  CLI::App* command;
  std::function<int()> run;
};

struct CommandLine {
  explicit CommandLine(const Commands& commands) : commands(commands) {}

  // A subcommand with its own options struct, which lives as long as the action that uses it.
  template <class Options>
  std::pair<CLI::App*, std::shared_ptr<Options>> add(CLI::App& parent, const char* name, const char* help,
                                                     const std::function<int(const Options&)>& function) {
    CLI::App* command = parent.add_subcommand(name, help);
    auto options = std::make_shared<Options>();
    actions.push_back({command, [options, &function] { return function(*options); }});
    return {command, options};
  }

  void add_training();
  void add_using();
  void add_looking();
  void add_data();
  void add_machine();
  void add_bench_data(CLI::App& bench);

  const Commands& commands;
  CLI::App app{"lipsgrad trains vision Transformers whose Lipschitz constant is known.", "lipsgrad"};
  std::vector<Action> actions;
};

template <class Value>
void add_argument(CLI::App* command, const char* name, Value& value, const char* help) {
  command->add_option(name, value, help)->required()->option_text("(required)");
}

void add_recipe(CLI::App* command, std::string& recipe) {
  add_argument(command, "RECIPE", recipe, "Recipe file (*.toml) or preset: see lipsgrad --help");
}

void add_set(CLI::App* command, std::vector<std::string>& set) {
  command->add_option("--set", set, "Override one key of the recipe; may be repeated")
      ->type_name("SECTION.KEY=VALUE")
      ->allow_extra_args(false);
}

void add_json(CLI::App* command, bool& json) {
  command->add_flag("--json", json, "Print one JSON object instead of a table");
}

CLI::Option* add_text(CLI::App* command, const char* name, std::string& value, const char* type, const char* help) {
  return command->add_option(name, value, help)->type_name(type);
}

void add_count(CLI::App* command, const char* name, int& value, int least, const char* help) {
  command->add_option(name, value, help)
      ->type_name("N")
      ->capture_default_str()
      ->check(CLI::Range(least, 10'000'000).description(""));
}

void CommandLine::add_training() {
  auto [train, options] = add(app, "train", "Train a model and write its run folder", commands.train);
  train->add_option("RECIPE", options->recipe, "Recipe file (*.toml) or preset; with --resume the run's own");
  add_set(train, options->set);
  add_text(train, "--run", options->run, "DIR", "Run folder; runs/NAME of the recipe unless given");
  train->add_flag("--resume", options->resume, "Continue from the newest checkpoint of the run folder");
  train->footer(
      "Examples:\n"
      "  lipsgrad train fashion-lipsformer\n"
      "  lipsgrad train my.toml --set optimizer.lr=1e-3 --set schedule.epochs=20 --run runs/lr-1e-3\n"
      "  lipsgrad train --run runs/lr-1e-3 --resume\n"
      "Ctrl-C once finishes the step and saves; twice leaves at once.");
  actions.back().run = [options = options, this] {
    const bool from_run = options->resume && !options->run.empty();
    if (options->recipe.empty() && !from_run)
      fail(Exit::usage, "train needs a RECIPE, or --resume with the --run folder to continue");
    if (options->run.empty()) options->run = "runs/" + recipe_name(options->recipe);
    return commands.train(*options);
  };
}

void CommandLine::add_using() {
  auto [eval, evaluated] = add(app, "eval", "Measure accuracy on the validation data", commands.eval);
  add_argument(eval, "RUN", evaluated->target, "Run folder, or a recipe together with --weights");
  add_text(eval, "--weights", evaluated->weights, "FILE",
           "Safetensors; the newest checkpoint of the run unless given");
  eval->add_flag("--ema", evaluated->ema, "Use the averaged weights of the checkpoint");
  eval->add_flag("--certify", evaluated->certify, "Certified accuracy: images that no change of a given l2 length can turn into another class");
  add_text(eval, "--radii", evaluated->radii, "LIST", "With --certify: lengths over the whole image, pixels in [0, 1]");
  add_count(eval, "--attack-steps", evaluated->attack_steps, 0, "With --certify: steps of an attack within each radius; 0: none");
  add_count(eval, "--attack-images", evaluated->attack_images, 0, "With --certify: so many images are attacked; 0: all");
  add_set(eval, evaluated->set);
  add_json(eval, evaluated->json);
  eval->footer(
      "Examples:\n"
      "  lipsgrad eval runs/quickstart --json\n"
      "  lipsgrad eval swin_tiny --weights swin_tiny.safetensors --set data.path=/data/imagenet");

  auto [predict, predicted] = add(app, "predict", "Name what is in images", commands.predict);
  add_argument(predict, "IMAGE", predicted->images, "JPEG or PNG files");
  add_text(predict, "--run", predicted->target, "RUN", "Run folder, or a recipe together with --weights")->required();
  add_text(predict, "--weights", predicted->weights, "FILE",
           "Safetensors; the newest checkpoint of the run unless given");
  add_set(predict, predicted->set);
  add_count(predict, "--top", predicted->top, 1, "How many classes to name");
  predict->footer("Example:\n  lipsgrad predict boot.jpg bag.jpg --run runs/quickstart --top 3");

  auto [forward, passed] =
      add(app, "forward", "Run one batch from a file, to compare with another framework", commands.forward);
  add_recipe(forward, passed->recipe);
  add_text(forward, "--weights", passed->weights, "W", "Weights by their PyTorch names")->required();
  add_text(forward, "--input", passed->input, "X", "images [B, C, H, W] and labels [B] or targets [B, classes]")
      ->required();
  add_text(forward, "--output", passed->output, "Y", "logits, loss, gradients, entropies, bounds")->required();
  forward->add_flag("--train", passed->train, "Use training statistics; all random parts are off");
  add_count(forward, "--steps", passed->steps, 0, "Take N optimizer steps on the batch; adds losses and weights");
  forward->add_flag("--partial", passed->partial, "Allow names that are missing or left over in W");
  auto dtype = std::make_shared<std::string>(), device = std::make_shared<std::string>();
  add_text(forward, "--dtype", *dtype, "TYPE", "Short for --set run.dtype=: f32, bf16 or f64");
  add_text(forward, "--device", *device, "DEVICE", "Short for --set run.device=: cpu");
  add_set(forward, passed->set);
  actions.back().run = [passed = passed, dtype, device, this] {
    if (!dtype->empty()) passed->set.push_back("run.dtype=" + *dtype);
    if (!device->empty()) passed->set.push_back("run.device=" + *device);
    return commands.forward(*passed);
  };
  forward->footer(
      "W, X and Y are safetensors files.\n"
      "Example:\n"
      "  lipsgrad forward swin_tiny --weights swin.safetensors --input batch.safetensors --output out.safetensors");
}

void CommandLine::add_looking() {
  auto [inspect, inspected] = add(app, "inspect", "Show a run in the terminal: the bound as a tree, layers, heads", commands.inspect);
  add_argument(inspect, "RUN", inspected->run, "Run folder");
  inspect->add_option("--sort", inspected->show.sort, "By bound, norm or name: layers, and siblings in the tree")
      ->check(CLI::IsMember({"bound", "norm", "name"}));
  add_text(inspect, "--filter", inspected->show.filter, "TEXT", "Only layers and heads whose name matches, a regular expression or plain text");
  inspect->add_option("--depth", inspected->show.depth, "Levels of the tree, 0 for all; 2 unless given, all with --filter")
      ->type_name("N")
      ->check(CLI::Range(0, 1000).description(""));
  inspect->add_option("--step", inspected->show.step, "The row at or before this step; the last one unless given")->type_name("N");
  inspect->add_option("--limit", inspected->show.limit, "Rows of the tables of layers and heads; 0 for all")->type_name("N");
  add_json(inspect, inspected->show.json);
  inspect->footer(
      "Examples:\n  lipsgrad inspect runs/quickstart\n  lipsgrad inspect runs/quickstart --filter attn --sort norm --step 500\n"
      "  lipsgrad inspect runs/quickstart --depth 0 --sort bound");

  auto [report, reported] = add(app, "report", "Write one page that shows runs side by side", commands.report);
  add_argument(report, "RUN", reported->runs, "Run folders");
  add_text(report, "--output", reported->output, "FILE", "report.html in the first run folder unless given");
  add_text(report, "--figures", reported->figures, "DIR", "Also draw figures for a paper there, each as SVG, PDF and PNG");
  report->footer(
      "Examples:\n"
      "  lipsgrad report runs/lipsformer runs/swin --output compare.html\n"
      "  lipsgrad report runs/lipsformer --figures figures");

  auto [summary, summed] =
      add(app, "summary", "List a model's layers: shapes, parameters, MACs, bounds", commands.summary);
  add_recipe(summary, summed->recipe);
  add_set(summary, summed->set);
  summary->add_flag("--tree", summed->tree, "Print the bound as a tree of products and sums instead of the list of layers");
  add_json(summary, summed->json);
  summary->footer("Nothing is trained and no data is needed.\nExample:\n  lipsgrad summary lipsformer_swin_tiny");
}

void CommandLine::add_data() {
  CLI::App* data = app.add_subcommand("data", "Prepare and check datasets");
  data->require_subcommand(1);
  data->footer("lipsgrad data COMMAND --help explains a command.");

  auto [pack, packed] = add(*data, "pack", "Pack images into tar shards of JPEG", commands.data_pack);
  add_argument(pack, "SOURCE", packed->source, "fashion-mnist, or a folder with one folder of images a class");
  add_argument(pack, "DIR", packed->folder, "Where the shards go");
  add_count(pack, "--shard-images", packed->shard_images, 1, "Images in each shard");
  add_text(pack, "--restart-intervals", packed->restart_intervals, "N|auto",
           "Repack JPEGs, without loss, so that a crop decodes only what it touches: a restart marker every N MCUs");
  pack->footer(
      "A pack that was interrupted goes on when the same command is given again.\n"
      "Examples:\n"
      "  lipsgrad data pack fashion-mnist datasets/fashion-mnist\n"
      "  lipsgrad data pack datasets/imagenet datasets/imagenet-pack --restart-intervals auto");

  auto [verify, verified] =
      add(*data, "verify", "Decode every image and name the damaged files", commands.data_verify);
  add_argument(verify, "DIR", verified->folder, "Dataset: folders of images or tar shards");
  add_count(verify, "--regions", verified->regions, 0, "Also decode N random regions of each image alone and compare them with the whole");
  verify->footer("Example:\n  lipsgrad data verify datasets/fashion-mnist");

  auto [show, shown] = add(*data, "show", "Draw augmented training images with their labels", commands.data_show);
  add_argument(show, "SOURCE", shown->source, "Images (a folder, tar shards), or a recipe, whose augmentation is used");
  add_text(show, "-o,--output", shown->output, "FILE", "PNG")->required();
  add_count(show, "--images", shown->images, 1, "How many");
  add_count(show, "--epoch", shown->epoch, 0, "Of which epoch: each has its own order and draws");
  add_set(show, shown->set);
  show->footer("Example:\n  lipsgrad data show swin_tiny --set data.path=datasets/imagenet -o sheet.png");

  auto [fetch, fetched] = add(*data, "fetch", "Get a known dataset ready for training", commands.data_fetch);
  add_argument(fetch, "NAME", fetched->name, "fashion-mnist");
  fetch->add_option("DIR", fetched->folder, "Where it goes; datasets/NAME unless given");
  fetch->footer("Example:\n  lipsgrad data fetch fashion-mnist");
  actions.back().run = [fetched = fetched, this] {
    if (fetched->folder.empty()) fetched->folder = "datasets/" + fetched->name;
    return commands.data_fetch(*fetched);
  };
}

void CommandLine::add_machine() {
  auto [convert, converted] =
      add(app, "convert", "Rename weights for another framework, or fuse a model for inference", commands.convert);
  add_argument(convert, "INPUT", converted->input, "Safetensors; with --fuse a run folder, or a recipe together with --weights");
  add_argument(convert, "OUTPUT", converted->output, "Safetensors; with --fuse its recipe is written beside it, as *.toml");
  add_text(convert, "--to", converted->to, "NAMES", "Whose names the output has: timm or swin (which lipsgrad reads)")
      ->check(CLI::IsMember({"timm", "swin"}).description(""));
  convert->add_flag("--fuse", converted->fuse,
                    "Fold norms over the batch and weight parts into neighbouring weights; the logits stay the same");
  add_text(convert, "--weights", converted->weights, "FILE",
           "With --fuse: safetensors; the newest checkpoint of the run unless given");
  convert->add_flag("--ema", converted->ema, "With --fuse: the averaged weights of the checkpoint");
  actions.back().run = [converted = converted, this] {
    if (converted->fuse != converted->to.empty()) fail(Exit::usage, "convert needs --to NAMES or --fuse, and one of them only");
    if (!converted->fuse && (converted->ema || !converted->weights.empty()))
      fail(Exit::usage, "--weights and --ema go with --fuse: INPUT is the file that is renamed");
    return commands.convert(*converted);
  };
  convert->footer(
      "Examples:\n"
      "  lipsgrad convert swin_tiny_timm.safetensors swin_tiny.safetensors --to swin\n"
      "  lipsgrad convert --fuse runs/unified fused.safetensors\n"
      "  lipsgrad eval fused.toml --weights fused.safetensors");

  auto [bench, benched] = add(app, "bench", "Time full training steps on made-up images", commands.bench);
  bench->add_flag("--inference", benched->inference, "Time evaluation alone: no gradients, no optimizer");
  bench->add_flag("--count", benched->count, "Time nothing: count the FLOPs and bytes of a step, op by op, beside their floor")->excludes("--inference");
  bench->add_option("RECIPE", benched->recipe, "Recipe file (*.toml) or preset: see lipsgrad --help");
  add_set(bench, benched->set);
  add_count(bench, "--steps", benched->steps, 1, "Steps that are timed");
  add_count(bench, "--warmup", benched->warmup, 0, "Steps before that");
  bench->add_flag("--losses", benched->losses, "Print the loss of each step and nothing else")->excludes("--inference", "--count");
  add_json(bench, benched->json);
  bench->footer(
      "Examples:\n"
      "  lipsgrad bench lipsformer_swin_tiny --set data.batch_size=16 --set run.threads=2\n"
      "  lipsgrad bench swin_tiny --inference --set data.batch_size=16 --set parts.norm=unified\n"
      "  lipsgrad bench swin_tiny --count --set run.dtype=bf16 --set data.batch_size=256\n"
      "  lipsgrad bench data datasets/imagenet");
  actions.back().run = [benched = benched, this] {
    if (benched->recipe.empty()) fail(Exit::usage, "bench needs a RECIPE, or data SOURCE");
    return commands.bench(*benched);
  };
  add_bench_data(*bench);

  auto [devices, listed] = add(app, "devices", "List what lipsgrad can compute on", commands.devices);
  add_json(devices, listed->json);
}

void CommandLine::add_bench_data(CLI::App& bench) {
  auto [data, timed] = add(bench, "data", "Time the way from files to training images", commands.bench_data);
  std::swap(actions[actions.size() - 1], actions[actions.size() - 2]);   // asked first: `bench` itself is given too
  add_argument(data, "SOURCE", timed->source, "Images: a folder, tar shards");
  add_text(data, "--recipe", timed->recipe, "RECIPE", "Whose augmentation is timed; a random resized crop to 224 and a flip unless given");
  add_set(data, timed->set);
  add_count(data, "--images", timed->images, 1, "How many of the images");
  add_count(data, "--rounds", timed->rounds, 1, "Measurements, of which the medians are printed");
  add_count(data, "--epochs", timed->epochs, 1, "Run so many epochs of the loader instead, over all images: its memory, stated and taken");
  add_json(data, timed->json);
  data->footer(
      "Against the full decode of the same files in the same run; JPEGs as they are, and as data pack --restart-intervals auto\n"
      "would store them.\n"
      "Example:\n  lipsgrad bench data datasets/imagenet --recipe swin_tiny");
}

std::string main_footer() {
  std::string lines;
  for (const EmbeddedFile& preset : presets()) {
    const std::string title(
        preset.text.substr(2, preset.text.find_first_of(":\n") - 2));  // of its first line, a comment
    lines += fmt::format("  {:<32}{}\n", preset.name, title);
  }
  return "Presets, which stand wherever a RECIPE does:\n" + lines +
         "First steps:\n"
         "  lipsgrad data fetch fashion-mnist\n"
         "  lipsgrad train fashion-lipsformer --run runs/first\n"
         "  lipsgrad report runs/first\n"
         "lipsgrad COMMAND --help explains a command.";
}

// The words at the front must lead to a subcommand; CLI11 itself would only say that one is missing.
void check_command_words(const CLI::App& app, int argc, const char* const* argv) {
  const CLI::App* here = &app;
  for (int i = 1; i < argc && !here->get_subcommands({}).empty() && argv[i][0] != '-'; i++) {
    std::vector<std::string> names;
    const CLI::App* next = nullptr;
    for (const CLI::App* command : here->get_subcommands({})) {
      names.push_back(command->get_name());
      if (command->get_name() == argv[i]) next = command;
    }
    if (!next && here != &app && !here->get_options([](const CLI::Option* o) { return o->get_positional(); }).empty()) return;
    if (!next) fail(Exit::usage, "unknown command '", argv[i], "': ", suggestion(argv[i], names));
    here = next;
  }
}

const CLI::App& parsed_command(const CLI::App& app) {
  const CLI::App* here = &app;
  while (!here->get_subcommands().empty()) here = here->get_subcommands().front();
  return *here;
}

// CLI11's complaint in our words: an unknown flag first, for it is what makes the rest go wrong.
[[noreturn]] void fail_parsing(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = parsed_command(app);
  std::vector<std::string> flags;
  for (const CLI::Option* option : command.get_options())
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  const std::string after = &command == &app ? "lipsgrad" : command.get_name();
  const std::vector<std::string> left = app.remaining(true);
  for (const std::string& word : left) {
    const std::string flag = word.substr(0, word.find('='));
    if (flag.starts_with("-"))
      fail(Exit::usage, "unknown flag ", flag, " after ", after, ": ", suggestion(flag, flags));
  }
  if (!left.empty()) fail(Exit::usage, "'", left.front(), "' is one word too many after ", after, ": see --help");
  fail(Exit::usage, error.what(), ": see lipsgrad ", &command == &app ? "" : after + " ", "--help");
}

int parse_and_run(int argc, const char* const* argv, const Commands& commands) {
  CommandLine line(commands);
  line.app.require_subcommand(1);
  line.app.get_formatter()->column_width(34);
  line.app.get_formatter()->label("TEXT", "");
  line.app.get_formatter()->label("REQUIRED", "(required)");
  line.app.footer(main_footer());
  line.add_training();
  line.add_using();
  line.add_looking();
  line.add_data();
  line.add_machine();

  if (argc < 2) fail(Exit::usage, "a command is missing: see lipsgrad --help");
  check_command_words(line.app, argc, argv);
  try {
    line.app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::cout << line.app.help();
    return static_cast<int>(Exit::ok);
  } catch (const CLI::ParseError& error) {
    fail_parsing(line.app, error);
  }
  for (const Action& action : line.actions)
    if (action.command->parsed()) return action.run();
  fail(Exit::internal, "[run_cli] the command has no action");
}

int complain(Exit exit, std::string what) {
  for (char& c : what)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  std::cerr << "lipsgrad: " << what << std::endl;
  return static_cast<int>(exit);
}

}  // namespace

int run_cli(int argc, const char* const* argv, const Commands& commands) {
  try {
    const int code = parse_and_run(argc, argv, commands);
    const bool printed = std::cout.flush().good() && std::fflush(stdout) == 0;
    if (code == 0 && !printed)
      return complain(Exit::io, "the result could not be printed: is the disk of stdout full?");
    return code;
  } catch (const Error& error) {
    return complain(error.exit, error.what());
  } catch (const std::bad_alloc&) {
    return complain(
        Exit::failure,
        "out of memory: choose a smaller data.batch_size or run.micro_batch, or run.checkpoint_activations=true");
  } catch (const std::exception& error) {
    return complain(Exit::internal, str("unexpected: ", error.what()));
  } catch (...) {
    return complain(Exit::internal, "unexpected: an exception without a name");
  }
}
