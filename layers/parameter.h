// parameter.h: named slices of flat buffers. One buffer of values, one gradient buffer for each shard of the batch. Where the model runs on a GPU,
// the values that count are there; the host has a copy, which is fetched when somebody looks at it.
#pragma once
#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/autograd.h"
#include "engine/flat.h"
#include "layers/init.h"

enum class ParameterKind {
  matrix,      // a linear map [out, in], or a convolution of non-overlapping patches [out, in, P, P]
  depthwise,   // [C, 1, K, K] on a map of known size
  table,       // relative position biases: no map of the tokens, little weight decay
  embedding,   // [tokens, C], looked up; or a learned token
  vector,      // biases, norm weights, residual scales: little weight decay
};

struct ParameterInfo {
  std::string name;   // PyTorch's
  Shape shape;
  ParameterKind kind;
  Init init;
  int64_t map_height = 0, map_width = 0;   // a convolution: the map it runs over
  int64_t stride = 0, padding = 0;         // one [out, in, k, k] whose patches overlap; stride 0: it is none
  int64_t row_groups = 1, row_blocks = 1;  // a matrix: see RowParts
  int64_t offset = 0;                      // in the flat buffers, in numbers
  int64_t size() const { return shape.size(); }
  bool decays() const { return kind == ParameterKind::matrix || kind == ParameterKind::depthwise; }
};

// What a layer remembers but does not learn (torch.nn.Module.register_buffer).
struct BufferInfo {
  std::string name;
  Shape shape;
  Init init;
  bool persistent = true;   // part of checkpoints
  bool frozen = false;      // what PyTorch counts as a parameter that does not learn
  int64_t offset = 0;
};

class ParameterStore {
 public:
  // Says that a matrix is the kernel of a convolution over a square map.
  void slides(int index, int64_t side, int64_t stride, int64_t padding);
  // While a model is built: the next parameter, laid out behind the last one. Returns its index.
  int add(ParameterInfo info);
  int add_buffer(BufferInfo info);
  // Lays out the buffers and draws the initial values, each from the stream of its own name.
  void finalize(DType dtype, int shards, uint64_t seed, Device device = {});

  const std::vector<ParameterInfo>& parameters() const { return infos_; }
  int64_t count() const;                       // numbers in all parameters
  int64_t flat_size() const { return flat_size_; }   // the same with the padding between them
  DType dtype() const { return dtype_; }
  int shards() const { return int(gradients_.size()); }

  Device device() const { return device_; }
  // Flat, on the host. Who writes to it says so afterwards.
  const Tensor& values() const;
  void host_changed() { device_old_ = device_ != Device{}; }
  // Flat, where the model runs. Who writes to it says so afterwards.
  const Tensor& values_in_use() const;
  void device_changed() { small_old_ = large_old_ = device_ != Device{}; }
  void exchange_values(Tensor& others);   // with a flat tensor on the device
  void fetch_small() const;   // brings the host's vectors and tables up to date
  const Tensor& gradient(int shard) const { return gradients_[shard]; }   // flat, where the model runs
  // A parameter's values as ops read them, with the gradient slot of the shard that runs on this thread (none outside a shard).
  Tensor value(int index) const;
  Tensor raw(int index) const;   // on the host, without a gradient slot
  Tensor slice_of(const Tensor& flat, int index) const;                     // that parameter's part of any flat buffer
  int find(const std::string& name) const;                                  // -1 if there is none

  const std::vector<BufferInfo>& buffers() const { return buffer_infos_; }
  int find_buffer(const std::string& name) const;   // a persistent one; -1 if there is none
  // A buffer's values as ops read and write them: of the copy that belongs to the shard on this thread, else of the first.
  Tensor buffer(int index) const;
  const Tensor& buffer_values() const;          // flat, the first copy, where the model runs. Who writes to it says so afterwards
  void device_changed_buffers() { host_buffers_old_ = device_ != Device{}; }
  Tensor raw_buffer(int index) const;           // of the first copy, on the host
  const Tensor& raw_buffer_values() const;      // the same, flat. Who writes to it says so afterwards
  void host_changed_buffers() { device_buffers_old_ = device_ != Device{}; }
  // Between steps: every shard goes on from the first one's buffers, as torch's DistributedDataParallel does.
  void share_buffers();
  // Weights whose map is a multiple of them by 1 / sigma (layers/lipschitz/spectral_weights.h): parameters and buffers by index.
  struct SpectralWeight {
    int weight, gamma, u, alpha;   // gamma: -1 if it is fixed at 1
    double factor;
    bool gamma_is_sigma;
  };
  std::vector<SpectralWeight> spectral_weights;
  struct RowGain { int weight, gain; };
  std::vector<RowGain> row_gains;   // weight_norm: the gain starts as the lengths of the rows
  // A layer computes statistics over the batch: a shard must not be cut into micro-batches.
  bool batch_statistics = false;

  std::vector<FlatRange> ranges() const;   // of all parameters in the flat buffers

  void begin_gradients(int shard);   // forgets the last step's gradients
  void end_gradients(int shard);     // zeroes those that nothing reached

 private:
  std::vector<ParameterInfo> infos_;
  std::map<std::string, int> by_name_;
  std::vector<BufferInfo> buffer_infos_;
  int64_t flat_size_ = 0, buffers_size_ = 0;
  DType dtype_ = DType::f32;
  Device device_;
  Tensor values_;        // of the host
  Tensor in_use_;        // the same on the CPU
  // What of the one is older than the other. Vectors and tables are looked at in every step, matrices seldom: they are fetched apart.
  mutable bool device_old_ = false, small_old_ = false, large_old_ = false;
  mutable std::mutex fetching_;
  void fetch_all() const;
  std::vector<int> small_;
  std::unique_ptr<FlatPieces> pieces_;
  Tensor small_table_, small_packed_;   // on the device
  std::vector<Tensor> gradients_;
  std::vector<Tensor> buffers_;   // flat; one a shard, at least one
  Tensor host_buffers_;           // the first of them on the CPU
  mutable bool device_buffers_old_ = false, host_buffers_old_ = false;
  std::vector<std::vector<std::shared_ptr<GradSlot>>> slots_;   // [shard][parameter]
};

// While it lives, gradients made on this thread go to the given shard's buffer.
class ShardScope {
 public:
  explicit ShardScope(int shard);
  ~ShardScope();
  ShardScope(const ShardScope&) = delete;

 private:
  int outer_;
};

// What a layer holds: calling it gives the tensor.
struct Parameter {
  const ParameterStore* store = nullptr;
  int index = -1;
  explicit operator bool() const { return store != nullptr; }
  Tensor operator()() const { return store ? store->value(index) : Tensor(); }
  Tensor raw() const { return store->raw(index); }
  const ParameterInfo& info() const { return store->parameters()[index]; }
};

struct Buffer {
  const ParameterStore* store = nullptr;
  int index = -1;
  explicit operator bool() const { return store != nullptr; }
  Tensor operator()() const { return store ? store->buffer(index) : Tensor(); }
  Tensor raw() const { return store->raw_buffer(index); }
};

// Norms of small parameters, for the bounds: never below the truth.
double max_abs(const Parameter& p);
double l2_norm(const Parameter& p);
double longest_row_of(const Parameter& p, int64_t rows);   // l2, of so many equal rows
inline double longest_row(const Parameter& p) { return longest_row_of(p, p.raw().size() / p.raw().dim(-1)); }   // over the last dimension
