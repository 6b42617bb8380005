// csv_table: what is written reads back to the same bits; a killed and resumed table equals one that never stopped.
#include "train/csv_table.h"

#include <cmath>
#include <csignal>
#include <fstream>
#include <limits>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "engine/check.h"
#include "engine/durable_file.h"
#include "train/csv_read.h"
#include "synthetic_run.h"

namespace {

const std::vector<std::string> columns{"step", "loss", "layers.0.norm, \"odd\"", "kind"};

void write_rows(CsvTable& table, int from, int to) {
  for (int step = from; step < to; step++)
    table.add(step).add(1.0f / float(step + 3)).add(std::exp(double(step))).add("a\nb").end_row();
}

Exit exit_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.exit;
  }
  return Exit::ok;
}

}  // namespace

TEST_CASE("csv: numbers come back to the bit, texts to the letter") {
  const TestFolder folder("csv");
  const auto path = folder.path / "t.csv";
  const double inf = std::numeric_limits<double>::infinity();
  CsvTable table = CsvTable::create(path, columns);
  table.add(1).add(0.1f).add(1.0 / 3).add("x,\"y\"\nz").end_row();
  table.add(2).add(inf).add(-inf).add("").end_row();
  table.add(3).add(std::nan("")).add(-std::nan("")).add("plain").end_row();
  table.add(4).add(5e-324).add(1.7976931348623157e308).add("").end_row();

  CHECK(read_file(path) ==
        "step,loss,\"layers.0.norm, \"\"odd\"\"\",kind\n1,0.1,0.3333333333333333,\"x,\"\"y\"\"\nz\"\n2,inf,-inf,\n"
        "3,nan,nan,plain\n4,5e-324,1.7976931348623157e+308,\n");
  const CsvData data = read_csv(path, {"kind"});
  REQUIRE(data.rows == 4);
  CHECK(data.columns[2].name == columns[2]);
  CHECK(data.numbers("loss")[0] == 0.1);
  CHECK(data.numbers(columns[2])[0] == 1.0 / 3);
  CHECK(data.numbers(columns[2])[1] == -inf);
  CHECK(std::isnan(data.numbers("loss")[2]));
  CHECK(data.numbers("loss")[3] == 5e-324);
  CHECK(data.texts("kind") == std::vector<std::string>{"x,\"y\"\nz", "", "plain", ""});
}

TEST_CASE("csv: resumed where it was killed, the table is that of an uninterrupted run") {
  const TestFolder folder("resume");
  const auto whole = folder.path / "whole.csv", killed = folder.path / "killed.csv";
  CsvTable reference = CsvTable::create(whole, columns);
  write_rows(reference, 0, 40);

  for (const char* tail : {"", "25", "25,0.5,\"unfinished", "25,0.5,1,\"a\nb\"", "25,0.5,1,x\n26,0.1,2,y\n27,"}) {
    std::filesystem::remove(killed);
    CsvTable first = CsvTable::create(killed, columns);
    write_rows(first, 0, 25);
    std::ofstream(killed, std::ios::app) << tail;
    CsvTable second = CsvTable::resume(killed, columns, 20);
    write_rows(second, 20, 40);
    CHECK_MESSAGE(read_file(killed) == read_file(whole), "tail: ", tail);
  }
}

TEST_CASE("csv: a process killed while writing leaves whole rows but for the last") {
  const TestFolder folder("kill");
  const auto path = folder.path / "t.csv";
  const pid_t child = ::fork();
  if (child == 0) {
    CsvTable table = CsvTable::create(path, columns);
    write_rows(table, 0, 1 << 30);
    ::_exit(0);
  }
  while (!std::filesystem::exists(path) || std::filesystem::file_size(path) < 20000) ::usleep(1000);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);

  const CsvData data = read_csv(path, {"kind"});
  REQUIRE(data.rows > 100);
  CsvTable table = CsvTable::resume(path, columns, 50);
  write_rows(table, 50, 90);
  const CsvData resumed = read_csv(path, {"kind"});
  REQUIRE(resumed.rows == 90);
  for (int step = 0; step < 90; step++) CHECK(resumed.numbers("step")[std::size_t(step)] == step);
}

TEST_CASE("csv: a header cut short is written again; other columns are refused and the file is left alone") {
  const TestFolder folder("header");
  const auto path = folder.path / "t.csv";
  std::ofstream(path) << "step,lo";
  CsvTable table = CsvTable::resume(path, columns, 0);
  write_rows(table, 0, 2);
  CHECK(read_csv(path, {"kind"}).rows == 2);

  const std::string before = read_file(path);
  CHECK(exit_of([&] { CsvTable::resume(path, {"step", "loss", "other", "kind"}, 0); }) == Exit::bad_data);
  CHECK(exit_of([&] { CsvTable::resume(path, {"step", "loss"}, 0); }) == Exit::bad_data);
  CHECK(read_file(path) == before);
  CHECK(exit_of([&] { CsvTable::create(path, columns); }) == Exit::cannot_create);
}

TEST_CASE("csv: damage is named, a row of the wrong length is a mistake of ours") {
  const TestFolder folder("damage");
  const auto path = folder.path / "t.csv";
  std::ofstream(path) << "step,loss\n0,1\n1,x\n2,3\n";
  CHECK_THROWS_WITH_AS(read_csv(path), doctest::Contains("line 3, column loss: 'x'"), Error);
  std::ofstream(path) << "step,loss\n0,1\n1\n2,3\n";
  CHECK_THROWS_WITH_AS(read_csv(path), doctest::Contains("line 3 has 1 cells"), Error);
  CHECK(exit_of([&] { CsvTable::resume(path, {"step", "loss"}, 9); }) == Exit::bad_data);
  std::ofstream(path) << "step,loss\nzero,1\n";
  CHECK(exit_of([&] { CsvTable::resume(path, {"step", "loss"}, 9); }) == Exit::bad_data);

  CsvTable table = CsvTable::create(folder.path / "u.csv", {"step", "loss"});
  CHECK(exit_of([&] { table.add(1).end_row(); }) == Exit::internal);
  CHECK(read_csv(folder.path / "none.csv").columns.empty());
}

TEST_CASE("csv: rows longer than the reader's block") {
  const TestFolder folder("long");
  std::vector<std::string> many{"step"};
  for (int i = 0; i < 60000; i++) many.push_back("column." + std::to_string(i));
  CsvTable table = CsvTable::create(folder.path / "t.csv", many);
  const std::vector<double> values(60000, 1.0 / 3);
  for (int step = 0; step < 3; step++) table.add(step).add_all(values).end_row();
  const CsvData data = read_csv(folder.path / "t.csv");
  CHECK(data.rows == 3);
  CHECK(data.columns.back().numbers == std::vector<double>(3, 1.0 / 3));
}
