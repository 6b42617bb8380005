// csv_table.cpp: rows are put together in one buffer and written with one system call.
#include "train/csv_table.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "engine/check.h"
#include "train/csv_read.h"

namespace fs = std::filesystem;

namespace {

void append_text(std::string& row, std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) {
    row += text;
    return;
  }
  row += '"';
  for (const char c : text) row.append(c == '"' ? 2 : 1, c);
  row += '"';
}

[[noreturn]] void fail_on_columns(const fs::path& path, const std::vector<std::string>& there,
                                  const std::vector<std::string>& wanted) {
  const std::size_t common = std::min(there.size(), wanted.size());
  std::size_t i = 0;
  while (i < common && there[i] == wanted[i]) i++;
  const auto name = [&](const std::vector<std::string>& names) { return i < names.size() ? names[i] : "(none)"; };
  fail(Exit::bad_data, path.string(), " has other columns than this run writes: column ", i + 1, " is ", name(there),
       " there and ", name(wanted), " here; it belongs to another recipe or version, so start a new run");
}

// Where the first row begins whose step is not below first_step, or an unfinished line: all before it stays.
std::int64_t end_of_kept_rows(CsvRecords& records, const fs::path& path, std::size_t step_column, std::size_t columns,
                              std::int64_t first_step) {
  std::vector<std::string_view> cells;
  while (records.next(cells)) {
    if (cells.size() != columns) fail_on_cells(path, records.line(), cells.size(), columns);
    std::int64_t step = 0;
    const std::string_view text = cells[step_column];
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), step);
    if (error != std::errc() || end != text.data() + text.size()) {
      fail(Exit::bad_data, path.string(), " line ", records.line(), ": step is '", text,
           "', and must be a whole number");
    }
    if (step >= first_step) return records.start();
  }
  return records.start();
}

}  // namespace

CsvTable::CsvTable(AppendFile file, std::vector<std::string> columns)
    : file_(std::move(file)), columns_(std::move(columns)) {
  row_.reserve(16 * columns_.size());
}

CsvTable CsvTable::create(const fs::path& path, std::vector<std::string> columns) {
  CsvTable table(AppendFile(path, AppendFile::Open::fresh), std::move(columns));
  table.write_header();
  return table;
}

CsvTable CsvTable::resume(const fs::path& path, std::vector<std::string> columns, std::int64_t first_step) {
  if (!fs::exists(path)) return create(path, std::move(columns));
  const auto step_column = std::find(columns.begin(), columns.end(), "step") - columns.begin();
  check(step_column < std::ssize(columns), "[csv] a table that can be resumed needs a column step, ", path.string());

  CsvRecords records(path);
  std::vector<std::string_view> header;
  const bool has_header = records.next(header);
  const std::vector<std::string> there(header.begin(), header.end());
  if (has_header && there != columns) fail_on_columns(path, there, columns);
  const std::int64_t kept =
      has_header ? end_of_kept_rows(records, path, static_cast<std::size_t>(step_column), columns.size(), first_step)
                 : 0;

  CsvTable table(AppendFile(path, AppendFile::Open::existing), std::move(columns));
  if (kept < table.file_.size()) table.file_.truncate(kept);
  if (!has_header) table.write_header();
  return table;
}

void CsvTable::write_header() {
  for (const std::string& name : columns_) add(name);
  end_row();
}

void CsvTable::begin_cell() {
  if (cells_++ == 0) {
    row_.clear();
  } else {
    row_ += ',';
  }
}

template <class T> CsvTable& CsvTable::add_number(T value) {
  begin_cell();
  char digits[40];
  const auto result = std::to_chars(digits, digits + sizeof digits, value);
  const bool negative_nan = value != value && digits[0] == '-';
  row_.append(digits + negative_nan, result.ptr);
  return *this;
}

CsvTable& CsvTable::add(std::int64_t value) { return add_number(value); }
CsvTable& CsvTable::add(float value) { return add_number(value); }
CsvTable& CsvTable::add(double value) { return add_number(value); }

CsvTable& CsvTable::add(std::string_view text) {
  begin_cell();
  append_text(row_, text);
  return *this;
}

CsvTable& CsvTable::add_all(std::span<const float> values) {
  for (const float value : values) add_number(value);
  return *this;
}

CsvTable& CsvTable::add_all(std::span<const double> values) {
  for (const double value : values) add_number(value);
  return *this;
}

void CsvTable::end_row() {
  check(cells_ == columns_.size(), "[csv] a row of ", file_.path().string(), " has ", columns_.size(), " cells, got ",
        cells_);
  row_ += '\n';
  cells_ = 0;
  file_.append(row_);
}
