// sealed_folder.h: folders that count only while they are complete: a checkpoint is one.
#pragma once
#include <filesystem>

// A sealed folder has a manifest.json with the size and CRC-32 of each of its files. The manifest is written last,
// after every file has reached the disk, and removed first: a folder without one was being written or removed, and
// does not count.
void seal_folder(const std::filesystem::path& folder);
bool is_sealed(const std::filesystem::path& folder);            // manifest readable, all files there with their sizes
void verify_sealed(const std::filesystem::path& folder);        // reads every byte; an Error names the damaged file
void remove_sealed(const std::filesystem::path& folder);
