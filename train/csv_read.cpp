// csv_read.cpp: a block of the file at a time, cells as views into it.
#include "train/csv_read.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <limits>
#include <unistd.h>

#include "engine/check.h"
#include "engine/durable_file.h"

namespace fs = std::filesystem;

CsvRecords::CsvRecords(const fs::path& path) : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (descriptor_ < 0) fail_with_errno(errno, "read", path);
  buffer_.resize(1 << 18);
}

CsvRecords::~CsvRecords() { ::close(descriptor_); }

// Moves the unread rest to the front, so that a record lies in one piece, and reads on. False at the end of the file.
bool CsvRecords::read_more() {
  std::memmove(buffer_.data(), buffer_.data() + position_, filled_ - position_);
  filled_ -= position_;
  position_ = 0;
  if (filled_ == buffer_.size()) buffer_.resize(2 * buffer_.size());
  while (true) {
    const ssize_t got = ::read(descriptor_, buffer_.data() + filled_, buffer_.size() - filled_);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_with_errno(errno, "read", path_);
    filled_ += static_cast<std::size_t>(got);
    return got > 0;
  }
}

// The newline that ends the record at position_: the first one with an even number of quotes before it.
const char* CsvRecords::find_end() {
  const char* const begin = buffer_.data() + position_;
  const char* const end = buffer_.data() + filled_;
  const char* counted = begin;
  bool quoted = false;
  for (const char* p = begin; p < end; p++) {
    p = static_cast<const char*>(std::memchr(p, '\n', static_cast<std::size_t>(end - p)));
    if (!p) return nullptr;
    if (std::count(counted, p, '"') % 2 != 0) quoted = !quoted;
    counted = p;
    if (!quoted) return p;
  }
  return nullptr;
}

bool CsvRecords::next(std::vector<std::string_view>& cells) {
  start_ = end_;
  line_ = next_line_;
  const char* newline;
  while (!(newline = find_end())) {
    if (!read_more()) return false;
  }
  char* p = buffer_.data() + position_;
  const char* end = newline;
  next_line_ += 1 + std::count(static_cast<const char*>(p), end, '\n');
  end_ += end + 1 - p;
  position_ = static_cast<std::size_t>(end + 1 - buffer_.data());
  if (end > p && end[-1] == '\r') end--;

  cells.clear();
  while (true) {
    char* const cell = p;
    if (p == end || *p != '"') {
      while (p < end && *p != ',') p++;
      cells.emplace_back(cell, static_cast<std::size_t>(p - cell));
    } else {
      char* out = cell;   // takes the quotes off in place: the text only gets shorter
      for (p++; p < end; p++) {
        if (*p == '"' && (p + 1 == end || p[1] != '"')) break;
        if (*p == '"') p++;
        *out++ = *p;
      }
      cells.emplace_back(cell, static_cast<std::size_t>(out - cell));
      while (p < end && *p != ',') p++;
    }
    if (p >= end) return true;
    p++;
  }
}

const CsvColumn* CsvData::find(std::string_view name) const {
  const auto found = std::find_if(columns.begin(), columns.end(), [&](const CsvColumn& c) { return c.name == name; });
  return found == columns.end() ? nullptr : &*found;
}

const std::vector<double>& CsvData::numbers(std::string_view name) const {
  static const std::vector<double> none;
  const CsvColumn* column = find(name);
  return column ? column->numbers : none;
}

const std::vector<std::string>& CsvData::texts(std::string_view name) const {
  static const std::vector<std::string> none;
  const CsvColumn* column = find(name);
  return column ? column->texts : none;
}

void fail_on_cells(const fs::path& path, long line, std::size_t cells, std::size_t columns) {
  fail(Exit::bad_data, path.string(), " line ", line, " has ", cells, " cells, and its header has ", columns);
}

CsvData read_csv(const fs::path& path, const std::vector<std::string>& text_columns) {
  CsvData data;
  if (!fs::exists(path)) return data;
  CsvRecords records(path);
  std::vector<std::string_view> cells;
  if (!records.next(cells)) return data;

  std::vector<bool> is_text;
  for (const std::string_view name : cells) {
    data.columns.push_back({std::string(name), {}, {}});
    is_text.push_back(std::find(text_columns.begin(), text_columns.end(), name) != text_columns.end());
  }
  while (records.next(cells)) {
    if (cells.size() != data.columns.size()) fail_on_cells(path, records.line(), cells.size(), data.columns.size());
    for (std::size_t c = 0; c < cells.size(); c++) {
      if (is_text[c]) {
        data.columns[c].texts.emplace_back(cells[c]);
        continue;
      }
      double value = std::numeric_limits<double>::quiet_NaN();
      const char* const end = cells[c].data() + cells[c].size();
      const auto result = std::from_chars(cells[c].data(), end, value);
      if (!cells[c].empty() && (result.ec == std::errc::invalid_argument || result.ptr != end)) {
        fail(Exit::bad_data, path.string(), " line ", records.line(), ", column ", data.columns[c].name, ": '",
             cells[c], "' is not a number");
      }
      data.columns[c].numbers.push_back(value);
    }
    data.rows++;
  }
  return data;
}
