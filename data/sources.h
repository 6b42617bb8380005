// sources.h: the kinds of datasets that open_dataset chooses from.
#pragma once
#include <optional>

#include "data/dataset.h"
#include "data/image_index.h"

std::unique_ptr<Dataset> open_image_folder(const std::string& folder, const IndexCache& cache = IndexCache::standard());
std::unique_ptr<Dataset> open_tar_shards(const std::vector<std::string>& shards, std::vector<DamagedImage>* damaged,
                                         const IndexCache& cache = IndexCache::standard());
// A tar of tars, one a class and named after it, as ILSVRC2012_img_train.tar is: read in place. Classes sorted, images sorted by name
// within each: the order of the folder that it unpacks to.
std::unique_ptr<Dataset> open_class_tars(const std::string& tar, const IndexCache& cache = IndexCache::standard());
bool is_tar_of_tars(const std::string& tar);
// ILSVRC2012_img_val.tar, labelled by two files in its folder (or in ILSVRC2012_devkit_t12/data there), or in ILSVRC2012_devkit_t12.tar.gz beside it:
//   ILSVRC2012_validation_ground_truth.txt   line i: the ILSVRC2012_ID of image i, from 1
//   meta.mat                                 the synset of each ID (meta_mat.h)
//   ILSVRC2012_synsets.txt                   instead: lines "ID SYNSET ...", in any order, of which IDs up to 1000 count
// Classes are these synsets, sorted.
std::unique_ptr<Dataset> open_ilsvrc_val(const std::string& tar, const IndexCache& cache = IndexCache::standard());
// The places of an index in these tar files.
std::unique_ptr<Dataset> open_tar_images(const std::vector<std::string>& tars, ImageIndex index);
// CIFAR's binary files: `label_bytes` labels, the last of which counts, and 32 x 32 pixels, plane by plane. Images leave as PNG.
std::unique_ptr<Dataset> open_cifar(const std::vector<std::string>& files, int label_bytes, const std::string& class_names);
std::unique_ptr<Dataset> open_idx(const std::string& images, const std::string& labels);

// .jpg, .jpeg or .png, in letters of either size.
bool is_image_name(const std::string& name);

// The lines of a small text file without their ends.
std::vector<std::string> read_lines(const std::string& path);
// The lines of folder/classes.txt, or of the folder above; nothing when neither has the file.
std::optional<std::vector<std::string>> read_class_names(const std::string& folder);
// Class names for `count` labels: those that were found, which must be enough, or "0", "1", ...
std::vector<std::string> name_classes(std::optional<std::vector<std::string>> found, int count,
                                      const std::string& where);
