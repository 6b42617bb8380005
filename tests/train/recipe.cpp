// recipe: what stands over what, what is refused and in which words, and that the printed form says it all.
#include "train/recipe.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "engine/check.h"

namespace {

// The line a user sees, with its exit code checked.
std::string refusal(Exit exit, auto make) {
  try {
    make();
  } catch (const Error& error) {
    CHECK(error.exit == exit);
    const std::string what = error.what();
    CHECK(what.find('\n') == std::string::npos);
    return what;
  }
  return "nothing was refused";
}

std::string refusal_of(const std::string& text) {
  return refusal(Exit::config, [&] { parse_recipe(text, "r.toml"); });
}

std::string refusal_of_set(const std::string& set) {
  return refusal(Exit::config, [&] { parse_recipe("", "r.toml", {set}); });
}

#define CHECK_STARTS(text, start) CHECK_MESSAGE(std::string(text).starts_with(start), text)

}  // namespace

TEST_CASE("recipe: an empty file is the defaults") { CHECK(parse_recipe("", "r.toml") == Recipe{}); }

TEST_CASE("recipe: every key is read by its name and printed so that it reads back equal") {
  const Recipe defaults;
  CHECK(parse_recipe(to_toml(defaults), "r.toml") == defaults);

  Recipe recipe;
  recipe.model.depths = {1, 3};
  recipe.model.num_heads = {2, 4};
  recipe.parts.alpha = 1.0 / 3;
  recipe.parts.residual = "weighted";
  recipe.data.path = "a \"quoted\" \\ path\nwith a line, a tab \t, \x01, \x7f and \u00fc";
  recipe.optimizer.lr = 1.0;
  recipe.optimizer.betas = {0.1, 0.30000000000000004};
  recipe.schedule.min_lr = 4.9406564584124654e-324;
  recipe.run.seed = INT64_MAX;
  CHECK(parse_recipe(to_toml(recipe), "r.toml") == recipe);

  for_each_key(defaults, [&](const Key& key, const auto&) {
    CAPTURE(key.path());
    CHECK(to_toml(defaults).find("\n" + key.name + " = ") != std::string::npos);
    CHECK(*key.meaning);
  });
}

TEST_CASE("recipe: the file stands over its preset, --set over the file") {
  const std::string text = "preset = \"lipsformer_swin_base\"\n[optimizer]\nlr = 1e-3\nweight_decay = 1\n";
  const Recipe recipe =
      parse_recipe(text, "r.toml", {"optimizer.lr=2e-3", "model.depths=[1,1,1,1]", "run.dtype=bf16"});
  CHECK(recipe.optimizer.lr == 2e-3);
  CHECK(recipe.optimizer.weight_decay == 1.0);
  CHECK(recipe.optimizer.betas == std::array{0.9, 0.998});  // of the preset
  CHECK(recipe.parts.norm == "center");                     // of the preset's preset
  CHECK(recipe.model.depths == std::vector{1, 1, 1, 1});
  CHECK(recipe.run.dtype == "bf16");
  AugmentRecipe augment;
  augment.auto_augment = "rand-m9-mstd0.5-inc1";            // likewise
  CHECK(recipe.augment == augment);
}

TEST_CASE("recipe: --set takes words without quotes, and what looks like a number where a word belongs") {
  const auto path = [](const std::string& value) { return parse_recipe("", "r", {"data.path=" + value}).data.path; };
  CHECK(path("/data/image net") == "/data/image net");
  CHECK(path("2024") == "2024");
  CHECK(path("true") == "true");
  CHECK(path("\"quoted\"") == "quoted");
  CHECK(path("a=b") == "a=b");
  CHECK(path("x\ny = 1") == "x\ny = 1");
  CHECK(path("") == "");
  CHECK(parse_recipe("", "r", {"run.seed=1", "run.seed=2"}).run.seed == 2);
}

