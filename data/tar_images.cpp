// tar_images.cpp: images that lie in tar files, each one read away.
#include "data/sources.h"

namespace {

class TarImages : public Dataset {
 public:
  TarImages(const std::vector<std::string>& tars, ImageIndex index) : index_(std::move(index)) {
    for (const std::string& path : tars) tars_.emplace_back(path);
    for (const Place& place : index_.places) {
      const bool inside = place.file >= 0 && size_t(place.file) < tars_.size() && place.offset >= 0 &&
                          int64_t(place.length) <= tars_[size_t(place.file)].size() - place.offset;
      if (!inside) fail(Exit::bad_data, tars.front(), ": its listing says that an image lies outside the file");
    }
  }

  int64_t size() const override { return int64_t(index_.labels.size()); }
  const std::vector<std::string>& classes() const override { return index_.classes; }
  int label(int64_t i) const override { return index_.labels[size_t(i)]; }
  std::string name(int64_t i) const override { return str(file_of(i).path(), "/", index_.names[size_t(i)]); }

  void read(int64_t i, Bytes& out) const override {
    const Place& place = index_.places[size_t(i)];
    resize_exactly(out, place.length);
    if (file_of(i).read_at(place.offset, out.data(), out.size()) != out.size())
      fail(Exit::io, file_of(i).path(), ": became shorter after it was opened");
  }

 private:
  const InputFile& file_of(int64_t i) const { return tars_[size_t(index_.places[size_t(i)].file)]; }

  std::vector<InputFile> tars_;
  ImageIndex index_;
};

}  // namespace

std::unique_ptr<Dataset> open_tar_images(const std::vector<std::string>& tars, ImageIndex index) {
  return std::make_unique<TarImages>(tars, std::move(index));
}
