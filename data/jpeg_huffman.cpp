// jpeg_huffman.cpp: tables (ITU T.81, annex C and F.2.2) and the two loops over a block, one that keeps the numbers and one that does not.
#include "data/jpeg_huffman.h"

#include <algorithm>

namespace {

// Natural order of the zigzag.
constexpr std::array<uint8_t, 64> natural = [] {
  std::array<uint8_t, 64> order{};
  for (int i = 0, row = 0, column = 0; i < 64; i++) {
    order[size_t(i)] = uint8_t(row * 8 + column);
    const bool up = (row + column) % 2 == 0;
    int &along = up ? column : row, &against = up ? row : column;
    if (along == 7) against++;
    else if (along++, against > 0) against--;
  }
  return order;
}();

}  // namespace

BitReader BitReader::refilled_bytewise(BitReader b) {
  // What a refill of eight bytes left below the bits that count is read again.
  b.bits_ &= b.count_ > 0 ? ~uint64_t(0) << (64 - b.count_) : 0;
  while (b.count_ < 56) {
    uint64_t byte = 0;
    if (b.at_ == b.end_) {
      b.zeros_ += 8;
    } else if (*b.at_ != 0xFF) {
      byte = *b.at_++;
    } else if (b.end_ - b.at_ >= 2 && b.at_[1] == 0) {
      byte = 0xFF;
      b.at_ += 2;
    } else {
      b.zeros_ += 8;
    }
    b.bits_ |= byte << (56 - b.count_);
    b.count_ += 8;
  }
  return b;
}

HuffmanTable::Entry HuffmanTable::entry_of(int symbol, int code_length, bool dc) {
  const int size = symbol & 15, zeros = symbol >> 4;
  return {uint8_t(code_length), uint8_t(code_length + size), uint8_t(size), uint8_t(size == 0 && zeros < 15 && !dc ? block_end : zeros + 1)};
}

bool HuffmanTable::set(const HuffmanCode& code, bool dc) {
  if (is_set_ && dc == dc_ && code == code_) return true;
  is_set_ = false;
  entries_.fill({});
  uint32_t next = 0;   // the first code of a length, in that length
  int index = 0;
  for (int length = 1; length <= 16; length++, next <<= 1) {
    offset_[size_t(length)] = index - int(next);
    for (int i = 0; i < code.lengths[size_t(length)]; i++, next++, index++) {
      if (index >= 256 || next >= (1u << length) || (dc && code.symbols[size_t(index)] > 15)) return false;
      if (length > look) continue;
      std::fill_n(&entries_[size_t(next) << (look - length)], 1 << (look - length), entry_of(code.symbols[size_t(index)], length, dc));
    }
    if (next > 0 && next >= (1u << length)) return false;   // no code is all ones
    beyond_[size_t(length)] = next << (16 - length);
  }
  for (uint32_t at = 0; at < runs_.size() && !dc; at++) {
    Run run{};
    while (!run.ends && run.length < look) {
      const Entry& entry = entries_[(at << run.length) & (runs_.size() - 1)];
      if (entry.length == 0 || run.length + entry.code > look) break;
      run.ends = entry.advance == block_end;
      run.advance = uint8_t(run.advance + (run.ends ? 0 : entry.advance));
      run.length = uint8_t(run.length + entry.length);
    }
    runs_[at] = run;
  }
  code_ = code, dc_ = dc, is_set_ = true;
  return true;
}

HuffmanTable::Entry HuffmanTable::find_long(uint32_t next16) const {
  int length = look + 1;
  while (length <= 16 && next16 >= beyond_[size_t(length)]) length++;
  if (length > 16) return {};
  return entry_of(code_.symbols[size_t(offset_[size_t(length)] + int(next16 >> (16 - length)))], length, dc_);
}

bool HuffmanTable::read_block(const HuffmanTable& dc, const HuffmanTable& ac, BitReader& shared, int& predictor, int16_t* block, int& last) {
  BitReader bits = shared;
  bits.refill();
  const Entry first = dc.find(bits);
  if (first.length == 0) return false;
  predictor = int16_t(predictor + bits.number(first.code, first.size));
  bits.skip(first.length);
  block[0] = int16_t(predictor);
  int k = 0;   // the place written last
  while (true) {
    bits.refill();
    // 56 bits: a code in the table with its number, and one of any length.
    for (int i = 0; i < 2; i++) {
      Entry entry = ac.entries_[bits.peek(look)];
      if (entry.length == 0) [[unlikely]] {
        entry = ac.find_long(uint32_t(bits.peek(16)));
        if (entry.length == 0) return false;
        i = 1;
      }
      const int number = bits.number(entry.code, entry.size);
      bits.skip(entry.length);
      k += entry.advance;
      if (k >= 63) [[unlikely]] {
        last = k >= block_end ? k - entry.advance : k;
        if (k == 63) block[63] = int16_t(number);
        shared = bits;
        return k == 63 || entry.advance == block_end;
      }
      block[natural[size_t(k)]] = int16_t(number);
    }
  }
}

bool HuffmanTable::pass_block(const HuffmanTable& dc, const HuffmanTable& ac, BitReader& shared, int& predictor) {
  BitReader bits = shared;
  bits.refill();
  const Entry first = dc.find(bits);
  if (first.length == 0) return false;
  predictor = int16_t(predictor + bits.number(first.code, first.size));
  bits.skip(first.length);
  int k = 0;
  while (true) {
    bits.refill();
    for (int i = 0; i < 2; i++) {
      const Run run = ac.runs_[bits.peek(look)];
      if (run.length > 0 && k + run.advance < 63) [[likely]] {
        k += run.advance;
        bits.skip(run.length);
        if (!run.ends) continue;
        shared = bits;
        return true;
      }
      const Entry entry = ac.find(bits);
      if (entry.length == 0) return false;
      bits.skip(entry.length);
      k += entry.advance;
      if (k >= 63) {
        shared = bits;
        return k == 63 || entry.advance == block_end;
      }
      break;
    }
  }
}
