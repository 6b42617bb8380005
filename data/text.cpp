// text.cpp: reading a text and cutting it into sequences.
#include "data/text.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "data/permutation.h"
#include "engine/check.h"
#include "engine/durable_file.h"
#include "engine/random.h"

Text Text::open(const std::string& path, bool training, int context) {
  if (!std::filesystem::is_regular_file(path)) fail(Exit::no_input, path, " is not a file: data.path of a text model names one file of text");
  const std::string all = read_file(path);
  std::array<int, 256> number;
  number.fill(-1);
  std::array<bool, 256> seen{};
  for (const char c : all) seen[uint8_t(c)] = true;
  Text text;
  for (int c = 0; c < 256; c++)
    if (seen[c]) {
      number[c] = int(text.vocabulary.size());
      text.vocabulary.push_back(std::string(1, char(c)));
    }
  const size_t cut = all.size() * 9 / 10;
  const std::string part = training ? all.substr(0, cut) : all.substr(cut);
  if (part.size() < size_t(context) + 1)
    fail(Exit::bad_data, path, " has ", part.size(), " characters to ", training ? "train" : "validate", " on, fewer than one sequence of ", context,
         ": choose a longer text or a smaller model.context");
  text.tokens.resize(part.size());
  for (size_t i = 0; i < part.size(); i++) text.tokens[i] = number[uint8_t(part[i])];
  return text;
}

TextSource::TextSource(const Text& text, int context, int batch_size, bool training, uint64_t seed, int rank, int ranks)
    : text_(text), context_(context), batch_size_(batch_size), training_(training), seed_(seed), rank_(rank), ranks_(ranks) {
  const int64_t predicted = int64_t(text.tokens.size()) - 1;
  // Training gives up less than a sequence at either end; validation pads its last one.
  sequences_ = training ? std::max<int64_t>(1, (predicted - (context - 1)) / context) : (predicted + context - 1) / context;
  batches_ = training ? sequences_ / (int64_t(batch_size) * ranks) : (share() + batch_size - 1) / batch_size;
}

// Sequences of a validation that are this rank's.
int64_t TextSource::share() const { return (sequences_ - rank_ + ranks_ - 1) / ranks_; }

void TextSource::start(int epoch, int64_t first_batch) {
  epoch_ = epoch;
  next_batch_ = first_batch;
  const int64_t room = int64_t(text_.tokens.size()) - 1 - sequences_ * context_;   // offsets that keep all sequences inside
  offset_ = 0;
  if (!training_ || room <= 0) return;
  const Words words = RandomStream(seed_, "text_offset").words(uint32_t(epoch), 0, 0);
  offset_ = int64_t(words[0] % uint64_t(std::min<int64_t>(room + 1, context_)));
}

bool TextSource::next(Batch& batch) {
  if (next_batch_ >= batches_) return false;
  const int64_t first = next_batch_ * batch_size_, count = training_ ? batch_size_ : std::min<int64_t>(batch_size_, share() - first);
  const Permutation order(seed_, uint32_t(epoch_), uint64_t(sequences_));
  batch = Batch{};
  batch.count = int(count);
  const int64_t length = int64_t(text_.tokens.size());
  for (int64_t i = 0; i < count; i++) {
    const int64_t place = training_ ? (next_batch_ * ranks_ + rank_) * batch_size_ + i : (first + i) * ranks_ + rank_;
    const int64_t sequence = training_ ? int64_t(order[uint64_t(place)]) : place, begin = offset_ + sequence * context_;
    batch.samples.push_back(sequence);
    for (int64_t t = begin; t < begin + context_; t++) {
      batch.tokens.push_back(t < length ? text_.tokens[size_t(t)] : 0);
      batch.next_tokens.push_back(t + 1 < length ? text_.tokens[size_t(t + 1)] : -1);
    }
  }
  next_batch_++;
  return true;
}
