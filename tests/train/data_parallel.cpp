// data parallel: n ranks of s shards equal one process of n * s shards, with and without ZeRO-1, and resumed on another number of them.
#include "train/data_parallel.h"

#include <nlohmann/json.hpp>
#include <thread>

#include "engine/between_nodes.h"
#include "tiny_run.h"
#include "train/csv_read.h"

namespace {

// Mixed images are drawn inside a rank's share of the batch, so nothing is mixed where runs are to be equal.
std::vector<std::string> comparable(std::vector<std::string> set) {
  const std::vector<std::string> base{"augment.mixup=0", "augment.cutmix=0", "schedule.epochs=2", "run.threads=1", "data.workers=1", "run.comm_timeout=60"};
  set.insert(set.begin(), base.begin(), base.end());
  return set;
}

// The errors of ranks that ran a training each, "" for those that ended well.
std::vector<std::string> train_ranks(int ranks, const Recipe& recipe, const fs::path& root, bool resume = false,
                                     const std::function<void(const std::shared_ptr<Communicator>&)>& first = {}) {
  const Silence silence;
  watch_signals();
  std::vector<std::shared_ptr<Communicator>> comms;
  for (auto& comm : thread_communicators(ranks, recipe.run.comm_timeout)) comms.push_back(std::move(comm));
  std::vector<std::string> errors(ranks);
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; r++)
    threads.emplace_back([&, r] {
      try {
        const std::shared_ptr<Communicator> comm = std::move(comms[r]);
        if (first) first(comm);
        check_same_start(*comm, recipe, resume);
        const auto open = r > 0 ? RunFolder::of_other_rank : resume ? RunFolder::resume : RunFolder::create;
        Trainer trainer(recipe, {"lipsgrad", "train"}, open(root), resume, comm);
        if (trainer.run() != 0) errors[r] = "the exit code is not 0";
      } catch (const std::exception& e) {
        errors[r] = e.what();
      }
    });
  for (std::thread& t : threads) t.join();
  return errors;
}

void check_equal_runs(const fs::path& a, const fs::path& b) {
  for (const char* table : {"steps.csv", "lipschitz.csv", "entropy.csv", "entropy_floor.csv", "norms.csv"}) {
    CAPTURE(table);
    const bool same = timeless(a / table) == timeless(b / table);
    CHECK(same);
  }
  // An evaluation counts the same images in other batches.
  const CsvData one = read_csv(RunPaths{a}.epochs()), other = read_csv(RunPaths{b}.epochs());
  for (const char* column : {"epoch", "step", "top1", "top5", "images"}) CHECK(one.numbers(column) == other.numbers(column));
  for (size_t i = 0; i < one.rows; i++) CHECK(one.numbers("loss")[i] == doctest::Approx(other.numbers("loss")[i]).epsilon(1e-5));
  const int64_t last = RunPaths{a}.sealed_checkpoints().back();
  REQUIRE(RunPaths{b}.sealed_checkpoints().back() == last);
  for (const char* file : {"model.safetensors", "state.safetensors", "state.json"}) {
    CAPTURE(file);
    const bool same = bytes_of(RunPaths{a}.checkpoint(last) / file) == bytes_of(RunPaths{b}.checkpoint(last) / file);
    CHECK(same);
  }
}

// One process of 4 shards against 4 ranks of 1, 2 of 2, and both under ZeRO-1.
void check_ranks_equal_shards(std::vector<std::string> set) {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  const auto recipe = [&](int shards, int zero) {
    std::vector<std::string> all = comparable(set);
    all.insert(all.end(), {str("run.shards=", shards), str("run.zero=", zero)});
    return tiny_recipe(folder / "data", all);
  };
  REQUIRE(train(recipe(4, 0), folder / "one") == 0);
  for (const auto& [ranks, zero] : {std::pair{4, 0}, std::pair{2, 0}, std::pair{4, 1}, std::pair{2, 1}}) {
    CAPTURE(ranks);
    CAPTURE(zero);
    const fs::path root = folder / str(ranks, "-", zero);
    for (const std::string& error : train_ranks(ranks, recipe(4 / ranks, zero), root)) CHECK(error == "");
    check_equal_runs(folder / "one", root);
  }
}

