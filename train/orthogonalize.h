// orthogonalize.h: the polar factor U V^T of a matrix U S V^T by odd polynomials of it, which need products only (Newton-Schulz).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

// One step: x -> a x + b x^3 + c x^5 on every singular value.
struct Quintic {
  double a, b, c;
};

// The steps that take (0, 1] near 1.
struct Coefficients {
  const char* name;
  double peak;   // no singular value leaves above it, if it came in with at most 1
  std::vector<Quintic> steps;
  double map(double x) const;   // all steps on one singular value
};

// muon5: Jordan's five equal steps, quick and rough. lipschitz5, youjiacheng6: tighter; youjiacheng6 never goes above 1.
// polar_express5, polar_express8 (Amsel et al. 2025): the first fits five steps, the second ends at 1 to four digits.
const Coefficients& coefficients_named(const std::string& name);   // Error(Exit::config) if there are none
std::vector<std::string> coefficient_names();

// x [rows, columns] <- about U V^T, for x of any size: it is divided by its Frobenius norm first. Zero stays zero.
template <class T> void orthogonalize(T* x, int64_t rows, int64_t columns, const Coefficients& coefficients);

// The same to the accuracy of T, as long as the singular values do not differ by more than about 1e6.
template <class T> void polar_factor(T* x, int64_t rows, int64_t columns);

// Numbers that live until the same thread asks for the same slot again.
template <class T> T* scratch(int slot, int64_t count);
