// mutate.h: inputs that are nearly good, as a pure function of (target, seed, number).
#pragma once
#include "target.h"

#include "engine/random.h"

// One of the target's seeds after one to sixteen changes. Those that fit the format keep lengths and checksums right half of the time, so
// that what lies behind them is reached.
Bytes mutated(const FuzzTarget&, uint64_t seed, uint64_t number);

// Changes of single formats, in place. Nothing happens to an input that has lost its form.
void mutate_jpeg(Bytes&, RandomSequence&);
void mutate_png(Bytes&, RandomSequence&);
void mutate_tar(Bytes&, RandomSequence&);
void mutate_any(Bytes&, RandomSequence&);   // bits, bytes, numbers and blocks of any file

// A number that programs are wrong about: near a power of two, near nothing, near the most.
uint32_t edge(RandomSequence&);
void put_big_endian(Bytes&, size_t at, uint64_t value, int bytes);
uint64_t get_big_endian(const Bytes&, size_t at, int bytes);

void repair_restart_index(Bytes&);   // the checksum of a JPEG's restart index (data/restart_index.h)
void repair_index_file(Bytes&);      // of a cached listing (data/image_index.cpp)