// Two ranks of which the other says nothing: what is started is noted as it was.
struct Recorder : Communicator {
  Recorder() : Communicator(0, 2) {}
  int64_t start(Collective c) override {
    started.push_back({c.kind, c.what, c.x.raw(), c.x.size(), c.x.values(), c.parts});
    if (on_start) on_start();
    return note_queued(c);
  }
  void wait(int64_t ticket) override { waited = ticket; }
  struct Call {
    Collective::Kind kind;
    std::string what;
    const char* data;
    int64_t size;
    std::vector<double> then;
    std::vector<Part> parts;
  };
  std::vector<Call> started;
  std::function<void()> on_start;
  int64_t waited = -1;
};

}  // namespace

TEST_CASE("data parallel: each bucket starts once, from the end of the gradient backwards, as soon as it is final") {
  for (const bool checkpointed : {false, true}) {
    CAPTURE(checkpointed);
    const Recipe recipe = tiny_recipe("nowhere", {"run.shards=1", "run.threads=1", str("run.checkpoint_activations=", checkpointed ? "true" : "false")});
    Training training(recipe, true);
    ParameterStore& store = training.model->store;
    Recorder comm;
    GradientBuckets buckets(store, comm, {});
    REQUIRE(buckets.buckets().size() >= 6);
    const auto first_is_there = [&] {
      const ShardScope shard(0);
      return store.value(0).slot()->filled;
    };
    int before_first = 0;
    comm.on_start = [&] { before_first += !first_is_there(); };
    for (int step = 0; step < 2; step++) {
      comm.started.clear();
      before_first = 0;
      const ShardScope shard(0);
      store.begin_gradients(0);
      buckets.begin();
      const Tensor images = Tensor::full({3, 1, 8, 8}, 0.5 + step, DType::f32);
      Tape tape;
      const TapeScope open(&tape);
      Mode mode{.training = true, .deterministic = true, .checkpoint_activations = checkpointed};
      const Tensor labels = Tensor::from(Shape{3}, std::vector<int>{0, 1, 2}, DType::i32);
      const Tensor loss = cross_entropy_labels(training.model->forward(patchify(images, training.model->input_patch), mode), labels, 1);
      {
        const BetweenNodes watch([&] { buckets.look(0); });
        tape.backward(loss);
      }
      buckets.finish();
      store.end_gradients(0);
      CHECK(before_first >= int(buckets.buckets().size()) / 2);   // while the backward still ran
      REQUIRE(comm.started.size() == buckets.buckets().size());
      CHECK(comm.waited == int64_t(comm.started.size()) * (step + 1) - 1);
      const char* end = store.gradient(0).raw() + store.gradient(0).bytes();
      for (size_t k = 0; k < comm.started.size(); k++) {
        const Recorder::Call& call = comm.started[k];
        CHECK(call.kind == Collective::all_reduce);
        CHECK(call.what == str("gradient bucket ", k));
        CHECK(call.data + call.size * int64_t(sizeof(float)) == end);
        end = call.data;
        const auto& bucket = buckets.buckets()[k];
        const bool was_final = call.then == store.gradient(0).slice(bucket.from, bucket.to - bucket.from).values();
        CHECK(was_final);
      }
      CHECK(end == store.gradient(0).raw());
    }
  }
}

TEST_CASE("data parallel: under ZeRO-1 each parameter is one rank's, and loads are even") {
  const Recipe recipe = tiny_recipe("nowhere", {"optimizer.name=muon"});
  Training training(recipe, true);
  const ParameterStore& store = training.model->store;
  const std::vector<int> owners = spread_parameters(store, optimizer_options(recipe), 3);
  std::vector<double> load(3);
  for (size_t p = 0; p < owners.size(); p++) load[owners[p]] += double(store.parameters()[p].size());
  for (const double l : load) CHECK(l > 0.2 * double(store.count()));
  const std::vector<Part> parts = parts_of(store, owners, 0, int(owners.size()), 0);
  int64_t at = 0;
  for (const Part& part : parts) CHECK(part.begin == std::exchange(at, part.end));
  CHECK(at == store.flat_size());
}

TEST_CASE("data parallel: ranks equal shards, with AdamW and a moving average") {
  check_ranks_equal_shards({"ema.decay=0.9", "optimizer.accumulate=2", "schedule.epochs=3"});
}

TEST_CASE("data parallel: ranks equal shards, with Muon under a constraint") {
  check_ranks_equal_shards({"optimizer.name=muon", "constraint.method=spectral_soft_cap", "run.checkpoint_activations=true"});
}

