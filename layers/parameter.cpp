// parameter.cpp: layout, initial values and gradient slots of all parameters.
#include "layers/parameter.h"

#include <algorithm>
#include <cstring>

namespace {
constexpr int64_t alignment = 32;   // numbers: 128 bytes of f32, so that no two parameters share a cache line
thread_local int current_shard = -1;

bool is_small(const ParameterInfo& info) { return info.kind == ParameterKind::vector || info.kind == ParameterKind::table; }
}  // namespace

ShardScope::ShardScope(int shard) : outer_(current_shard) { current_shard = shard; }
ShardScope::~ShardScope() { current_shard = outer_; }

int ParameterStore::add(ParameterInfo info) {
  check(!by_name_.contains(info.name), "[parameters] ", info.name, " exists twice");
  check(info.row_groups > 0 && (info.row_groups == 1 || info.shape[0] % info.row_groups == 0), "[parameters] ", info.name, " ", info.shape,
        " cannot be split into ", info.row_groups, " groups of rows");
  check(info.row_blocks > 0 && info.shape[0] % info.row_blocks == 0, "[parameters] ", info.name, " ", info.shape, " cannot be split into ",
        info.row_blocks, " blocks of rows");
  info.offset = flat_size_;
  flat_size_ += (info.size() + alignment - 1) / alignment * alignment;
  const int index = int(infos_.size());
  by_name_[info.name] = index;
  infos_.push_back(std::move(info));
  return index;
}

void ParameterStore::slides(int index, int64_t side, int64_t stride, int64_t padding) {
  ParameterInfo& info = infos_[index];
  check(info.shape.rank() == 4 && stride > 0, "[parameters] ", info.name, " ", info.shape, " is no kernel");
  info.map_height = info.map_width = side;
  info.stride = stride;
  info.padding = padding;
}

int ParameterStore::add_buffer(BufferInfo info) {
  info.offset = buffers_size_;
  buffers_size_ += (info.shape.size() + alignment - 1) / alignment * alignment;
  buffer_infos_.push_back(std::move(info));
  return int(buffer_infos_.size()) - 1;
}

int ParameterStore::find_buffer(const std::string& name) const {
  for (size_t i = 0; i < buffer_infos_.size(); i++)
    if (buffer_infos_[i].name == name && buffer_infos_[i].persistent) return int(i);
  return -1;
}

Tensor ParameterStore::buffer(int index) const {
  const BufferInfo& info = buffer_infos_[index];
  const Tensor& all = current_shard > 0 ? buffers_[current_shard] : buffer_values();
  return all.slice(info.offset, info.shape.size()).view(info.shape);
}

const Tensor& ParameterStore::buffer_values() const {
  if (device_buffers_old_) {
    buffers_[0].copy_from(host_buffers_);
    device_buffers_old_ = false;
  }
  return buffers_[0];
}

Tensor ParameterStore::raw_buffer(int index) const {
  const BufferInfo& info = buffer_infos_[index];
  return raw_buffer_values().slice(info.offset, info.shape.size()).view(info.shape);
}

const Tensor& ParameterStore::raw_buffer_values() const {
  const std::lock_guard lock(fetching_);
  if (host_buffers_old_) {
    host_buffers_.copy_from(buffers_[0]);
    host_buffers_old_ = false;
  }
  return host_buffers_;
}

void ParameterStore::share_buffers() {
  for (size_t s = 1; s < buffers_.size(); s++)
    if (buffers_size_ > 0) std::memcpy(buffers_[s].raw(), buffers_[0].raw(), buffers_[0].bytes());
}

void ParameterStore::finalize(DType dtype, int shards, uint64_t seed, Device device) {
  dtype_ = dtype;
  device_ = device;
  values_ = Tensor::zeros({flat_size_}, dtype);
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < infos_.size(); i++) {
    const ParameterInfo& info = infos_[i];
    initialize(slice_of(values_, int(i)), info.init, RandomStream(seed, "init." + info.name), info.row_groups);
  }
  in_use_ = device == Device{} ? values_ : values_.to(device);
  if (device != Device{}) {
    pieces_ = std::make_unique<FlatPieces>(ranges(), device);
    int64_t numbers = 0;
    small_.clear();
    for (size_t i = 0; i < infos_.size(); i++)
      if (is_small(infos_[i])) small_.push_back(int(i)), numbers += infos_[i].size();
    small_table_ = pieces_->gather_table(small_);
    small_packed_ = Tensor::empty({numbers}, dtype, device);
  }
  host_buffers_ = Tensor::zeros({buffers_size_}, dtype);
  for (const BufferInfo& info : buffer_infos_)
    initialize(host_buffers_.slice(info.offset, info.shape.size()).view(info.shape), info.init, RandomStream(seed, "init." + info.name));
  buffers_ = {device == Device{} ? host_buffers_ : host_buffers_.to(device)};
  for (int s = 1; s < shards; s++) buffers_.push_back(host_buffers_.to(Device{}));
  gradients_.clear();
  slots_.assign(shards, {});
  for (int s = 0; s < shards; s++) {
    gradients_.push_back(Tensor::zeros({flat_size_}, dtype, device));
    for (size_t i = 0; i < infos_.size(); i++) {
      auto slot = std::make_shared<GradSlot>();
      slot->grad = slice_of(gradients_[s], int(i)).view({infos_[i].size()});
      slot->dtype = dtype;
      slot->device = device;
      slots_[s].push_back(slot);
    }
  }
}

