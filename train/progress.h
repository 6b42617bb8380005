// progress.h: the progress line on stderr, redrawn in place on a terminal, plain lines at intervals elsewhere.
#pragma once
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>
#include <string_view>

// What the line says at one moment.
struct ProgressLine {
  std::string title;            // "epoch 3/20"
  std::int64_t done = 0, total = 0;
  double elapsed = 0;           // seconds
  double remaining = -1;        // seconds; unknown below zero
  std::string postfix = "";     // "312 images/s, loss=0.5321"
};

// `epoch 3/20:  41%|████▏     | 820/2000 [01:23<02:01, 312 images/s, loss=0.5321]`, as wide as the terminal.
std::string progress_bar(const ProgressLine& line, int columns, bool unicode);
std::string plain_progress(const ProgressLine& line);   // the same without the bar
std::string clock_text(double seconds);                 // 02:01, 1:02:03, ? if unknown

class Progress {
 public:
  // On a terminal it draws a bar, unless TERM is dumb. NO_COLOR takes the colour of the bar away.
  explicit Progress(std::FILE* out = stderr);
  ~Progress();

  // `total` units, of which `done` were there before this process began (a resumed run): the rate is of
  // the rest.
  void start(std::string title, std::int64_t total, std::int64_t done = 0);
  void title(std::string title);
  void update(std::int64_t done, std::string postfix);    // cheap when it is too early to draw again
  bool wants_update() const;                              // so that the postfix is made only when it will be shown
  void finish();                                          // draws the last state and goes to a new line
  void log(std::string_view line);                        // a line above the bar; from any thread

 private:
  double seconds() const;
  void draw();
  void erase();

  std::FILE* out_;
  bool terminal_, unicode_, colour_;
  mutable std::mutex mutex_;
  ProgressLine line_;
  bool shown_ = false, active_ = false;
  double started_ = 0, drawn_ = 0;
  std::int64_t done_at_start_ = 0, done_at_rate_ = 0;
  double rate_ = 0, rate_time_ = 0;
};
