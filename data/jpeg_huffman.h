// jpeg_huffman.h: the entropy-coded data of a baseline JPEG: bits, codes, blocks of coefficients. Nothing here throws or trusts a byte:
// what is not as it must be is reported, and libjpeg then reads the file its own way.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

// Bits of a span, the first one on top. Behind a marker or the end come zeros, which are counted.
class BitReader {
 public:
  BitReader() = default;
  BitReader(const uint8_t* begin, const uint8_t* end) : at_(begin), end_(end) {}

  // Afterwards there are at least 56 bits.
  void refill() {
    if (end_ - at_ >= 8) [[likely]] {
      uint64_t word;
      std::memcpy(&word, at_, 8);
      // Eight bytes without 0xFF are eight bytes of data.
      if ((word & (~word - 0x0101010101010101u) & 0x8080808080808080u) == 0) [[likely]] {
        bits_ |= __builtin_bswap64(word) >> count_;
        at_ += (63 - count_) >> 3;
        count_ |= 56;
        return;
      }
    }
    *this = refilled_bytewise(*this);
  }
  uint64_t peek(int n) const { return bits_ >> (64 - n); }   // n from 1 to 56
  void skip(int n) { bits_ <<= n, count_ -= n; }
  // The number of `size` <= 15 bits behind the next `code` bits: one that begins with 0 is negative (T.81, F.2.2.1).
  int number(int code, int size) const {
    const uint64_t bits = bits_ << code;
    const int64_t negative = ~int64_t(bits) >> 63;
    return int(int64_t(bits >> 1 >> (63 - size)) + (negative & (1 - (int64_t(1) << size))));
  }

  // More was read than there was.
  bool overran() const { return count_ < zeros_; }
  // All that is left are the bits that fill up the last byte.
  bool at_end() const { return !overran() && count_ - zeros_ < 8; }
  const uint8_t* place() const { return at_; }   // where at_end()

 private:
  static BitReader refilled_bytewise(BitReader bits);   // by value, so that the bits stay in registers elsewhere

  const uint8_t *at_ = nullptr, *end_ = nullptr;
  uint64_t bits_ = 0;
  int count_ = 0, zeros_ = 0;
};

// A Huffman table as a file gives it: how many codes there are of each length, and the symbols, the shortest codes first.
struct HuffmanCode {
  std::array<uint8_t, 17> lengths;
  std::array<uint8_t, 256> symbols;
  bool operator==(const HuffmanCode&) const = default;
};

// Lookups by the next bits. A symbol says how many zeros to pass and how many bits of a number follow.
class HuffmanTable {
 public:
  static constexpr int look = 10;

  // The symbol whose code the next `look` bits begin with. A length of 0: its code is longer.
  struct Entry {
    uint8_t code, length;   // bits: of the code, with the number
    uint8_t size;           // bits of the number
    uint8_t advance;        // places in the zigzag, the number's own included; `block_end` at the end of the block
  };
  static constexpr int block_end = 64;
  // All symbols whose codes lie in these bits, up to the end of the block: where that is among them, `ends` is set, and `advance` is
  // what came before. A length of 0: not even one does.
  struct Run {
    uint8_t advance, length;
    bool ends;
  };

  // False where the code is none, or one of DC with a number of more than 15 bits.
  bool set(const HuffmanCode&, bool dc);

  // A block with the codes of the first coefficient, which is the difference to `predictor`, and of the others. block: zeros, becomes the
  // coefficients in natural order; `last` in the zigzag is not zero. False when the data are damaged.
  static bool read_block(const HuffmanTable& dc, const HuffmanTable& ac, BitReader& bits, int& predictor, int16_t* block, int& last);
  // The same without keeping any but the predictor.
  static bool pass_block(const HuffmanTable& dc, const HuffmanTable& ac, BitReader& bits, int& predictor);

 private:
  // A code of more than `look` bits. A length of 0: there is no such code.
  Entry find_long(uint32_t next16) const;
  Entry find(const BitReader& bits) const {
    const Entry entry = entries_[bits.peek(look)];
    return entry.length > 0 ? entry : find_long(uint32_t(bits.peek(16)));
  }
  static Entry entry_of(int symbol, int code_length, bool dc);

  HuffmanCode code_{};
  bool is_set_ = false, dc_ = false;
  std::array<Entry, 1 << look> entries_;
  std::array<Run, 1 << look> runs_;
  std::array<uint32_t, 18> beyond_;    // of each length: the first 16 bits that no code of this length or a shorter one begins
  std::array<int, 17> offset_;         // of each length: index of its first symbol minus its first code
};
