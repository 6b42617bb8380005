// idx.cpp: MNIST's files, plain or gzipped: a big-endian header, then u8 pixels or labels. Images leave as PGM.
#include <zlib.h>

#include <algorithm>
#include <filesystem>

#include "data/decode.h"
#include "data/sources.h"

namespace {

// The numbers of a file with `dimensions` dimensions: its shape, then everything behind the header.
struct Array {
  std::vector<int64_t> shape;
  Bytes values;
};

class GzipFile {
 public:
  explicit GzipFile(const std::string& path) : path_(path) {
    InputFile(path).size();  // says clearly what zlib would not: missing, or not readable
    file_ = gzopen(path.c_str(), "rb");
    if (!file_) fail(Exit::no_input, path, ": cannot be opened");
  }
  ~GzipFile() { gzclose(file_); }
  GzipFile(const GzipFile&) = delete;

  size_t read(uint8_t* out, size_t length) {
    const int n = gzread(file_, out, unsigned(length));
    int code = Z_OK;
    const char* reason = gzerror(file_, &code);
    if (n < 0 || (code != Z_OK && code != Z_STREAM_END))
      fail(Exit::bad_data, path_, ": is damaged or truncated: ", reason);
    return size_t(n);
  }

 private:
  std::string path_;
  gzFile file_ = nullptr;
};

Array read_array(const std::string& path, int dimensions) {
  GzipFile file(path);
  uint8_t header[16] = {};  // 0, 0, 8 for u8, the number of dimensions; then each of them
  const size_t length = 4 + 4 * size_t(dimensions), there = file.read(header, length);
  if (there < 4 || header[0] != 0 || header[1] != 0 || header[2] != 8 || header[3] != dimensions) {
    fail(Exit::bad_data, path, ": is not an IDX file of ", dimensions, "-dimensional u8");
  }
  if (there < length) fail(Exit::bad_data, path, ": is truncated in its header");
  Array array;
  int64_t count = 1;
  for (int d = 0; d < dimensions; d++) {
    const uint8_t* p = header + 4 + 4 * d;
    array.shape.push_back(int64_t(p[0]) << 24 | p[1] << 16 | p[2] << 8 | p[3]);
    if (d > 0 && (array.shape[d] < 1 || array.shape[d] > max_image_side)) {
      fail(Exit::bad_data, path, ": its header claims images of side ", array.shape[d]);
    }
    count *= array.shape[d];
  }
  if (count < 1) fail(Exit::bad_data, path, ": is empty");

  // Grows with what is really there: a header alone must not claim memory.
  constexpr int64_t step = 1 << 20;
  while (int64_t(array.values.size()) < count) {
    const size_t before = array.values.size(), want = size_t(std::min(step, count - int64_t(before)));
    array.values.resize(before + want);
    if (file.read(array.values.data() + before, want) != want) {
      fail(Exit::bad_data, path, ": is truncated: its header promises ", count, " values");
    }
  }
  uint8_t more;
  if (file.read(&more, 1) != 0) fail(Exit::bad_data, path, ": holds more than the ", count, " values of its header");
  return array;
}

const std::vector<std::string> fashion_mnist_classes = {
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"};

class Idx : public Dataset {
 public:
  Idx(const std::string& images, const std::string& labels) : path_(images) {
    Array pixels = read_array(images, 3), classes = read_array(labels, 1);
    if (pixels.shape[0] != classes.shape[0]) {
      fail(Exit::bad_data, images, ": has ", pixels.shape[0], " images, but ", labels, " has ", classes.shape[0],
           " labels");
    }
    height_ = int(pixels.shape[1]), width_ = int(pixels.shape[2]);
    pixels_ = std::move(pixels.values);
    labels_ = std::move(classes.values);

    const std::string folder = std::filesystem::absolute(images).parent_path().string();
    auto names = read_class_names(folder);
    // The published files carry no names; they are known by the folder that every distribution puts them in.
    if (!names && std::filesystem::path(folder).filename() == "fashion-mnist") names = fashion_mnist_classes;
    classes_ = name_classes(names, *std::max_element(labels_.begin(), labels_.end()) + 1, folder);
  }

  int64_t size() const override { return int64_t(labels_.size()); }
  const std::vector<std::string>& classes() const override { return classes_; }
  int label(int64_t i) const override { return labels_[i]; }
  std::string name(int64_t i) const override { return str(path_, "[", i, "]"); }

  void read(int64_t i, Bytes& out) const override {
    const std::string header = str("P5\n", width_, " ", height_, "\n255\n");
    const uint8_t* pixels = pixels_.data() + size_t(i) * height_ * width_;
    out.assign(header.begin(), header.end());
    out.insert(out.end(), pixels, pixels + size_t(height_) * width_);
  }

 private:
  std::string path_;
  int height_ = 0, width_ = 0;
  Bytes pixels_, labels_;  // [images, height, width] and [images]
  std::vector<std::string> classes_;
};

}  // namespace

std::unique_ptr<Dataset> open_idx(const std::string& images, const std::string& labels) {
  return std::make_unique<Idx>(images, labels);
}
