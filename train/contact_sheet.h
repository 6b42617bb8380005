// contact_sheet.h: the images of batches in one picture, each with a line of text under it.
#pragma once
#include <string>
#include <vector>

#include "data/batch.h"
#include "data/decode.h"

class ContactSheet {
 public:
  // Room for `count` images of side x side, in a picture about as wide as it is high.
  ContactSheet(int count, int side);
  // pixels: [side, side, channels] with 1 or 3 channels. What does not fit under the image is cut off.
  void add(const uint8_t* pixels, int channels, const std::string& text);
  const Image& picture() const { return picture_; }

 private:
  void write(int top, int left, std::string text);
  int side_, columns_, used_ = 0;
  Image picture_;
};

// The pixels as the network gets them, short of normalisation: erased boxes (gray here, noise there) and images mixed with their partners.
std::vector<uint8_t> finished_pixels(const Batch& batch);
