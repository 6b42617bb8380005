// nearest.cpp: edit distance in which two swapped letters count once.
#include "engine/nearest.h"

#include <algorithm>

namespace {

int edit_distance(const std::string& a, const std::string& b) {
  const size_t columns = b.size() + 1;
  std::vector<int> before(columns), last(columns), now(columns);  // three rows of the table
  for (size_t j = 0; j < columns; j++) last[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); i++) {
    now[0] = static_cast<int>(i);
    for (size_t j = 1; j < columns; j++) {
      const int replaced = last[j - 1] + (a[i - 1] != b[j - 1]);
      now[j] = std::min({last[j] + 1, now[j - 1] + 1, replaced});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) now[j] = std::min(now[j], before[j - 2] + 1);
    }
    before.swap(last);
    last.swap(now);
  }
  return last[b.size()];
}

// A name of which the word is a piece is nearer than its length says: 'warmup' for 'warmup_epochs'.
int distance(const std::string& word, const std::string& name) {
  const bool is_piece = word.size() >= 3 && name.find(word) != std::string::npos;
  return is_piece ? std::min(2, edit_distance(word, name)) : edit_distance(word, name);
}

}  // namespace

std::string suggestion(const std::string& word, const std::vector<std::string>& names) {
  int best = 1 << 20;
  const std::string* nearest = nullptr;
  for (const std::string& name : names) {
    const int here = word.size() <= 200 ? distance(word, name) : best;
    if (here < best) best = here, nearest = &name;
  }
  const int near_enough = std::max<int>(2, static_cast<int>(word.size()) / 3);
  if (nearest && best <= near_enough) return "did you mean '" + *nearest + "'?";

  std::string list = "known are ";
  for (const std::string& name : names) list += (&name == &names.front() ? "" : ", ") + name;
  return list;
}
