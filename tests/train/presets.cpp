// The presets are the published models: their sizes, to the last digit.
#include <doctest/doctest.h>

#include "train/training.h"

namespace {

int64_t parameters(const std::string& preset, std::vector<std::string> set = {}) {
  const std::unique_ptr<Model> model = build_model(load_recipe(preset, set));
  int64_t n = model->store.count();
  for (const BufferInfo& buffer : model->store.buffers()) n += buffer.frozen ? buffer.shape.size() : 0;
  return n;
}

}  // namespace

TEST_CASE("presets: ViT and DeiT have the published sizes, with and without sigma-Reparam") {
  CHECK(parameters("deit_tiny") == 5717416);
  CHECK(parameters("deit_small") == 22050664);
  CHECK(parameters("deit_base") == 86567656);
  CHECK(parameters("vit_large") == 304326632);
  CHECK(parameters("deit_base", {"model.patch_size=32"}) == 88224232);
  const std::vector<std::string> reparam{"parts.norm=none", "parts.weight=sigma_reparam"};
  CHECK(parameters("deit_tiny", reparam) == 5707866);
  CHECK(parameters("deit_small", reparam) == 22031514);
  CHECK(parameters("sigma_reparam_vit_base") == 86529306);
  CHECK(parameters("vit_large", reparam) == 304226378);
}

TEST_CASE("presets: CSwin and LipsFormer-CSwin have the published sizes, the norm that is never applied counted") {
  CHECK(parameters("cswin_tiny") == 22320552);
  CHECK(parameters("cswin_small") == 34643304);
  CHECK(parameters("cswin_base") == 77382184);
  CHECK(parameters("lipsformer_cswin_tiny") == 23780136);
  CHECK(parameters("lipsformer_cswin_small") == 37505832);
  CHECK(parameters("lipsformer_cswin_base") == 83052232);
}

TEST_CASE("presets: T2T-ViT-14 has the published size, its fixed positions and features counted") {
  CHECK(parameters("t2t_vit_14") == 21545550);
  CHECK(parameters("unified_t2t_vit_14") == 21545550);   // Unified Normalization adds buffers only
}

TEST_CASE("presets: the enforced models have the paper's sizes") {
  CHECK(parameters("enforced_gpt_small") == 12 * 12 * 768 * 768 + 2 * 50304 * 768);
  CHECK(parameters("enforced_mlp_cifar") == (3072 + 256 + 10) * 256);
}

TEST_CASE("presets: the papers' models train with the papers' augmentation, the small ones without") {
  for (const char* name : {"lipsformer_swin_base", "lipsformer_cswin_small", "swin_small", "unified_swin_tiny", "cswin_base", "deit_base", "vit_large",
                           "sigma_reparam_vit_base", "unified_t2t_vit_14"})
    CHECK_MESSAGE(load_recipe(name).augment.auto_augment == "rand-m9-mstd0.5-inc1", name);
  for (const char* name : {"fashion-lipsformer", "fashion-vit", "fashion-unified-swin", "enforced_mlp_cifar", "text-enforced-gpt"})
    CHECK_MESSAGE(load_recipe(name).augment.auto_augment == "none", name);
  CHECK(load_recipe("deit_small").augment.repeats == 3);
  CHECK(load_recipe("cswin_base").data.interpolation == "random");
}

TEST_CASE("presets: each of them builds") {
  for (const std::string& name : preset_names()) {
    CAPTURE(name);
    CHECK(parameters(name) > 0);
  }
}
