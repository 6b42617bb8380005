// checkpoint: whole or not at all, of this model or refused, and no more of them than wanted.
#include "train/checkpoint.h"

#include "tiny_run.h"

namespace {

// A training with state worth saving: two steps done.
std::unique_ptr<Training> stepped(const Recipe& recipe) {
  auto training = std::make_unique<Training>(recipe, true);
  Input input;
  input.images = Tensor::zeros({2, 1, 8, 8}, DType::f32);
  for (int i = 0; i < 128; i++) input.images.data<float>()[i] = float(i % 7) - 3;
  input.targets = Tensor::from({2, 3}, std::vector<float>{1, 0, 0, 0, 0, 1}, DType::f32);
  input.valid = 2;
  for (uint32_t step = 0; step < 2; step++) training->update(1e-2, training->gradients({input}, step));
  training->norms->iterate(training->workers, 3);
  return training;
}

bool same_bytes(const Tensor& a, const Tensor& b) { return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0; }

}  // namespace

TEST_CASE("checkpoint: gives back weights, moments, averages, power iteration and position") {
  const ScratchFolder folder;
  const Recipe recipe = tiny_recipe("unused", {"ema.decay=0.5"});
  const RunPaths run{folder.path};
  const auto saved = stepped(recipe);
  save_checkpoint(run, *saved, {7, 1, 2}, 2);
  Training loaded(recipe, true);
  REQUIRE(!same_bytes(loaded.model->store.values(), saved->model->store.values()));
  const Position position = load_checkpoint(newest_checkpoint(run), loaded);
  CHECK(position.step == 7);
  CHECK(position.epoch == 1);
  CHECK(position.batch == 2);
  CHECK(loaded.optimizer->steps == 2);
  CHECK(same_bytes(loaded.model->store.values(), saved->model->store.values()));
  const auto loaded_state = loaded.optimizer->state(), saved_state = saved->optimizer->state();
  REQUIRE(saved_state.contains("adamw.m"));
  REQUIRE(saved_state.contains("adamw.v"));
  for (const auto& [name, tensor] : saved_state) CHECK(same_bytes(*loaded_state.at(name), *tensor));
  CHECK(same_bytes(loaded.optimizer->ema, saved->optimizer->ema));
  CHECK(loaded.norms->state() == saved->norms->state());
}

TEST_CASE("checkpoint: of another model is refused") {
  const ScratchFolder folder;
  const RunPaths run{folder.path};
  save_checkpoint(run, *stepped(tiny_recipe("unused")), {1, 0, 1}, 2);
  for (const char* other : {"model.mlp_ratio=4", "parts.tau=5", "parts.attention=dot"}) {
    CAPTURE(other);
    Training training(tiny_recipe("unused", {other}), true);
    CHECK_THROWS_WITH_AS(load_checkpoint(newest_checkpoint(run), training), doctest::Contains("belongs to another model"), Error);
  }
  Training averaging(tiny_recipe("unused", {"ema.decay=0.9"}), true);
  CHECK_THROWS_WITH_AS(load_checkpoint(newest_checkpoint(run), averaging), doctest::Contains("lacks ema."), Error);
  Training longer(tiny_recipe("unused", {"schedule.epochs=9", "optimizer.lr=1"}), true);
  CHECK_NOTHROW(load_checkpoint(newest_checkpoint(run), longer));
}

TEST_CASE("checkpoint: a changed byte anywhere is found") {
  const ScratchFolder folder;
  const RunPaths run{folder.path};
  const Recipe recipe = tiny_recipe("unused");
  save_checkpoint(run, *stepped(recipe), {1, 0, 1}, 2);
  const fs::path checkpoint = newest_checkpoint(run);
  for (const char* name : {"model.safetensors", "state.safetensors", "state.json"}) {
    const std::string sound = bytes_of(checkpoint / name);
    for (const size_t at : {size_t(0), sound.size() / 2, sound.size() - 1}) {
      CAPTURE(name);
      CAPTURE(at);
      std::string damaged = sound;
      damaged[at] ^= 1;
      write_bytes(checkpoint / name, damaged);
      Training training(recipe, true);
      CHECK_THROWS_WITH_AS(load_checkpoint(checkpoint, training), doctest::Contains("is damaged"), Error);
    }
    write_bytes(checkpoint / name, sound.substr(0, sound.size() - 1));
    CHECK_THROWS_WITH_AS(newest_checkpoint(run), doctest::Contains("no complete checkpoint"), Error);
    write_bytes(checkpoint / name, sound);
  }
  Training training(recipe, true);
  CHECK_NOTHROW(load_checkpoint(checkpoint, training));
}

TEST_CASE("checkpoint: the newest are kept, and an unfinished one is written anew") {
  const ScratchFolder folder;
  const RunPaths run{folder.path};
  const auto training = stepped(tiny_recipe("unused"));
  for (const int64_t step : {3, 6, 9, 12}) save_checkpoint(run, *training, {step, 0, step}, 2);
  CHECK(run.sealed_checkpoints() == std::vector<int64_t>{9, 12});
  CHECK(!fs::exists(run.checkpoint(6)));
  write_bytes(run.checkpoint(15) / "model.safetensors", "half of it");
  CHECK(run.sealed_checkpoints() == std::vector<int64_t>{9, 12});
  save_checkpoint(run, *training, {15, 0, 15}, 1);
  CHECK(run.sealed_checkpoints() == std::vector<int64_t>{15});
}
