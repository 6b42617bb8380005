// text: what a text file becomes: a vocabulary, two parts, sequences in an order that only seed and epoch decide.
#include <set>

#include "data/text.h"

#include <set>

#include "engine/random.h"
#include "helpers.h"

namespace {

std::string refusal(Exit exit, auto make) {
  try {
    make();
  } catch (const Error& error) {
    CHECK(error.exit == exit);
    return error.what();
  }
  return "nothing was refused";
}

// n letters at random: no piece of seven stands in it twice.
std::string long_text(int n) {
  std::string text;
  const RandomStream stream(1, "text");
  for (int i = 0; i < n; i++) text += char('a' + stream.words(0, uint64_t(i), 0)[0] % 26);
  return text;
}

Text part_of(const std::string& all, bool training, int context) {
  const TemporaryFolder folder;
  write_text(folder / "text.txt", all);
  return Text::open(folder / "text.txt", training, context);
}

// All batches from the given one on, as (tokens, next tokens) of their sequences.
using Pair = std::pair<std::vector<int>, std::vector<int>>;
std::vector<Pair> sequences_of(TextSource& source, int context, int epoch, int64_t first_batch = 0) {
  std::vector<Pair> all;
  Batch batch;
  source.start(epoch, first_batch);
  while (source.next(batch)) {
    REQUIRE(batch.tokens.size() == size_t(batch.count) * size_t(context));
    REQUIRE(batch.next_tokens.size() == batch.tokens.size());
    for (int i = 0; i < batch.count; i++)
      all.push_back({{batch.tokens.begin() + i * context, batch.tokens.begin() + (i + 1) * context},
                     {batch.next_tokens.begin() + i * context, batch.next_tokens.begin() + (i + 1) * context}});
  }
  return all;
}

}  // namespace

TEST_CASE("text: the vocabulary is that of the whole, the first nine tenths train") {
  std::string all = "hello\n";
  all += "\xff and \x80 are bytes like others; ";
  while (all.size() < 999) all += 'o';
  all.back() = 'Z';   // only in the validation part
  const Text train = part_of(all, true, 4), val = part_of(all, false, 4);
  CHECK(train.vocabulary == val.vocabulary);
  CHECK(train.tokens.size() == 899);   // int(0.9 * 999)
  CHECK(val.tokens.size() == 100);
  CHECK(std::is_sorted(train.vocabulary.begin(), train.vocabulary.end(), [](const auto& a, const auto& b) { return uint8_t(a[0]) < uint8_t(b[0]); }));
  CHECK(train.vocabulary.front() == "\n");
  CHECK(train.vocabulary.back() == "\xff");
  std::string back;
  for (const Text* part : {&train, &val})
    for (const int t : part->tokens) back += train.vocabulary[size_t(t)];
  CHECK(back == all);
}

TEST_CASE("text: training sequences are pieces of the text, each epoch tiles it once, from another place and in another order") {
  const int context = 7;
  const Text text = part_of(long_text(1000), true, context);   // 900 tokens
  TextSource source(text, context, 4, true, 5);
  CHECK(source.sequences() == (899 - 6) / 7);
  CHECK(source.batches() == source.sequences() / 4);
  std::set<int> offsets;
  std::vector<std::vector<Pair>> epochs;
  for (int epoch = 0; epoch < 6; epoch++) {
    const std::vector<Pair> all = sequences_of(source, context, epoch);
    CHECK(int64_t(all.size()) == source.batches() * 4);
    std::set<int> begins;
    for (const auto& [tokens, next] : all) {
      const auto at = std::search(text.tokens.begin(), text.tokens.end(), tokens.begin(), tokens.end());
      REQUIRE(at != text.tokens.end());
      const int begin = int(at - text.tokens.begin());
      begins.insert(begin);
      for (int t = 0; t < context; t++) CHECK(next[size_t(t)] == text.tokens[size_t(begin + t + 1)]);
    }
    CHECK(begins.size() == all.size());   // none twice
    std::set<int> remainders;
    for (const int b : begins) remainders.insert(b % context);
    CHECK(remainders.size() == 1);
    offsets.insert(*remainders.begin());
    epochs.push_back(all);
  }
  CHECK(offsets.size() > 2);
  CHECK(epochs[0] != epochs[1]);
}

