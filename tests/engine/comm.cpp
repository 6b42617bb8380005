// comm: every collective equals its definition, in its stated order, over threads and TCP; a rank that is late or gone is named.
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <thread>

#include "engine/comm.h"
#include "engine/comm_launch.h"
#include "engine/random.h"

namespace {

using Ranks = std::vector<std::unique_ptr<Communicator>>;

// f(rank) on a thread for each; the communicator goes with its thread. What it threw, or "".
std::vector<std::string> on_each(Ranks ranks, const std::function<void(Communicator&)>& f) {
  std::vector<std::string> errors(ranks.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < ranks.size(); r++)
    threads.emplace_back([&, r] {
      try {
        const std::unique_ptr<Communicator> mine = std::move(ranks[r]);
        f(*mine);
      } catch (const Error& e) {
        CHECK(e.exit == Exit::unavailable);
        errors[r] = e.what();
      }
    });
  for (std::thread& t : threads) t.join();
  return errors;
}

Ranks over_tcp(int size, double timeout) {
  static std::atomic<int> next = 0;
  const int port = 20000 + (getpid() * 7 + next++) % 12000;   // below those that a system gives away by itself
  Ranks ranks(size);
  std::vector<std::thread> threads;
  for (int r = 0; r < size; r++) threads.emplace_back([&, r] { ranks[r] = tcp_communicator(r, size, "127.0.0.1", port, timeout); });
  for (std::thread& t : threads) t.join();
  return ranks;
}

float number(int rank, int64_t i) {
  const Words w = RandomStream(3, "comm").words(uint32_t(rank), uint64_t(i), 0);
  return normal_from(w[0], w[1]);
}

// The sum of ranks [lo, hi) by halves.
template <class T> T summed(int lo, int hi, int64_t i) {
  if (hi - lo == 1) return T(number(lo, i));
  const int mid = (lo + hi) / 2;
  return summed<T>(lo, mid, i) + summed<T>(mid, hi, i);
}

template <class T> void check_collectives(Communicator& comm) {
  const int64_t n = 1003;
  const auto fresh = [&] {
    Tensor x = Tensor::empty({n}, dtype_of<T>);
    for (int64_t i = 0; i < n; i++) x.data<T>()[i] = T(number(comm.rank, i));
    return x;
  };
  // Unequal parts, two of one owner, an empty one, and numbers that belong to nobody.
  const int last = comm.size - 1;
  const std::vector<Part> parts{{0, 5, last}, {5, 300, 0}, {300, 300, 0}, {310, 999, last}};
  const Tensor a = fresh(), b = fresh(), c = fresh(), d = fresh();
  const int64_t first = comm.all_reduce(a, "a");
  comm.reduce_scatter(b, parts, "b");
  comm.all_gather(c, parts, "c");
  comm.wait(comm.broadcast(d, last, "d"));
  comm.wait(first);
  comm.wait(comm.barrier("the end"));
  bool reduced = true, scattered = true, gathered = true, sent = true;
  for (int64_t i = 0; i < n; i++) {
    const T sum = summed<T>(0, comm.size, i);
    int owner = -1;
    for (const Part& part : parts)
      if (i >= part.begin && i < part.end) owner = part.owner;
    reduced &= a.data<T>()[i] == sum;
    scattered &= owner != comm.rank || b.data<T>()[i] == sum;
    gathered &= c.data<T>()[i] == T(number(owner < 0 ? comm.rank : owner, i));
    sent &= d.data<T>()[i] == T(number(last, i));
  }
  CHECK(reduced);
  CHECK(scattered);
  CHECK(gathered);
  CHECK(sent);
}

}  // namespace

TEST_CASE("comm: collectives equal their definition, bit for bit in the stated order") {
  for (const int size : {1, 2, 3, 4, 5}) {
    CAPTURE(size);
    for (const bool tcp : {false, true}) {
      CAPTURE(tcp);
      const auto errors = on_each(tcp ? over_tcp(size, 20) : thread_communicators(size, 20), [](Communicator& comm) {
        check_collectives<float>(comm);
        check_collectives<double>(comm);
      });
      for (const std::string& e : errors) CHECK(e == "");
    }
  }
  check_collectives<float>(*solo_communicator());
}

TEST_CASE("comm: large messages in many collectives under way at once") {
  const auto errors = on_each(over_tcp(3, 20), [](Communicator& comm) {
    std::vector<Tensor> all;
    int64_t last = 0;
    for (int k = 0; k < 8; k++) {
      all.push_back(Tensor::full({1 << 20}, comm.rank + k, DType::f32));
      last = comm.all_reduce(all.back(), str("bucket ", k));
    }
    comm.wait(last);
    for (int k = 0; k < 8; k++) CHECK(all[k].data<float>()[(1 << 20) - 1] == float(3 + 3 * k));
  });
  for (const std::string& e : errors) CHECK(e == "");
}

TEST_CASE("comm: a rank that never arrives ends the others with one line that names it") {
  for (const bool tcp : {false, true}) {
    CAPTURE(tcp);
    std::atomic<int> ended = 0;
    const auto errors = on_each(tcp ? over_tcp(3, 0.3) : thread_communicators(3, 0.3), [&](Communicator& comm) {
      const Tensor x = Tensor::full({1000}, 1, DType::f32);
      comm.wait(comm.all_reduce(x, "warm-up"));
      if (comm.rank == 1)
        while (ended < 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));   // hangs
      if (comm.rank == 1) return;
      try {
        comm.wait(comm.all_reduce(x, "bucket 4"));
      } catch (...) {
        const std::vector<CollectiveRecord> records = comm.recent();
        REQUIRE(records.size() == 2);
        CHECK(records[0].finished >= records[0].started);
        CHECK(records[1].what == "bucket 4");
        CHECK(records[1].started >= 0);
        CHECK(records[1].finished == -1);
        ended++;
        throw;
      }
    });
    for (const int r : {0, 2}) {
      CAPTURE(errors[r]);
      CHECK(errors[r].starts_with(str("rank ", r, " of 3: collective 1 (all_reduce of bucket 4, 4.0 kB) did not end in 0.3 s")));
      CHECK(errors[r].ends_with(": rank 1 has not arrived"));
    }
  }
}

