// progress.cpp: drawing, and an exponentially smoothed rate for the time that remains.
#include "train/progress.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <sys/ioctl.h>
#include <unistd.h>

#include <fmt/format.h>

namespace {

constexpr double redraw_seconds = 0.1;
constexpr double plain_seconds = 10;
constexpr double smoothing = 0.3;      // of a rate sample each second

const char* variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

bool speaks_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string_view value = variable(name);
    if (value.empty()) continue;
    return value.find("UTF-8") != value.npos || value.find("utf8") != value.npos || value.find("UTF8") != value.npos;
  }
  return false;
}

int terminal_columns(std::FILE* out) {
  winsize size{};
  const bool known = ::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

std::string bar_cells(double fraction, int cells, bool unicode) {
  static const char* const eighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
  static const char* const tenths[] = {" ", "1", "2", "3", "4", "5", "6", "7", "8", "9", "#"};
  const auto* const levels = unicode ? eighths : tenths;
  const int steps = unicode ? 8 : 10;
  const int filled = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * cells * steps);
  std::string bar;
  for (int cell = 0; cell < cells; cell++) bar += levels[std::clamp(filled - cell * steps, 0, steps)];
  return bar;
}

// Characters on the screen, for text whose only wide things are UTF-8 continuation bytes.
int display_width(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string shortened(std::string text, int columns) {
  if (display_width(text) <= columns) return text;
  std::size_t bytes = 0;
  for (int width = 0; bytes < text.size(); bytes++) {
    if ((text[bytes] & 0xC0) != 0x80 && ++width > columns) break;
  }
  text.resize(bytes);
  return text;
}

double fraction_of(const ProgressLine& line) {
  return line.total > 0 ? static_cast<double>(line.done) / static_cast<double>(line.total) : 0;
}

}  // namespace

std::string clock_text(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  if (whole < 3600) return fmt::format("{:02}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string plain_progress(const ProgressLine& line) {
  return fmt::format("{}: {:.0f}% {}/{} [{}<{}{}{}]", line.title, std::floor(100 * fraction_of(line)), line.done,
                     line.total, clock_text(line.elapsed), clock_text(line.remaining),
                     line.postfix.empty() ? "" : ", ", line.postfix);
}

std::string progress_bar(const ProgressLine& line, int columns, bool unicode) {
  const double fraction = fraction_of(line);
  const std::string left = fmt::format("{}: {:3.0f}%|", line.title, std::floor(100 * fraction));
  const std::string right = fmt::format("| {}/{} [{}<{}{}{}]", line.done, line.total, clock_text(line.elapsed),
                                        clock_text(line.remaining), line.postfix.empty() ? "" : ", ", line.postfix);
  const int cells = std::clamp(columns - 1 - display_width(left) - display_width(right), 4, 40);
  return shortened(left + bar_cells(fraction, cells, unicode) + right, columns - 1);
}

Progress::Progress(std::FILE* out)
    : out_(out),
      terminal_(::isatty(::fileno(out)) && std::string_view(variable("TERM")) != "dumb" && *variable("TERM")),
      unicode_(speaks_utf8()),
      colour_(terminal_ && !*variable("NO_COLOR")) {}

Progress::~Progress() {
  if (active_) finish();
}

double Progress::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Progress::start(std::string title, std::int64_t total, std::int64_t done) {
  const std::lock_guard lock(mutex_);
  line_ = {.title = std::move(title), .done = done, .total = total, .postfix = {}};
  done_at_start_ = done_at_rate_ = done;
  started_ = drawn_ = rate_time_ = seconds();
  rate_ = 0;
  active_ = true;
  if (terminal_) draw();
}

void Progress::title(std::string title) {
  const std::lock_guard lock(mutex_);
  line_.title = std::move(title);
}

bool Progress::wants_update() const {
  const std::lock_guard lock(mutex_);
  return seconds() - drawn_ >= (terminal_ ? redraw_seconds : plain_seconds);
}

void Progress::update(std::int64_t done, std::string postfix) {
  const std::lock_guard lock(mutex_);
  const double now = seconds();
  line_.done = done;
  line_.postfix = std::move(postfix);
  line_.elapsed = now - started_;
  if (now - rate_time_ >= 1 && done > done_at_rate_) {
    const double sample = static_cast<double>(done - done_at_rate_) / (now - rate_time_);
    const double weight = rate_ == 0 ? 1 : 1 - std::pow(1 - smoothing, now - rate_time_);
    rate_ += weight * (sample - rate_);
    done_at_rate_ = done;
    rate_time_ = now;
  }
  const double mean = line_.elapsed > 0 ? static_cast<double>(done - done_at_start_) / line_.elapsed : 0;
  const double rate = rate_ > 0 ? rate_ : mean;
  line_.remaining = rate > 0 ? static_cast<double>(line_.total - done) / rate : -1;
  if (now - drawn_ >= (terminal_ ? redraw_seconds : plain_seconds)) draw();
}

void Progress::draw() {
  drawn_ = seconds();
  if (!terminal_) {
    fmt::print(out_, "{}\n", plain_progress(line_));
  } else {
    std::string bar = progress_bar(line_, terminal_columns(out_), unicode_);
    const std::size_t first = bar.find('|'), last = bar.rfind('|');
    if (colour_ && first != last) {
      bar.insert(last, "\033[0m");
      bar.insert(first + 1, "\033[36m");
    }
    fmt::print(out_, "\r{}\033[K", bar);
    shown_ = true;
  }
  std::fflush(out_);
}

void Progress::erase() {
  if (shown_) fmt::print(out_, "\r\033[K");
  shown_ = false;
}

void Progress::log(std::string_view line) {
  const std::lock_guard lock(mutex_);
  erase();
  fmt::print(out_, "{}\n", line);
  if (active_ && terminal_) draw();
  std::fflush(out_);
}

void Progress::finish() {
  const std::lock_guard lock(mutex_);
  if (!active_) return;
  line_.elapsed = seconds() - started_;
  draw();
  if (shown_) fmt::print(out_, "\n");
  std::fflush(out_);
  shown_ = active_ = false;
}