TEST_CASE("text: the order is a function of seed and epoch alone, and goes on in the middle") {
  const int context = 7;
  const Text text = part_of(long_text(1000), true, context);
  TextSource a(text, context, 4, true, 5), b(text, context, 4, true, 5), other(text, context, 4, true, 6);
  sequences_of(a, context, 0);
  sequences_of(a, context, 3);
  const std::vector<Pair> whole = sequences_of(a, context, 2);
  CHECK(sequences_of(b, context, 2) == whole);
  CHECK(sequences_of(other, context, 2) != whole);
  for (const int64_t from : {int64_t(1), int64_t(10), a.batches() - 1, a.batches()})
    CHECK(sequences_of(b, context, 2, from) == std::vector<Pair>(whole.begin() + from * 4, whole.end()));
}

TEST_CASE("text: ranks share every batch in order, and a validation sequence by sequence") {
  const int context = 8, ranks = 3;
  for (const bool training : {true, false}) {
    const Text text = part_of(long_text(2000), training, context);
    TextSource one(text, context, 2 * ranks, training, 5);
    const std::vector<Pair> whole = sequences_of(one, context, 1);
    size_t met = 0;
    for (int rank = 0; rank < ranks; rank++) {
      TextSource source(text, context, 2, training, 5, rank, ranks);
      if (training) CHECK(source.batches() == one.batches());
      const std::vector<Pair> share = sequences_of(source, context, 1);
      for (size_t i = 0; i < share.size(); i++) CHECK(share[i] == whole[training ? i / 2 * 2 * ranks + 2 * rank + i % 2 : i * ranks + rank]);
      met += share.size();
    }
    CHECK(met == whole.size());
  }
}

TEST_CASE("text: validation predicts each token but the first exactly once, and nothing behind the end") {
  for (const int characters : {1000, 1010, 1020, 1030, 1070}) {
    CAPTURE(characters);
    const int context = 8;
    const Text text = part_of(long_text(characters), false, context);
    TextSource source(text, context, 3, false, 5);
    std::vector<int> predicted;
    int padding = 0;
    const std::vector<Pair> all = sequences_of(source, context, 0);
    CHECK(int64_t(all.size()) == source.sequences());
    for (const auto& [tokens, next] : all)
      for (int t = 0; t < context; t++) {
        if (next[size_t(t)] < 0) {
          CHECK(next[size_t(t)] == -1);
          padding++;
          continue;
        }
        CHECK(padding == 0);   // only at the end
        CHECK(tokens[size_t(t)] == text.tokens[predicted.size()]);   // what stands in front of it
        predicted.push_back(next[size_t(t)]);
      }
    CHECK(predicted == std::vector<int>(text.tokens.begin() + 1, text.tokens.end()));
    CHECK(padding < context);
    CHECK(sequences_of(source, context, 7) == all);   // every epoch the same
    for (const auto& [tokens, next] : all)
      for (const int t : tokens) CHECK((t >= 0 && t < int(text.vocabulary.size())));
  }
}

TEST_CASE("text: one sequence is enough, and a batch that is not full is left out of training only") {
  const Text train = part_of(long_text(90), true, 80), val = part_of(long_text(90), false, 8);
  CHECK(train.tokens.size() == 81);
  TextSource one(train, 80, 1, true, 0), four(train, 80, 4, true, 0), last(val, 8, 4, false, 0);
  CHECK(one.batches() == 1);
  CHECK(sequences_of(one, 80, 3).size() == 1);
  CHECK(four.batches() == 0);
  CHECK(last.batches() == 1);
  CHECK(sequences_of(last, 8, 0).size() == 1);
}

TEST_CASE("text: files that cannot be used are refused with what to do") {
  const TemporaryFolder folder;
  CHECK(refusal(Exit::no_input, [&] { Text::open(folder / "gone.txt", true, 4); }).find("gone.txt") != std::string::npos);
  CHECK(refusal(Exit::no_input, [&] { Text::open(folder.path.string(), true, 4); }).find(folder.path.string()) != std::string::npos);
  for (const int characters : {0, 1, 9, 44}) {
    CAPTURE(characters);
    write_text(folder / "short.txt", long_text(characters));
    for (const bool training : {true, false}) {
      if (characters == 44 && training) continue;   // 39 to train on
      const std::string said = refusal(Exit::bad_data, [&] { Text::open(folder / "short.txt", training, 8); });
      CHECK(said.find("choose a longer text or a smaller model.context") != std::string::npos);
    }
  }
  write_text(folder / "fits.txt", long_text(89));
  CHECK(Text::open(folder / "fits.txt", false, 8).tokens.size() == 9);
}
