// decimate.h: a long curve in few points that look the same. All curves of a table keep common steps.
#pragma once
#include <cstddef>
#include <vector>

// At most `most` rows stay as they are. Of more, the first and the last stay, and between them each bucket of rows
// becomes two points: its lowest and highest value in the order they came. A bucket with nan or inf keeps one such and
// its highest.
std::vector<double> thin_steps(const std::vector<double>& steps, std::size_t most);
std::vector<double> thin_extremes(const std::vector<double>& values, std::size_t most);
std::vector<double> thin_means(const std::vector<double>& values, std::size_t most);   // the bucket's mean, twice

// For a picture of one column a bucket: where each begins, and its lowest value (nan wins: it must be seen).
std::vector<double> bucket_steps(const std::vector<double>& steps, std::size_t most);
std::vector<double> bucket_lowest(const std::vector<double>& values, std::size_t most);