TEST_CASE("data parallel: ranks equal shards, with LARS and weights made of others") {
  check_ranks_equal_shards({"optimizer.name=lars", "parts.weight=sigma_reparam"});
}

TEST_CASE("data parallel: ranks equal shards, with SGD and statistics over the batch") {
  check_ranks_equal_shards({"optimizer.name=sgd", "parts.norm=unified"});
}

TEST_CASE("data parallel: a run is resumed on another number of ranks") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  const auto recipe = [&](int shards, int zero) {
    return tiny_recipe(folder / "data", comparable({str("run.shards=", shards), str("run.zero=", zero), "run.checkpoint_steps=3",
                                                    "run.keep_checkpoints=100", "ema.decay=0.9"}));
  };
  REQUIRE(train(recipe(4, 0), folder / "whole") == 0);
  for (const std::string& error : train_ranks(4, recipe(1, 1), folder / "ranks")) REQUIRE(error == "");
  const auto cut = [&](const std::string& from, const std::string& to) {
    fs::copy(folder / from, folder / to, fs::copy_options::recursive);
    for (const int64_t step : RunPaths{folder / to}.sealed_checkpoints())
      if (step > 3) fs::remove_all(RunPaths{folder / to}.checkpoint(step));
  };
  SUBCASE("from one to two with ZeRO-1") {
    cut("whole", "two");
    for (const std::string& error : train_ranks(2, recipe(2, 1), folder / "two", true)) CHECK(error == "");
    check_equal_runs(folder / "whole", folder / "two");
  }
  SUBCASE("from four with ZeRO-1 to one") {
    cut("ranks", "one");
    CHECK(train(recipe(4, 0), folder / "one", true) == 0);
    check_equal_runs(folder / "whole", folder / "one");
  }
}

TEST_CASE("data parallel: a rank that never comes ends the others with a line and a flight recorder") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  const Recipe recipe = tiny_recipe(folder / "data", comparable({"run.comm_timeout=4", "run.shards=1", "data.batch_size=6"}));
  const auto recorder_of = [&](int rank) { return folder / "run" / (rank == 0 ? "flight_recorder.json" : "flight_recorder.rank-1.json"); };
  const auto errors = train_ranks(3, recipe, folder / "run", false, [&](const std::shared_ptr<Communicator>& comm) {
    if (comm->rank != 2) return;
    check_same_start(*comm, recipe, false);
    const Trainer trainer(recipe, {"lipsgrad", "train"}, RunFolder::of_other_rank(folder / "run"), false, comm);
    for (int i = 0; i < 6000 && !(fs::exists(recorder_of(0)) && fs::exists(recorder_of(1))); i++) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    fail(Exit::failure, "it slept");
  });
  CHECK(errors[2] == "it slept");
  for (const int r : {0, 1}) {
    CAPTURE(errors[r]);
    CHECK(errors[r].starts_with(str("rank ", r, " of 3: collective 6 (all_gather of whether to stop, 24 bytes) did not end in 4 s")));
    CHECK(errors[r].ends_with("rank 2 has not arrived"));
    const auto recorder = nlohmann::json::parse(bytes_of(recorder_of(r)));
    CHECK(recorder["rank"] == r);
    CHECK(recorder["reason"] == errors[r]);
    const auto& last = recorder["collectives"].back();
    CHECK(last["what"] == "whether to stop");
    CHECK(last["started"] >= 0);
    CHECK(last["finished"] == -1);
    CHECK(recorder["collectives"][0]["finished"] >= 0);
  }
}

TEST_CASE("data parallel: ranks that were started differently, or cannot share a batch, are refused") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  const Recipe recipe = tiny_recipe(folder / "data", comparable({"data.batch_size=7"}));
  for (const std::string& error : train_ranks(2, recipe, folder / "run")) CHECK(error.find("data.batch_size 7 is that of all ranks together") != error.npos);
  const Recipe many = tiny_recipe(folder / "data", comparable({"data.batch_size=4", "run.shards=4"}));
  for (const std::string& error : train_ranks(2, many, folder / "run")) CHECK(error.find("run.shards 4 is more than the 2 images") != error.npos);
  const auto errors = train_ranks(2, recipe, folder / "run", false, [&](const std::shared_ptr<Communicator>& comm) {
    check_same_start(*comm, tiny_recipe(folder / "data", comparable({str("run.seed=", comm->rank)})), false);
  });
  for (const std::string& error : errors) CHECK(error.find("ranks 0 and 1 were started with different recipes") != error.npos);
  CHECK(!fs::exists(folder / "run"));
}

