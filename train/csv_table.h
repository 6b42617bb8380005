// csv_table.h: a table on disk with fixed columns that grows by whole rows, and goes on where a killed run left it.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "train/append_file.h"

// UTF-8, RFC 4180 quoting, numbers in their shortest form that reads back to the same bits; nan, inf, -inf as such.
//   table.add(step).add(loss).add("estimate").end_row();
class CsvTable {
 public:
  static CsvTable create(const std::filesystem::path& path, std::vector<std::string> columns);
  // Keeps the rows whose `step` is below first_step, the next step that will be written; drops the later ones and an
  // unfinished last line. A file that is not there yet is created. Other columns than the file has are an error.
  static CsvTable resume(const std::filesystem::path& path, std::vector<std::string> columns, std::int64_t first_step);

  CsvTable& add(std::int64_t value);
  CsvTable& add(int value) { return add(static_cast<std::int64_t>(value)); }
  CsvTable& add(float value);
  CsvTable& add(double value);
  CsvTable& add(std::string_view text);
  CsvTable& add(const char* text) { return add(std::string_view(text)); }
  CsvTable& add_all(std::span<const float> values);
  CsvTable& add_all(std::span<const double> values);
  void end_row();   // one write: the row is in the file, whole, or an Error says why not

  void sync() { file_.sync(); }   // before a checkpoint is sealed: its rows must not be younger than it
  const std::vector<std::string>& columns() const { return columns_; }

 private:
  CsvTable(AppendFile file, std::vector<std::string> columns);
  void write_header();
  void begin_cell();
  template <class T> CsvTable& add_number(T value);

  AppendFile file_;
  std::vector<std::string> columns_;
  std::string row_;
  std::size_t cells_ = 0;
};
