// csv_read.h: reads the tables of a run back, also while it is being written.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

// The records of a CSV file, one after the other. A last line without its newline is still being
// written and is not one.
class CsvRecords {
 public:
  explicit CsvRecords(const std::filesystem::path& path);
  CsvRecords(const CsvRecords&) = delete;
  ~CsvRecords();

  bool next(std::vector<std::string_view>& cells);   // valid until the next call
  std::int64_t start() const { return start_; }      // byte where it begins; after the last, where the next would
  long line() const { return line_; }                // line on which the record begins, from 1

 private:
  const char* find_end();
  bool read_more();

  std::filesystem::path path_;
  int descriptor_;
  std::string buffer_;
  std::size_t position_ = 0, filled_ = 0;
  std::int64_t start_ = 0, end_ = 0;
  long line_ = 1, next_line_ = 1;
};

struct CsvColumn {
  std::string name;
  std::vector<double> numbers;       // empty cells are nan
  std::vector<std::string> texts;    // filled instead of numbers where the reader asked for text
};

struct CsvData {
  std::vector<CsvColumn> columns;
  std::size_t rows = 0;

  const CsvColumn* find(std::string_view name) const;
  const std::vector<double>& numbers(std::string_view name) const;        // of no length where there is no such column
  const std::vector<std::string>& texts(std::string_view name) const;
};

// Every column is of numbers but those named in text_columns. A file that is not there gives a table of no columns.
CsvData read_csv(const std::filesystem::path& path, const std::vector<std::string>& text_columns = {});

[[noreturn]] void fail_on_cells(const std::filesystem::path& path, long line, std::size_t cells, std::size_t columns);
