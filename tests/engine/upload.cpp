// Uploads: what arrives is what was sent, whatever happens to its source or its place afterwards.
#include <doctest/doctest.h>

#include "engine/capture_rules.h"
#include "engine/upload.h"

namespace {

constexpr Device cuda{Device::cuda, 0};

Tensor numbers(std::vector<double> values) {
  const auto n = int64_t(values.size());
  return Tensor::from(Shape{n}, values, DType::f32);
}

}  // namespace

TEST_CASE("upload: tensors arrive whole, one behind the other") {
  Upload upload(cuda);
  const Tensor bytes = Tensor::from(Shape{3}, std::vector<int32_t>{1, 2, 255}, DType::u8);
  const std::vector<Tensor> there{Tensor::zeros({3}, DType::u8, cuda), Tensor::zeros({70}, DType::f32, cuda)};
  std::vector<double> ramp(70);
  for (int round = 0; round < 3; round++) {
    for (size_t i = 0; i < ramp.size(); i++) ramp[i] = double(i) + 100 * round;
    Tensor source = numbers(ramp);
    upload.send({bytes, source});
    source.copy_from(numbers(std::vector<double>(70, -1)));   // it was taken before send returned
    upload.receive(there);
    CHECK(there[0].values() == std::vector<double>{1, 2, 255});
    CHECK(there[1].values() == ramp);
  }
}

TEST_CASE("upload: what was sent and not received is forgotten") {
  Upload upload(cuda);
  const std::vector<Tensor> there{Tensor::zeros({2}, DType::f32, cuda)};
  upload.send({numbers({1, 2, 3})});
  upload.send({numbers({4, 5})});
  upload.receive(there);
  CHECK(there[0].values() == std::vector<double>{4, 5});
}

TEST_CASE("upload: other sizes, another place, nothing sent, or a recording are refused") {
  Upload upload(cuda);
  const std::vector<Tensor> there{Tensor::zeros({2}, DType::f32, cuda)};
  CHECK_THROWS_AS(upload.receive(there), Error);
  upload.send({numbers({1, 2, 3})});
  CHECK_THROWS_AS(upload.receive(there), Error);
  upload.send({numbers({1, 2})});
  CHECK_THROWS_AS(upload.receive({Tensor::zeros({2}, DType::f32)}), Error);
  CHECK_THROWS_AS(upload.send({there[0]}), Error);
  const CaptureRules recording(cuda);
  CHECK_THROWS_AS(upload.send({numbers({1, 2})}), Error);
}
