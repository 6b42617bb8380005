// devkit.h: what ImageNet's devkit says about the validation images, in its archive or in files.
#pragma once
#include <map>
#include <string>
#include <vector>

// Where it is said. In the archive, both paths are the archive's.
struct DevkitFiles {
  std::string truth, synsets;
};
struct DevkitLabels {
  std::vector<std::string> truth;        // line i: the ILSVRC2012_ID of image i + 1
  std::map<int, std::string> synsets;    // of each ID that a picture can have
};

// In the folder of ILSVRC2012_img_val.tar, or unpacked below it. Exit::no_input when nothing is there.
DevkitFiles find_devkit(const std::string& tar);
DevkitLabels read_devkit(const DevkitFiles& files);

int number_in(const std::string& word);   // -1 when it is no number of up to eight digits
