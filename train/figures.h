// figures.h: pictures of runs for a paper, one column wide, each as SVG, PDF and PNG.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

// Of all runs together: loss, accuracy, bound. Of each: factors, stretch, promise, norms, entropy, entropy_floor, with the run's name before it
// where there are several. A figure whose tables are missing or empty is left out. Returns the names, without endings, in the order drawn.
std::vector<std::string> write_figures(const std::vector<std::filesystem::path>& runs, const std::filesystem::path& folder);
