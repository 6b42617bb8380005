// Decoding at 1/2, 1/4 and 1/8: regions and repacked files agree with the whole, and what is resized from there is close to the exact picture.
#include "make_jpeg.h"

#include "data/augment.h"
#include "data/repack.h"

namespace {

Image shrunk(Decoder& decoder, const Bytes& bytes, int shrink, const Box* region = nullptr) {
  const Size size = decoder.open(bytes);
  Image image;
  const Box whole{0, 0, (size.height + shrink - 1) / shrink, (size.width + shrink - 1) / shrink};
  decoder.read(region ? *region : whole, 3, shrink, image);
  return image;
}

RandomSequence sequence(uint64_t sample) { return {RandomStream(3, "augment"), 0, sample}; }

double mean_difference(const Bytes& a, const Bytes& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); i++) sum += std::abs(int(a[i]) - int(b[i]));
  return sum / double(a.size());
}

const std::vector<JpegSpec> kinds = {{.name = "444"}, {.name = "420", .sampling = {{2, 2}, {1, 1}, {1, 1}}},
                                     {.name = "422", .sampling = {{2, 1}, {1, 1}, {1, 1}}}, {.name = "gray", .components = 1}};

}  // namespace

TEST_CASE("scaled decode: a region is a cut from the whole, repacked or not") {
  Decoder decoder;
  for (const JpegSpec& kind : kinds) {
    const Bytes plain = make_jpeg(kind, 173, 301), packed = repack_jpeg(plain, 0).value();
    for (const int shrink : {2, 4, 8}) {
      const Image all = shrunk(decoder, plain, shrink);
      CHECK_UNARY(all.height == (173 + shrink - 1) / shrink && all.width == (301 + shrink - 1) / shrink);
      for (const Box& box : {Box{0, 0, all.height, all.width}, Box{3, 5, 9, 11}, Box{all.height - 2, all.width - 3, 2, 3}, Box{10, 17, 1, 1}})
        for (const Bytes* bytes : {&plain, &packed}) {
          INFO(kind.name, " / ", shrink, " at ", box.top, ", ", box.left, bytes == &packed ? ", repacked" : "");
          const Image part = shrunk(decoder, *bytes, shrink, &box);
          bool equal = true;
          for (int y = 0; y < box.height; y++)
            equal &= std::equal(&part.pixels[size_t(y) * box.width * 3], &part.pixels[size_t(y) * box.width * 3] + box.width * 3,
                                &all.pixels[(size_t(box.top + y) * all.width + box.left) * 3]);
          CHECK(equal);
        }
    }
  }
}

TEST_CASE("scaled decode: close to the exact picture, and not a byte away where the crop is small") {
  AugmentConfig exact, fast;
  exact.image_size = fast.image_size = 32;
  fast.scaled_decode = true;
  Renderer slow(exact), quick(fast);
  for (const JpegSpec& kind : kinds) {
    CAPTURE(kind.name);
    int changed = 0;
    double sum = 0;
    for (const auto& [height, width] : {std::pair{300, 400}, std::pair{62, 63}}) {
      const Bytes jpeg = make_jpeg(kind, height, width);
      for (int i = 0; i < 40; i++) {
        Bytes a(32 * 32 * 3), b(a);
        slow.training(jpeg, sequence(i), a.data());
        quick.training(jpeg, sequence(i), b.data());
        changed += a != b;
        if (height < 64) CHECK(a == b);
        if (height > 64) sum += mean_difference(a, b);
      }
    }
    CHECK(changed > 30);
    CHECK(sum / 40 < 6);   // levels of 255; measured 3.5 to 4.6 for this picture of noise and edges, 0.3 for photographs
  }
}
