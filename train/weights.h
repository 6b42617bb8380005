// weights.h: tensors of a model to and from safetensors, by PyTorch's names.
#pragma once
#include <map>
#include <set>
#include <string>

#include "engine/safetensors.h"
#include "layers/parameter.h"

// A file's tensor as ours, converted to `dtype` (F16, BF16, F32 and F64 are read).
Tensor to_tensor(const SafetensorsEntry& entry, DType dtype, const std::string& what);
// A tensor as a file's; the tensor must live until the file is written.
SafetensorsEntry to_entry(const Tensor& tensor);

// Fills parameters and persistent buffers from the file. Names are PyTorch's; the prefixes module. and _orig_mod. are stripped, and the buffers
// relative_position_index and attn_mask of Swin's files are skipped. Missing or extra names and other shapes are Errors that say which;
// `partial` allows missing and extra ones.
// Returns the names of those that were filled.
std::set<std::string> load_weights(ParameterStore& store, const SafetensorsFile& file, bool partial, const std::string& prefix = "");
// All persistent buffers, as they stand.
std::map<std::string, SafetensorsEntry> buffer_entries(const ParameterStore& store);
// All parameters, their values taken from a flat buffer of the store's layout.
std::map<std::string, SafetensorsEntry> weight_entries(const ParameterStore& store, const Tensor& flat, const std::string& prefix = "");
