// recipe_refusals: each combination of keys that cannot be run is refused, with one sentence that says why; what may be combined is not.
#include <doctest/doctest.h>

#include "engine/check.h"
#include "train/recipe.h"

namespace {

const std::vector<std::string> vit{"model.family=vit", "model.depths=[2]", "model.num_heads=[3]", "model.patch_size=16"};
const std::vector<std::string> gpt{"model.family=gpt", "model.depths=[2]", "model.num_heads=[4]", "model.vocab_size=65", "model.context=32"};
const std::vector<std::string> t2t{"model.family=t2t_vit", "model.depths=[2]", "model.num_heads=[3]", "model.patch_size=16"};
const std::vector<std::string> mlp{"model.family=mlp", "model.depths=[3]"};
const std::vector<std::string> cswin{"model.family=cswin"};

std::vector<std::string> operator+(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

void refuses(const std::vector<std::string>& set, const std::string& sentence) {
  std::string said = "nothing was refused";
  try {
    parse_recipe("", "r.toml", set);
  } catch (const Error& error) {
    CHECK(error.exit == Exit::config);
    said = error.what();
  }
  CHECK_MESSAGE(said == sentence, said);
}

}  // namespace

TEST_CASE("recipe: sizes and sections that do not go together are refused with one sentence") {
  refuses({"model.num_heads=[3,6]"}, "model.depths has 4 stages, model.num_heads has 2: both need one entry a stage");
  refuses({"model.depths=[1,1,1,1,1,1,1,1,1]", "model.num_heads=[1,1,1,1,1,1,1,1,1]"}, "model.depths has 9 stages, 8 are the most");
  refuses({"model.img_size=225"}, "model.img_size 225 is not a multiple of model.patch_size 4");
  refuses({"model.embed_dim=100"}, "stage 1 is 100 wide, which its 3 heads do not divide");
  refuses({"model.img_size=256"}, "the 64x64 tokens of stage 1 cannot be cut into windows of model.window_size 7");
  refuses({"model.img_size=28", "model.window_size=100"},
          "the 7x7 tokens of stage 1 cannot be halved: choose a model.img_size that is a multiple of 32");
  refuses({"model.in_chans=1"}, "augment.mean has 3 entries, model.in_chans is 1");
  refuses({"augment.std=[1]"}, "augment.std has 1 entries, model.in_chans is 3");
  refuses({"augment.scale=[1,0.5]"}, "augment.scale runs backwards: from 1 to 0.5");
  refuses({"augment.ratio=[2,1]"}, "augment.ratio runs backwards: from 2 to 1");
  refuses({"augment.crop_padding=2"},
          "augment.crop_padding has no effect while augment.random_resized_crop is true: set one of them");
  refuses({"augment.auto_augment=rnd-m9"}, "augment.auto_augment \"rnd-m9\": there is no policy 'rnd': did you mean 'rand'?");
  refuses({"augment.auto_augment=rand-m9", "augment.color_jitter=0.4"},
          "augment.color_jitter is left out beside \"rand-m9\" in timm: set one of them");
  const std::vector<std::string> grey{"model.in_chans=1", "augment.mean=[0]", "augment.std=[1]"};
  refuses(grey + std::vector<std::string>{"augment.auto_augment=3a"}, "augment.auto_augment \"3a\" is for colour images, model.in_chans is 1");
  refuses(grey + std::vector<std::string>{"augment.color_jitter=0.1"}, "augment.color_jitter is for colour images, model.in_chans is 1");
  refuses(grey + std::vector<std::string>{"augment.hue=0.1"}, "augment.hue is for colour images, model.in_chans is 1");
  refuses({"augment.auto_augment=rand-m9", "augment.hue=0.1"}, "augment.hue is left out beside \"rand-m9\" in timm: set one of them");
  refuses({"augment.auto_augment=v0", "augment.color_jitter=0.4"}, "augment.color_jitter is left out beside \"v0\" in timm: set one of them");
  CHECK_NOTHROW(parse_recipe("", "r", {"augment.auto_augment=original-mstd0.5"}));
  CHECK_NOTHROW(parse_recipe("", "r", {"augment.auto_augment=3a", "augment.color_jitter=0.3", "augment.hue=0.1"}));
  refuses({"schedule.warmup_epochs=300"}, "schedule.warmup_epochs 300 leaves nothing of schedule.epochs 300");
  refuses({"optimizer.lr=1e-6"}, "schedule.min_lr 5e-06 is above optimizer.lr 1e-06");
  refuses({"schedule.warmup_epochs=1", "schedule.warmup_lr=1"}, "schedule.warmup_lr 1 is above optimizer.lr 0.0005");
  refuses({"run.shards=4", "data.batch_size=3"},
          "run.shards 4 is more than data.batch_size 3: each part of a batch needs an image");
  // A stage smaller than its window is one window.
  CHECK(parse_recipe("", "r", {"model.img_size=64", "model.window_size=32"}).model.window_size == 32);
}

TEST_CASE("recipe: families refuse what only others have") {
  refuses(vit + std::vector<std::string>{"model.depths=[2,2]"}, "model.depths has 2 entries, a vit takes one");
  refuses(gpt + std::vector<std::string>{"model.num_heads=[2,2]"}, "model.num_heads has 2 entries, a gpt takes one");
  refuses(t2t + std::vector<std::string>{"model.conv_branches=true"}, "model.conv_branches is for swin and cswin");
  refuses(gpt + std::vector<std::string>{"model.vocab_size=0"}, "a gpt needs model.vocab_size and model.context");
  refuses(gpt + std::vector<std::string>{"model.context=0"}, "a gpt needs model.vocab_size and model.context");
  refuses(cswin + std::vector<std::string>{"model.patch_size=8"}, "model.patch_size is 4 in a cswin, given 8");
  refuses(t2t + std::vector<std::string>{"model.patch_size=8"}, "model.patch_size is 16 in a t2t_vit, given 8");
  for (const auto& family : {cswin, t2t, mlp})
    refuses(family + std::vector<std::string>{"model.norm_position=post"}, "model.norm_position \"post\" is for swin, vit and gpt");
  CHECK_NOTHROW(parse_recipe("", "r", mlp));   // num_heads means nothing to it
  for (const auto& family : {vit, gpt}) CHECK_NOTHROW(parse_recipe("", "r", family + std::vector<std::string>{"model.norm_position=post"}));
  CHECK_NOTHROW(parse_recipe("", "r", cswin + std::vector<std::string>{"model.conv_branches=true"}));
}

TEST_CASE("recipe: norms over the batch refuse what would spoil their statistics") {
  for (const std::string norm : {"batch", "moving_average_batch", "power", "unified"}) {
    const std::string chosen = "parts.norm=" + norm, quoted = "parts.norm \"" + norm + "\"";
    CHECK_NOTHROW(parse_recipe("", "r", vit + std::vector<std::string>{chosen}));
    refuses({chosen, "model.bias=false"}, quoted + " has a bias: model.bias = false leaves none");
    refuses({chosen, "run.checkpoint_activations=true"},
            "run.checkpoint_activations runs layers twice, which " + quoted + " would take for two steps: choose one of them");
    refuses({chosen, "ema.decay=0.9"}, "ema.decay averages weights but not the statistics of " + quoted + ": choose one of them");
    refuses({chosen, "run.micro_batch=4"}, "run.micro_batch would cut the statistics of " + quoted + ": leave it at 0");
    refuses(gpt + std::vector<std::string>{chosen}, quoted + " mixes what tokens see of later ones: a gpt cannot have it");
  }
  for (const std::string norm : {"layer", "rms", "ball", "none"})
    CHECK_NOTHROW(parse_recipe("", "r", {"parts.norm=" + norm, "model.bias=false", "ema.decay=0.9", "run.micro_batch=4", "run.checkpoint_activations=true"}));
}

TEST_CASE("recipe: parts that exclude each other") {
  refuses(mlp + std::vector<std::string>{"parts.norm=center", "model.embed_dim=1"}, "parts.norm \"center\" needs a model.embed_dim of at least 2");
  refuses({"parts.norm=center", "model.bias=false"}, "parts.norm \"center\" has a bias: model.bias = false leaves none");
  refuses({"parts.alpha=0.2"}, "parts.alpha has no effect while parts.residual is \"plain\": choose \"weighted\"");
  refuses({"parts.residual=convex", "parts.alpha=1"}, "parts.alpha of a convex residual is a share below 1, given 1");
  for (const std::string residual : {"deepnorm", "admin"}) {
    refuses({"parts.residual=" + residual},
            "parts.residual \"" + residual + "\" needs norms behind the sum: set model.norm_position = \"post\"");
    CHECK_NOTHROW(parse_recipe("", "r", {"parts.residual=" + residual, "model.norm_position=post"}));
  }
  refuses({"parts.init=deepnorm"}, "parts.init \"deepnorm\" scales values but not queries and keys: set parts.qkv = \"separate\"");
  const std::string fixup = "parts.init \"fixup\" stands in place of norms: set parts.norm = \"none\" and parts.residual = \"rezero\"";
  refuses({"parts.init=fixup"}, fixup);
  refuses({"parts.init=fixup", "parts.norm=none"}, fixup);
  refuses({"parts.init=fixup", "parts.residual=rezero"}, fixup);
  CHECK_NOTHROW(parse_recipe("", "r", {"parts.init=fixup", "parts.norm=none", "parts.residual=rezero"}));
  for (const std::string weight : {"sigma_reparam", "spectral_norm", "weight_norm"}) {
    refuses({"parts.weight=" + weight, "parts.init=orthogonal"},
            "parts.init \"orthogonal\" starts matrices at zero, which parts.weight \"" + weight + "\" cannot divide by their norm");
    refuses({"parts.weight=" + weight, "parts.init=fixup", "parts.norm=none", "parts.residual=rezero"},
            "parts.init \"fixup\" starts matrices at zero, which parts.weight \"" + weight + "\" cannot divide by their norm");
    refuses({"parts.weight=" + weight, "constraint.method=spectral_soft_cap"},
            "constraint.method holds the stored weights, which parts.weight \"" + weight + "\" multiplies: choose one of them");
  }
  refuses({"parts.attention=l2", "parts.qk_norm=rms"}, "parts.attention \"l2\" ties queries to keys: parts.qk_norm cannot stand between them");
  refuses(cswin + std::vector<std::string>{"parts.attention=l2"}, "parts.attention \"l2\" has no values of its own, which a cswin's LePE needs");
}
