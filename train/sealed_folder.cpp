// sealed_folder.cpp: the manifest that makes a folder count.
#include <cerrno>
#include <nlohmann/json.hpp>
#include <unistd.h>
#include <vector>
#include <zlib.h>

#include "engine/check.h"
#include "engine/durable_file.h"
#include "train/sealed_folder.h"

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

const char* const manifest_name = "manifest.json";

unsigned long crc32_of_file(const fs::path& path) {
  const std::string bytes = read_file(path);
  return ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
}

// The files the manifest speaks of; null where there is no manifest or it does not make sense.
json read_manifest(const fs::path& folder) {
  if (!fs::is_regular_file(folder / manifest_name)) return nullptr;
  const json manifest = json::parse(read_file(folder / manifest_name), nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object() || !manifest.contains("files") || !manifest["files"].is_object()) return nullptr;
  for (const auto& [name, entry] : manifest["files"].items()) {
    const bool sound = entry.is_object() && entry.contains("bytes") && entry["bytes"].is_number_unsigned() &&
                       entry.contains("crc32") && entry["crc32"].is_number_unsigned();
    if (!sound) return nullptr;
  }
  return manifest["files"];
}

}  // namespace

void seal_folder(const fs::path& folder) {
  json files = json::object();
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    sync_path(entry.path());
    if (!entry.is_regular_file() || entry.path().filename() == manifest_name) continue;
    files[fs::relative(entry.path(), folder).generic_string()] = {
        {"bytes", entry.file_size()},
        {"crc32", crc32_of_file(entry.path())},
    };
  }
  sync_path(folder);
  write_file_atomically(folder / manifest_name, json{{"files", files}}.dump(1) + "\n");
  sync_path(fs::absolute(folder).parent_path());
}

bool is_sealed(const fs::path& folder) {
  const json files = read_manifest(folder);
  if (files.is_null()) return false;
  for (const auto& [name, entry] : files.items()) {
    std::error_code error;
    const auto size = fs::file_size(folder / name, error);
    if (error || size != entry["bytes"].get<std::uintmax_t>()) return false;
  }
  return true;
}

void verify_sealed(const fs::path& folder) {
  const json files = read_manifest(folder);
  if (files.is_null()) fail(Exit::bad_data, folder.string(), " is not complete: it has no valid ", manifest_name);
  for (const auto& [name, entry] : files.items()) {
    const fs::path file = folder / name;
    if (!fs::is_regular_file(file)) {
      fail(Exit::bad_data, file.string(), " is missing, and ", manifest_name, " lists it");
    }
    const bool same = fs::file_size(file) == entry["bytes"].get<std::uintmax_t>() &&
                      crc32_of_file(file) == entry["crc32"].get<unsigned long>();
    if (!same) {
      fail(Exit::bad_data, file.string(), " is damaged: its bytes are not those that ", manifest_name, " lists");
    }
  }
}

void remove_sealed(const fs::path& folder) {
  if (::unlink((folder / manifest_name).c_str()) != 0 && errno != ENOENT) fail_with_errno(errno, "remove", folder);
  if (fs::exists(folder)) sync_path(folder);
  std::error_code error;
  fs::remove_all(folder, error);
  if (error) fail_with_errno(error.value(), "remove", folder);
}