TEST_CASE("comm: a rank that is gone is named at once, long before the time is over") {
  for (const bool tcp : {false, true}) {
    CAPTURE(tcp);
    const auto errors = on_each(tcp ? over_tcp(2, 300) : thread_communicators(2, 300), [](Communicator& comm) {
      if (comm.rank == 1) return;
      comm.wait(comm.barrier("the start"));
    });
    CHECK(errors[0] == "rank 0 of 2: collective 0 (barrier of the start, 0 bytes) cannot end: rank 1 is gone");
  }
}

TEST_CASE("comm: a patient barrier waits beyond the time-out, another does not") {
  for (const bool patient : {true, false}) {
    const auto errors = on_each(thread_communicators(2, 0.3), [&](Communicator& comm) {
      if (comm.rank == 1) std::this_thread::sleep_for(std::chrono::seconds(1));
      comm.wait(comm.barrier("the start", patient));
    });
    CHECK((errors[0] == "") == patient);
  }
}

TEST_CASE("comm: ranks that do not do the same are told so") {
  for (std::unique_ptr<Communicator>& c : [] {
         Ranks ranks = thread_communicators(2, 20);
         std::thread other([&] {
           const Tensor x = Tensor::zeros({7}, DType::f32);
           CHECK_THROWS_AS(ranks[1]->wait(ranks[1]->all_reduce(x, "x")), Error);
         });
         const Tensor x = Tensor::zeros({8}, DType::f32);
         CHECK_THROWS_WITH(ranks[0]->wait(ranks[0]->all_reduce(x, "x")),
                           doctest::Contains("rank 0 of 2: collective 0 (all_reduce of x, 32 bytes) meets rank 1 at collective 0 (all_reduce, 28 bytes)"));
         other.join();
         return ranks;
       }())
    c.reset();
}

TEST_CASE("comm: sums by halves do not depend on how parts are split over ranks, a power of two of them") {
  const int64_t n = 100;
  for (const int shards : {1, 2, 3, 5})
    for (const int ranks : {2, 4, 8}) {
      std::vector<std::vector<float>> terms(shards * ranks, std::vector<float>(n));
      for (size_t s = 0; s < terms.size(); s++)
        for (int64_t i = 0; i < n; i++) terms[s][i] = number(int(s), i);
      auto copy = terms;
      std::vector<float*> whole, firsts;
      for (auto& t : terms) whole.push_back(t.data());
      add_halves(whole.data(), shards * ranks, n);
      for (int r = 0; r < ranks; r++) {
        std::vector<float*> mine;
        for (int s = 0; s < shards; s++) mine.push_back(copy[r * shards + s].data());
        add_halves(mine.data(), shards, n);
        firsts.push_back(mine[0]);
      }
      add_halves(firsts.data(), ranks, n);
      CHECK(copy[0] == terms[0]);
    }
}

TEST_CASE("comm: the launcher is read from its environment") {
  const auto launch = [](std::map<std::string, std::string> variables) {
    return launch_of([=](const char* name) -> std::optional<std::string> {
      const auto it = variables.find(name);
      return it == variables.end() ? std::nullopt : std::optional(it->second);
    });
  };
  CHECK(launch({}).size == 1);
  const Launch t = launch({{"RANK", "3"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "1"}, {"MASTER_ADDR", "n0"}, {"MASTER_PORT", "29500"}});
  CHECK(t.by == "torchrun");
  CHECK((t.rank == 3 && t.size == 4 && t.local_rank == 1 && t.address == "n0" && t.port == 29500));
  CHECK(launch({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "n0"}, {"MASTER_PORT", "7"}, {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                {"TORCHELASTIC_RESTART_COUNT", "2"}}).port == 10);
  const Launch m = launch({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}, {"SLURM_PROCID", "0"},
                           {"SLURM_NTASKS", "1"}, {"SLURM_STEP_ID", "0"}});
  CHECK((m.by == "mpirun" && m.rank == 1 && m.size == 2));
  const std::map<std::string, std::string> step{{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}, {"SLURM_LOCALID", "1"}, {"SLURM_STEP_ID", "0"},
                                                {"SLURM_JOB_ID", "123456"}, {"SLURM_STEP_NODELIST", "gpu[07,12]"}};
  const Launch s = launch(step);
  CHECK((s.by == "srun" && s.rank == 1 && s.size == 2 && s.local_rank == 1 && s.address == "gpu07" && s.port == 18456));
  auto shell = step;
  shell["SLURM_JOB_NAME"] = "interactive";
  CHECK(launch(shell).size == 1);
  CHECK_THROWS_WITH(launch({{"RANK", "0"}, {"WORLD_SIZE", "2"}}), doctest::Contains("MASTER_ADDR"));
  CHECK_THROWS_WITH(launch({{"RANK", "2"}, {"WORLD_SIZE", "2"}}), doctest::Contains("rank 2 of 2"));
  CHECK_THROWS_WITH(launch({{"RANK", "x"}, {"WORLD_SIZE", "2"}}), doctest::Contains("RANK"));
  CHECK(first_host("gpu[01-03,07],login2") == "gpu01");
  CHECK(first_host("a,b[1-2]") == "a");
  CHECK(first_host("n[3]-ib,x") == "n3-ib");
  CHECK(first_host("single") == "single");
}
