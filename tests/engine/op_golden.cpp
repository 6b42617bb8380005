// Ops against PyTorch: inputs, outputs and gradients in tests/golden/ops.safetensors, all f64.
#include "op_case.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstring>

#include "engine/safetensors.h"

namespace {

class Golden {
 public:
  Golden() : file_(str(SOURCE_DIR, "/tests/golden/ops.safetensors")) {}
  Tensor operator()(const std::string& name) const {
    const auto found = file_.tensors().find(name);
    REQUIRE_MESSAGE(found != file_.tensors().end(), name, " is not in the golden file");
    const SafetensorsEntry& entry = found->second;
    REQUIRE(entry.dtype == "F64");
    std::vector<double> values(entry.bytes / sizeof(double));
    std::memcpy(values.data(), entry.data, entry.bytes);
    return Tensor::from(entry.shape.empty() ? Shape{1} : Shape(entry.shape), values, DType::f64);
  }
  nlohmann::json attributes(const std::string& op) const { return nlohmann::json::parse(file_.metadata().at("attributes")).at(op); }

 private:
  SafetensorsFile file_;
};

constexpr Tolerance tolerance{1e-24, 1e-12};

// Runs the op on the named inputs and compares its output and every gradient.
void check_golden(const std::string& op, const std::vector<std::string>& names, const OpFunction& function) {
  const Golden golden;
  for (const Device device : {Device{Device::cpu}, Device{Device::cuda}}) {
    Inputs in;
    for (const std::string& name : names) {
      in.push_back(golden(op + "." + name).to(device));
      want_grad(in.back());
    }
    Tape tape;
    const TapeScope open(&tape);
    const Outputs out = function(in);
    const Tensor y = out.all[0], wanted = golden(op + ".y");
    CHECK_MESSAGE(y.size() == wanted.size(), op, " is ", y.shape(), ", PyTorch's is ", wanted.shape());
    check_close(op, wanted.values(), y.to(Device{}).values(), tolerance, y.shape());
    tape.backward(y, golden(op + ".dy").view(y.shape()).to(device));
    for (size_t i = 0; i < names.size(); i++) {
      REQUIRE_MESSAGE(grad_of(in[i]), op, ": ", names[i], " got no gradient");
      check_close(str(op, ", gradient of ", names[i]), golden(str(op, ".d", names[i])).values(), grad_of(in[i]).to(Device{}).values(),
                  tolerance, in[i].shape());
    }
  }
}

}  // namespace

TEST_CASE("golden: gelu") {
  check_golden("gelu", {"x"}, [](const Inputs& in) { return gelu(in[0]); });
}

TEST_CASE("golden: linear") {
  check_golden("linear", {"x", "weight", "bias"}, [](const Inputs& in) { return linear(in[0], in[1], in[2]); });
}

TEST_CASE("golden: layer_norm and center_norm") {
  const double eps = Golden().attributes("layer_norm")["eps"];
  check_golden("layer_norm", {"x", "weight", "bias"}, [=](const Inputs& in) { return layer_norm(in[0], in[1], in[2], eps); });
  check_golden("center_norm", {"x", "weight", "bias"}, [](const Inputs& in) { return center_norm(in[0], in[1], in[2]); });
}

TEST_CASE("golden: cross_entropy") {
  const Tensor targets = Golden()("soft_cross_entropy.targets");
  // PyTorch's is the mean over the rows.
  check_golden("soft_cross_entropy", {"x"}, [&](const Inputs& in) {
    return cross_entropy(in[0], targets.to(in[0].device()), 1.0 / double(targets.dim(0)));
  });
}

TEST_CASE("golden: patch_merge") {
  check_golden("patch_merge", {"x"}, [](const Inputs& in) { return patch_merge(in[0]); });
}

TEST_CASE("golden: patch embedding is patchify and linear") {
  const int patch = Golden().attributes("patch_embed")["patch"];
  check_golden("patch_embed", {"x", "weight", "bias"}, [=](const Inputs& in) {
    const int64_t out = in[1].dim(0);
    return linear(patchify(in[0], patch), in[1].view({out, in[1].size() / out}), in[2]);
  });
}
