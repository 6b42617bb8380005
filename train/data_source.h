// data_source.h: the images that a word on the command line names.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"

// The folder of a dataset that a system package brings ("fashion-mnist"), or the path itself.
std::string source_path(const std::string& source);
// The splits that lie in a folder, train first; an empty one when the folder is a split itself.
std::vector<std::string> splits_of(const std::string& path);
// The training images of a source, or all of them.
std::unique_ptr<Dataset> open_source(const std::string& source);