TEST_CASE("data parallel: ranks that would go on from different steps, or from other data, are refused") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  const Recipe recipe = tiny_recipe(folder / "data", comparable({}));
  REQUIRE(train(recipe, folder / "run") == 0);
  fs::create_directories(folder / "empty");
  fs::copy(folder / "run" / "recipe.toml", folder / "empty" / "recipe.toml");
  fs::copy(folder / "data", folder / "more", fs::copy_options::recursive);
  const fs::path image = fs::directory_iterator(fs::directory_iterator(folder / "more" / "train")->path())->path();
  fs::copy(image, image.parent_path() / "another.png");
  for (const bool other_data : {false, true}) {
    std::vector<std::string> errors(2);
    std::vector<std::thread> threads;
    std::vector<std::shared_ptr<Communicator>> comms;
    for (auto& comm : thread_communicators(2, 60)) comms.push_back(std::move(comm));
    for (int r = 0; r < 2; r++)
      threads.emplace_back([&, r] {
        Recipe mine = recipe;
        if (r == 1 && other_data) mine.data.path = (folder / "more").string();
        try {
          Trainer(mine, {"lipsgrad", "train"}, RunFolder::of_other_rank(folder / (r == 1 && !other_data ? "empty" : "run")), true, std::move(comms[r]));
        } catch (const std::exception& e) {
          errors[r] = e.what();
        }
      });
    for (std::thread& thread : threads) thread.join();
    for (const std::string& error : errors) {
      CAPTURE(error);
      CHECK(error.starts_with(other_data ? "the data: rank 0 has " : "the start: rank 0 has step "));
    }
  }
}

TEST_CASE("data parallel: two ranks on devices give the tables of one") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  const Recipe recipe = tiny_recipe(folder / "data", comparable({"run.device=cuda", "run.dtype=f64", "schedule.epochs=1", "ledger.measure_samples=0"}));
  REQUIRE(train(recipe, folder / "one") == 0);
  for (const std::string& error : train_ranks(2, recipe, folder / "two")) CHECK(error == "");
  const CsvData one = read_csv(folder / "one" / "norms.csv"), two = read_csv(folder / "two" / "norms.csv");
  REQUIRE(one.rows > 0);
  REQUIRE(two.rows == one.rows);
  for (const CsvColumn& column : one.columns)
    for (size_t i = 0; i < one.rows; i++) CHECK(two.numbers(column.name)[i] == doctest::Approx(column.numbers[i]).epsilon(1e-6));
}

TEST_CASE("data parallel: devices under ZeRO-1 equal devices that have all, to the bit, and resume from each other") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  const std::vector<std::string> adamw{"optimizer.name=adamw", "ema.decay=0.9", "optimizer.clip_grad=0.5"};
  const std::vector<std::string> muon{"optimizer.name=muon", "constraint.method=spectral_soft_cap", "constraint.sigma_max=0.8", "optimizer.clip_grad=0.5"};
  for (std::vector<std::string> set : {adamw, muon}) {
    CAPTURE(set[0]);
    set.insert(set.end(), {"run.device=cuda", "schedule.epochs=1", "ledger.measure_samples=0", "run.checkpoint_steps=3", "run.keep_checkpoints=100"});
    const auto recipe = [&](int zero) {
      std::vector<std::string> all = comparable(set);
      all.push_back(str("run.zero=", zero));
      return tiny_recipe(folder / "data", all);
    };
    const fs::path whole = folder / (set[0] + "-0"), spread = folder / (set[0] + "-1");
    for (const std::string& error : train_ranks(2, recipe(0), whole)) CHECK(error == "");
    for (const std::string& error : train_ranks(2, recipe(1), spread)) CHECK(error == "");
    check_equal_runs(whole, spread);
    fs::copy(whole, folder / "resumed", fs::copy_options::recursive);
    for (const int64_t step : RunPaths{folder / "resumed"}.sealed_checkpoints())
      if (step > 3) fs::remove_all(RunPaths{folder / "resumed"}.checkpoint(step));
    for (const std::string& error : train_ranks(2, recipe(1), folder / "resumed", true)) CHECK(error == "");
    check_equal_runs(whole, folder / "resumed");
    fs::remove_all(folder / "resumed");
  }
}
