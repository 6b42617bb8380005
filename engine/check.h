// check.h: errors. One exception type, messages of the form "[op] what must hold, what was given".
#pragma once
#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>

// What the process exits with when the error reaches main (sysexits.h; docs/exit-codes.md).
enum class Exit {
  ok = 0,
  failure = 1,          // a run that was refused to go on: a non-finite loss, a failed verification
  usage = 64,           // unknown flag or command
  bad_data = 65,        // a file is there and is not what it claims to be
  no_input = 66,        // a file or folder is missing or cannot be read
  unavailable = 69,     // another rank is gone, or did not come in time
  internal = 70,        // a mistake of ours
  cannot_create = 73,   // no permission to write
  io = 74,              // disk full, short read
  interrupted = 75,     // stopped by a signal after saving: run again with --resume
  config = 78,          // a recipe that cannot be run
};

struct Error : std::runtime_error {
  Exit exit;
  Error(Exit exit, const std::string& what) : std::runtime_error(what), exit(exit) {}
};

// str("x is ", 3) -> "x is 3". Anything with operator<< can be a part.
template <class... A> std::string str(const A&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// A mistake that a user can make and correct: one line that says what to do.
template <class... A> [[noreturn]] void fail(Exit exit, const A&... parts) { throw Error(exit, str(parts...)); }

// Something that must hold, and where in the source that was said.
struct Condition {
  bool holds;
  std::source_location where;
  template <class T>
  Condition(const T& value, std::source_location where = std::source_location::current()) : holds(static_cast<bool>(value)), where(where) {}
};

// check(a == b, "[linear] x is ", x.shape(), ": last dimensions must agree"). The text is put together only on failure.
template <class... A> void check(const Condition& condition, const A&... what) {
  if (condition.holds) return;
  const std::string path = condition.where.file_name();
  throw Error(Exit::internal, str(what..., " (", path.substr(path.find_last_of('/') + 1), ":", condition.where.line(), ")"));
}
