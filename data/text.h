// text.h: a text as tokens, one a character (a byte), and its batches: the character-level reader of the GPT models.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/batch_source.h"

// A file of text cut in two: the first 90 % of its characters to train on, the rest to validate on (nanoGPT). The vocabulary is that of the
// whole text: its bytes in order.
struct Text {
  std::vector<int> tokens;             // of the part
  std::vector<std::string> vocabulary;

  // Exit::no_input without such a file, Exit::bad_data where it is too short for one sequence of each part.
  static Text open(const std::string& path, bool training, int context);
};

// Training: sequences of `context` tokens that tile the text from an offset that changes with the epoch, in an order of its own; a pure function of
// (seed, epoch). Validation: the whole part, sequence after sequence, each token but the first predicted once; what lies behind its end has label -1.
class TextSource : public BatchSource {
 public:
  // rank, ranks: of several processes; as in LoaderConfig.
  TextSource(const Text& text, int context, int batch_size, bool training, uint64_t seed, int rank = 0, int ranks = 1);
  TextSource(const Text&&, int, int, bool, uint64_t, int = 0, int = 1) = delete;   // the text must outlive it
  int64_t batches() const override { return batches_; }
  int64_t sequences() const { return sequences_; }
  void start(int epoch, int64_t first_batch = 0) override;
  bool next(Batch& batch) override;
  const std::vector<DamagedImage>& damaged() const override { return none_; }

 private:
  int64_t share() const;
  const Text& text_;
  const int context_, batch_size_;
  const bool training_;
  const uint64_t seed_;
  const int rank_, ranks_;
  int64_t sequences_ = 0, batches_ = 0, next_batch_ = 0, offset_ = 0;
  int epoch_ = 0;
  const std::vector<DamagedImage> none_;
};
