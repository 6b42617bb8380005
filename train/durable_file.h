// durable_file.h: files that are whole or absent whatever happens to the machine, and folders sealed by a manifest.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>

// What errno means to the user: "disk full: could not write runs/a/steps.csv ...", with the exit code that fits.
[[noreturn]] void fail_with_errno(int code, std::string_view doing, const std::filesystem::path& path);

// All of it, through short writes and interrupting signals.
void write_all(int descriptor, std::string_view bytes, const std::filesystem::path& path);

std::string read_file(const std::filesystem::path& path);

// The old file or the new one, never half of one: temporary file beside it, fsync, rename, fsync of the folder.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// fsync of a file or folder by its name.
void sync_path(const std::filesystem::path& path);

// mkdir -p that survives a power loss.
void make_folders(const std::filesystem::path& folder);

// A sealed folder has a manifest.json with the size and CRC-32 of each of its files. The manifest is written last,
// after every file has reached the disk, and removed first: a folder without one was being written or removed, and
// does not count.
void seal_folder(const std::filesystem::path& folder);
bool is_sealed(const std::filesystem::path& folder);            // manifest readable, all files there with their sizes
void verify_sealed(const std::filesystem::path& folder);        // reads every byte; an Error names the damaged file
void remove_sealed(const std::filesystem::path& folder);
