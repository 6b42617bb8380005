// tar.h: the members of a tar file, one after another, and a writer whose files are the same every time.
#pragma once
#include <optional>
#include <span>
#include <string>

#include "data/file.h"

struct TarMember {
  std::string name;
  int64_t offset = 0;  // of its content in the file
  int64_t size = 0;
};

// Walks the headers of a POSIX, GNU or PAX tar. Everything is checked: a damaged, truncated or unsafe file (links,
// names that leave the folder) is an Error with Exit::bad_data that names it.
class TarReader {
 public:
  explicit TarReader(const InputFile& file) : TarReader(file, 0, file.size()) {}
  // A tar that lies inside another: bytes [begin, end) of the file. Offsets remain those in the file.
  TarReader(const InputFile& file, int64_t begin, int64_t end) : file_(file), begin_(begin), end_(end), at_(begin), window_at_(begin) {}
  std::optional<TarMember> next();  // the next plain file; nothing at the end mark

 private:
  [[noreturn]] void damaged(const std::string& what) const;
  void load(int64_t offset, uint8_t* out, size_t length);
  std::string text(int64_t offset, int64_t size);
  void read_pax(const std::string& records, TarMember& override) const;

  const InputFile& file_;
  int64_t begin_, end_;
  int64_t at_;
  int64_t window_at_;
  Bytes window_;  // a stretch of the file, so that many small members cost few reads
};

class TarWriter {
 public:
  explicit TarWriter(const std::string& path) : out_(path) {}
  void add(const std::string& name, std::span<const uint8_t> content);
  void close();

 private:
  OutputFile out_;
};