TEST_CASE("recipe: unknown names are answered with the nearest known ones") {
  CHECK(refusal_of("[schedule]\nepoch = 3") == "r.toml:2:1: [schedule] has no key 'epoch': did you mean 'epochs'?");
  CHECK(refusal_of("[model]\nwindow = 7") == "r.toml:2:1: [model] has no key 'window': did you mean 'window_size'?");
  CHECK(refusal_of("[model]\n  lr = 7") == "r.toml:2:3: [model] has no key 'lr': it belongs to [optimizer]");
  CHECK(refusal_of("[ema]\nzzzzzzzz = 7") == "r.toml:2:1: [ema] has no key 'zzzzzzzz': known are decay");
  CHECK(refusal_of("\n[optimiser]\n") == "r.toml:2:2: there is no section [optimiser]: did you mean 'optimizer'?");
  CHECK(refusal_of("epochs = 3") == "r.toml:1:1: there is no section [epochs]: did you mean 'schedule.epochs'?");
  CHECK(refusal_of("model = 3") == "r.toml:1:1: model must be a section, [model], it is the integer 3");
  CHECK_STARTS(refusal_of("preset = \"lipsformer_swin_tny\""),
               "r.toml:1:10: no preset is called 'lipsformer_swin_tny': did you mean 'lipsformer_swin_tiny'?");
  CHECK_STARTS(refusal_of("preset = 3"), "r.toml:1:10: preset must be a word in quotes");

  CHECK(refusal_of_set("optimizer.lr_=1") ==
        "--set optimizer.lr_=1: [optimizer] has no key 'lr_': did you mean 'lr'?");
  CHECK(refusal_of_set("lr=1") == "--set lr=1: there is no section [lr]: did you mean 'optimizer.lr'?");
  CHECK_STARTS(refusal_of_set("model=1"), "--set model=1: [model] has no key ''");
  CHECK(refusal(Exit::usage, [] { parse_recipe("", "r", {"optimizer.lr"}); }) ==
        "--set optimizer.lr: write --set SECTION.KEY=VALUE");
}

TEST_CASE("recipe: a wrong type is answered with what is expected and what was given") {
  const auto wrong = [](const std::string& section, const std::string& line, const std::string& message) {
    CHECK_STARTS(refusal_of("[" + section + "]\n" + line), "r.toml:2:");
    const std::string said = refusal_of("[" + section + "]\n" + line);
    CHECK_MESSAGE(said.ends_with(message), said);
  };
  wrong("model", "img_size = 224.0", "model.img_size must be an integer, it is the number 224");
  wrong("model", "img_size = \"224\"", "model.img_size must be an integer, it is the word \"224\"");
  wrong("model", "depths = 2", "model.depths must be a list of integers, it is the integer 2");
  wrong("model", "depths = [2, 2.5]", "model.depths must be a list of integers, it is the number 2.5");
  wrong("model", "depths = []", "model.depths must be a list of integers, it is a list of 0");
  wrong("model", "shift_windows = 1", "model.shift_windows must be true or false, it is the integer 1");
  wrong("parts", "tau = true", "parts.tau must be a number, it is true");
  wrong("data", "path = 1979-05-27", "data.path must be a word in quotes, it is a date or time");
  wrong("optimizer", "betas = [0.9]", "optimizer.betas must be a list of two numbers, it is a list of 1");
  wrong("optimizer", "betas.a = 1", "optimizer.betas must be a list of two numbers, it is a section");
  CHECK(refusal_of_set("run.seed=abc") == "--set run.seed=abc: run.seed must be an integer, it is the word \"abc\"");
  CHECK(parse_recipe("[parts]\ntau = 12", "r").parts.tau == 12.0);  // an integer is a number
}

TEST_CASE("recipe: a value outside its limits is refused") {
  CHECK_STARTS(refusal_of_set("model.img_size=0"),
               "--set model.img_size=0: model.img_size must be at least 1 and at most 16384, it is the integer 0");
  CHECK_STARTS(refusal_of_set("model.embed_dim=4294967297"),
               "--set model.embed_dim=4294967297: model.embed_dim must be");
  CHECK_STARTS(refusal_of_set("ledger.every=4294967297"), "--set ledger.every=4294967297: ledger.every is too large");
  CHECK_STARTS(refusal_of_set("parts.tau=0"), "--set parts.tau=0: parts.tau must be above 0, it is the integer 0");
  CHECK_STARTS(refusal_of_set("ema.decay=1"), "--set ema.decay=1: ema.decay must be at least 0 and below 1");
  CHECK_STARTS(refusal_of_set("optimizer.lr=nan"), "--set optimizer.lr=nan: optimizer.lr must be finite");
  CHECK_STARTS(refusal_of_set("augment.mean=[0,0,inf]"), "--set augment.mean=[0,0,inf]: augment.mean must be finite");
  CHECK_STARTS(refusal_of_set("optimizer.betas=[0.9,1.0]"),
               "--set optimizer.betas=[0.9,1.0]: optimizer.betas must be");
  CHECK_STARTS(refusal_of_set("run.seed=9223372036854775808"),
               "--set run.seed=9223372036854775808: run.seed must be");
  CHECK(refusal_of_set("model.norm_position=both") ==
        "--set model.norm_position=both: model.norm_position must be one of 'pre', 'post', it is the word \"both\"");
  CHECK(refusal_of_set("run.device=gpu") == "--set run.device=gpu: run.device must be one of 'cpu', 'cuda', it is the word \"gpu\"");
}

