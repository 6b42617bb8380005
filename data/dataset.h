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

// The images of one split ("train", "val", "test"; val and test stand in for each other) found at `path`. The first of these that is there:
//   path/train/*.tar                              WebDataset shards: KEY.jpg (or jpeg, png) beside KEY.cls or KEY.json, as pack() writes them
//   path/train/<class>/**/*.jpg|jpeg|png          classes and files in torchvision's order
//   path/train-images-idx3-ubyte[.gz]             IDX, as MNIST and Fashion-MNIST have it (t10k is the test split)
//   path/ILSVRC2012_img_train.tar, ..._val.tar    ImageNet's archives, read in place (sources.h says what labels the second)
//   path/data_batch_1.bin ... 5, test_batch.bin   CIFAR-10, binary version; path/train.bin, test.bin: CIFAR-100, fine labels
// or a path to tar files, with {split} where the splits differ and a range such as {000000..000146} where there are several; one tar whose
// first member is a tar holds a tar for each class.
// Shards and IDX files take their class names from a classes.txt beside them, one a line.
// An empty split means that `path` itself is the folder of classes or shards.
//
// What was found by listing or walking is remembered (image_index.h). A damaged tar shard is an Error; where `damaged` is given it is noted
// there, and the images in front of the damage are taken.
std::unique_ptr<Dataset> open_dataset(const std::string& path, const std::string& split, std::vector<DamagedImage>* damaged = nullptr);

// Whether open_dataset() would find a split of just this name in the folder `path`.
bool has_split(const std::string& path, const std::string& name);

// Single image files, without labels (all are 0).
std::unique_ptr<Dataset> open_images(const std::vector<std::string>& paths);

constexpr int64_t max_image_bytes = 1 << 28;