int64_t ParameterStore::count() const {
  int64_t n = 0;
  for (const auto& info : infos_) n += info.size();
  return n;
}

Tensor ParameterStore::slice_of(const Tensor& flat, int index) const {
  const ParameterInfo& info = infos_[index];
  return flat.slice(info.offset, info.size()).view(info.shape);
}

std::vector<FlatRange> ParameterStore::ranges() const {
  std::vector<FlatRange> all;
  for (const ParameterInfo& info : infos_) all.push_back({info.offset, info.offset + info.size()});
  return all;
}

const Tensor& ParameterStore::values() const {
  fetch_all();
  return values_;
}

Tensor ParameterStore::raw(int index) const {
  if (is_small(infos_[index])) fetch_small();
  else fetch_all();
  return slice_of(values_, index);
}

const Tensor& ParameterStore::values_in_use() const {
  if (device_old_) {
    in_use_.copy_from(values_);
    device_old_ = false;
  }
  return in_use_;
}

void ParameterStore::exchange_values(Tensor& others) {
  check(others.device() == device_ && others.size() == flat_size_, "[parameters] ", others.shape(), " on ", others.device(), " are no values of this model");
  values_in_use();
  std::swap(in_use_, others);
  if (device_ == Device{}) values_ = in_use_;
  device_changed();
}

void ParameterStore::fetch_small() const {
  const std::lock_guard lock(fetching_);
  if (!small_old_) return;
  pieces_->gather(in_use_, small_table_, small_packed_);
  const Tensor packed = small_packed_.to(Device{});
  int64_t at = 0;
  for (const int i : small_) {
    const int64_t n = infos_[i].size();
    slice_of(values_, i).view({n}).copy_from(packed.slice(at, n));
    at += n;
  }
  small_old_ = false;
}

void ParameterStore::fetch_all() const {
  const std::lock_guard lock(fetching_);
  if (!large_old_) return;
  values_.copy_from(in_use_);
  small_old_ = large_old_ = false;
}

Tensor ParameterStore::value(int index) const {
  Tensor t = slice_of(values_in_use(), index);
  if (current_shard >= 0) t.set_slot(slots_[current_shard][index]);
  return t;
}

int ParameterStore::find(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? -1 : it->second;
}

void ParameterStore::begin_gradients(int shard) {
  for (auto& slot : slots_[shard]) slot->filled = false;
}

void ParameterStore::end_gradients(int shard) {
  for (auto& slot : slots_[shard])
    if (!slot->filled) fill_bytes(slot->grad.raw(), device_, 0, slot->grad.bytes());
}

double max_abs(const Parameter& p) {
  double m = 0;
  for (const double v : p.raw().values()) m = std::max(m, std::abs(v));
  return m;
}

// A sum of n squares is off by at most n u, its root by half of that and u.
static double rounded_up(double length, size_t n) { return length * (1 + double(n + 4) * 0x1p-53); }

double l2_norm(const Parameter& p) {
  double s = 0;
  const std::vector<double> values = p.raw().values();
  for (const double v : values) s += v * v;
  return rounded_up(std::sqrt(s), values.size());
}

double longest_row_of(const Parameter& p, int64_t rows) {
  const Tensor raw = p.raw();
  const int64_t width = raw.size() / rows;
  double longest = 0;
  dispatch(raw.dtype(), [&]<class T>() {
    for (const T* row = raw.data<T>(); row < raw.data<T>() + raw.size(); row += width) {
      double squares = 0;
#pragma omp simd reduction(+ : squares)
      for (int64_t i = 0; i < width; i++) squares += double(row[i]) * double(row[i]);
      longest = std::max(longest, squares);
    }
  });
  return rounded_up(std::sqrt(longest), size_t(width));
}
