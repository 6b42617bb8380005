// dtype.h: what a number is stored as. f32 and bf16 train, f64 checks gradients, u8 and i32 carry data.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string_view>

#include "engine/check.h"
#include "engine/host_device.h"

enum class DType : uint8_t { f32, bf16, f64, u8, i32 };

// The upper half of a float, rounded to nearest even. Storage only: every operation is done in float.
struct bf16 {
  uint16_t bits = 0;
  bf16() = default;
  HD bf16(float value) {
#ifdef __CUDA_ARCH__
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
    const uint32_t word = std::bit_cast<uint32_t>(value);
    const bool is_nan = (word & 0x7fffffffu) > 0x7f800000u;
    bits = is_nan ? uint16_t((word >> 16) | 0x40u) : uint16_t((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
#endif
  }
  HD operator float() const { return std::bit_cast<float>(uint32_t(bits) << 16); }
};

// The type in which numbers stored as T are computed.
template <class T> struct ComputeType { using type = float; };
template <> struct ComputeType<double> { using type = double; };
template <class T> using Compute = typename ComputeType<T>::type;

template <class T> inline constexpr DType dtype_of = DType::f32;
template <> inline constexpr DType dtype_of<bf16> = DType::bf16;
template <> inline constexpr DType dtype_of<double> = DType::f64;
template <> inline constexpr DType dtype_of<uint8_t> = DType::u8;
template <> inline constexpr DType dtype_of<int32_t> = DType::i32;

inline size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32: case DType::i32: return 4;
    case DType::bf16: return 2;
    case DType::f64: return 8;
    case DType::u8: return 1;
  }
  return 0;
}

inline const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::f64: return "f64";
    case DType::u8: return "u8";
    case DType::i32: return "i32";
  }
  return "?";
}

inline std::ostream& operator<<(std::ostream& out, DType dtype) { return out << name_of(dtype); }

// Calls f.template operator()<T>() with the floating type that dtype names.
template <class F> void dispatch(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32: return f.template operator()<float>();
    case DType::bf16: return f.template operator()<bf16>();
    case DType::f64: return f.template operator()<double>();
    default: check(false, "[dispatch] a floating type is needed, given ", dtype);
  }
}