TEST_CASE("recipe: a file that is not TOML is answered with the place") {
  CHECK_STARTS(refusal_of("[model]\nimg_size = = 3"), "r.toml:2:12: ");
  CHECK_STARTS(refusal_of("[model]\nimg_size = 1\nimg_size = 2"), "r.toml:3:");
  CHECK_STARTS(refusal_of("a = \"\xff\""), "r.toml:1:");
  CHECK_STARTS(refusal_of(std::string("\0\1\2", 3)), "r.toml:1:");
  CHECK_STARTS(refusal_of("a = " + std::string(10000, '[')), "r.toml:1:");
}

TEST_CASE("recipe: files and presets by name") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / str("lipsgrad-recipe-", getpid());
  fs::create_directories(folder);
  const std::string file = (folder / "my.toml").string();
  std::ofstream(file) << "preset = \"swin_tiny\"\n[run]\nseed = 7\nfast = 1\n";
  CHECK(refusal(Exit::config, [&] { load_recipe(file); }).starts_with(file + ":4:1: [run] has no key 'fast'"));
  std::ofstream(file) << "preset = \"swin_tiny\"\n[run]\nseed = 7\n";
  CHECK(load_recipe(file).run.seed == 7);
  CHECK(load_recipe(file).schedule.warmup_epochs == 20);
  CHECK(recipe_name(file) == "my");

  std::ofstream(file) << std::string(2 << 20, '#');
  CHECK(refusal(Exit::bad_data, [&] { load_recipe(file); }).starts_with(file + ": is not a recipe"));
  CHECK(refusal(Exit::no_input, [&] { load_recipe(folder.string()); }).ends_with("is a folder, not a recipe file"));
  CHECK(refusal(Exit::no_input, [&] { load_recipe("recipes/swin_tyni.toml"); }) ==
        "recipes/swin_tyni.toml: no such recipe file, and no preset of this name: did you mean 'swin_tiny'?");
  CHECK(refusal(Exit::no_input, [&] { load_recipe(""); }).find("no such recipe file") != std::string::npos);
  fs::remove_all(folder);
}

TEST_CASE("recipe: every preset is whole, and the published ones hold what was published") {
  for (const std::string& name : preset_names()) {
    CAPTURE(name);
    const Recipe recipe = load_recipe(name);
    CHECK(parse_recipe(to_toml(recipe), name) == recipe);
    CHECK(std::filesystem::exists(SOURCE_DIR "/recipes/" + name + ".toml"));
  }
  const auto recipes = std::filesystem::directory_iterator(SOURCE_DIR "/recipes");
  CHECK(preset_names().size() == size_t(std::count_if(begin(recipes), end(recipes), [](const auto& file) { return file.path().extension() == ".toml"; })));

  const Recipe tiny = load_recipe("lipsformer_swin_tiny"), base = load_recipe("lipsformer_swin_base");
  CHECK(tiny.optimizer.betas == std::array{0.9, 0.98});
  CHECK(tiny.optimizer.weight_decay_1d == 5e-4);
  CHECK(tiny.schedule.warmup_epochs == 0);
  CHECK(base.optimizer.betas == std::array{0.9, 0.998});
  CHECK(base.optimizer.lr == 2.5e-4);
  CHECK(base.model.depths == std::vector{2, 2, 18, 2});
  CHECK(base.model.drop_path_rate == 0.5);
  CHECK(base.model.embed_dim == 128);
  CHECK(load_recipe("lipsformer_swin_tiny_bounded").parts.attention == "cosine_bounded");

  const Recipe swin = load_recipe("swin_small");
  CHECK(swin.optimizer.betas == std::array{0.9, 0.999});
  CHECK(swin.optimizer.weight_decay_1d == 0);
  CHECK(swin.schedule.warmup_epochs == 20);
  CHECK(swin.model.drop_path_rate == 0.3);
  CHECK(swin.model.shift_windows);
  CHECK(load_recipe("fashion-lipsformer").augment == load_recipe("fashion-swin").augment);
}

TEST_CASE("recipe: the hash follows the model, and nothing else") {
  const Recipe tiny = load_recipe("lipsformer_swin_tiny");
  const auto with = [](const std::string& set) { return model_hash(load_recipe("lipsformer_swin_tiny", {set})); };
  CHECK(model_hash(tiny) == with("optimizer.lr=1"));
  CHECK(model_hash(tiny) == with("model.drop_path_rate=0"));
  CHECK(model_hash(tiny) == with("parts.init=xavier"));
  CHECK(model_hash(tiny) != with("parts.tau=12"));
  CHECK(model_hash(tiny) != with("model.num_classes=10"));
  CHECK(model_hash(tiny) != with("model.conv_branches=false"));
  CHECK(model_hash(tiny) == model_hash(load_recipe("lipsformer_swin_tiny", {"data.batch_size=8"})));
  // Written into checkpoints: a change of these numbers makes old ones foreign.
  CHECK(model_hash(Recipe{}) == 0xcbf29ce484222325);
  CHECK(model_hash(tiny) == 2519788753797294926);
}
