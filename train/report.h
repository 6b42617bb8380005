// report.h: one self-contained page about one run, or several side by side.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "train/run_tables.h"

// Written atomically; the page asks nothing of the network and needs no file beside it.
void write_report(const std::vector<std::filesystem::path>& runs, const std::filesystem::path& output);

// The data of a run as the page reads it: text and figures as JSON, tables as base64 of little-endian floats.
nlohmann::json report_data(const RunTables& run);
