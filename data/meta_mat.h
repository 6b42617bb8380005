// meta_mat.h: the synsets of ImageNet's devkit, from its meta.mat.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

// The synset of each ILSVRC2012_ID that a picture can have: of those without children (num_children is 0), as torchvision takes them.
//
// Read is a little-endian MATLAB 5 file, its variables deflated or not, and of it the array of structs "synsets" with the fields ILSVRC2012_ID and
// num_children (one whole number each) and WNID (a line of ASCII); other fields and variables are passed over. Anything else, and what would inflate to
// more than 64 MiB, is an Error with Exit::bad_data that begins with `where`.
std::map<int, std::string> read_meta_mat(std::span<const uint8_t> file, const std::string& where);

// The bytes that zlib makes of these; `gzip` or not. More than `limit`, damaged or cut short: Exit::bad_data.
std::vector<uint8_t> inflated(std::span<const uint8_t> bytes, bool gzip, size_t limit, const std::string& where);

constexpr size_t max_devkit_bytes = 64 << 20;
