// repack.h: a JPEG in other words: the same coefficients, coded so that any part can be decoded without the rest.
#pragma once
#include <optional>
#include <span>
#include <vector>

#include <cstdint>

// A baseline file with Huffman tables of its own, a restart marker after every interval, and an index of the intervals (restart_index.h).
// Comments, EXIF and colour profiles, which no decoder of ours reads, are left out.
//
// interval: MCUs between two markers, brought to the nearest divisor of the MCUs of a row. 0 chooses: near 64 pixels, at least 4
// MCUs, at least 150 bytes on average (64 pixels measured faster than 96, and as small).
//
// Nothing for a file that is damaged, or is not grayscale or of three colours, or whose pixels would not stay as they are, which is
// checked: every pixel of the result is decoded and compared.
std::optional<std::vector<uint8_t>> repack_jpeg(std::span<const uint8_t> jpeg, int interval);
