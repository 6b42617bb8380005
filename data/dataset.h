// dataset.h: a set of labelled images, wherever they lie: folders of files, tar shards, IDX files.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/file.h"

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  virtual const std::vector<std::string>& classes() const = 0;  // their names; the index is the label
  virtual int label(int64_t i) const = 0;
  virtual std::string name(int64_t i) const = 0;                // for messages: where the image is
  virtual void read(int64_t i, Bytes& out) const = 0;           // the encoded image; thread-safe
};

// An image that costs itself and nothing else.
struct DamagedImage {
  int64_t sample = 0;
  std::string name, reason;
};

// The images of one split ("train", "val", "test"; val and test stand in for each other) found at `path`:
//   path/train/<class>/*.jpg|jpeg|png        classes and files in torchvision's order
//   path/train/*.tar                         WebDataset shards: KEY.jpg (or jpeg, png) beside KEY.cls
//   path = folder/{split}-{000000..000146}.tar
//   path/train-images-idx3-ubyte[.gz]        IDX, as MNIST and Fashion-MNIST have it (t10k is the test split)
// Shards and IDX files take their class names from a classes.txt beside them, one a line.
// An empty split means that `path` itself is the folder of classes or shards.
//
// A damaged tar shard is an Error; where `damaged` is given it is noted there, and the images in front of the damage are taken.
std::unique_ptr<Dataset> open_dataset(const std::string& path, const std::string& split, std::vector<DamagedImage>* damaged = nullptr);

// Single image files, without labels (all are 0).
std::unique_ptr<Dataset> open_images(const std::vector<std::string>& paths);

constexpr int64_t max_image_bytes = 1 << 28;
