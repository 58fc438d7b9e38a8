// The element-wise mathematics of one step of the recurrence, for host and device alike:
//
//     a = W h + b        g = sigmoid(V h + c)        h' = h + g * x0 * a
//
// Every function is forced inline. Otherwise a host file compiled for a wide instruction set could leave a copy that the linker uses in
// code for older CPUs.
#pragma once

#include <bit>
#include <cstdint>

#if defined(__CUDACC__)
#define DCRNN_CELL static __host__ __device__ __forceinline__
#define DCRNN_MEMBER __host__ __device__
#else
#define DCRNN_MEMBER
#define DCRNN_CELL [[maybe_unused]] static inline __attribute__((always_inline))
#endif

namespace dcrnn_fast {
namespace {

// exp after Cody and Waite: x = n ln 2 + r with |r| <= ln 2 / 2. A polynomial gives exp(r), and n is added to the exponent's bits.
// Adding 1.5 * 2^23 (2^52 in double) rounds to an integer and leaves it in the low bits; unlike rint and a conversion, this vectorises on
// every instruction set. The clamps keep the exponent in range; sigmoid looks after NaN. The float version expects x <= 0, gives 0 below
// -87, and uses a minimax polynomial of degree 6 (relative error 4e-9).
DCRNN_CELL float exp_negative(float x) {
  const bool vanishes = x < -87.0f;
  x = vanishes ? -87.0f : x;
  const float shifted = x * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  float r = x - n * 0.693145751953125f;
  r = r - n * 1.42860682e-6f;
  float p = 0.001381454f;
  p = p * r + 0.008368745f;
  p = p * r + 0.04166839f;
  p = p * r + 0.16666521f;
  p = p * r + 0.49999994f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float result = std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(shifted) << 23));
  return vanishes ? 0.0f : result;
}

DCRNN_CELL double exp_clamped(double x) {
  x = x < -708.0 ? -708.0 : x;
  x = x > 709.0 ? 709.0 : x;
  const double shifted = x * 1.4426950408889634 + 6755399441055744.0;
  const double n = shifted - 6755399441055744.0;
  double r = x - n * 6.93147180369123816490e-01;
  r = r - n * 1.90821492927058770002e-10;
  double p = 1.0 / 6227020800;
  p = p * r + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  return std::bit_cast<double>(std::bit_cast<std::uint64_t>(p) + (std::bit_cast<std::uint64_t>(shifted) << 52));
}

// 1 / (1 + exp(-q)). The float version computes e = exp(-|q|) and returns 1 / (1 + e) for q >= 0, else e / (1 + e). 1 + e lies between
// 1 and 2: a quadratic gives its reciprocal within 1%, and two Newton steps refine it, in a third of the time of a vector division. The
// last Newton step adds what rounding lost in 1 + e, so that 1 - g stays accurate where g is close to 1. A closed gate is 0, not tiny,
// so that a huge value does not pass it; below -87 the exact gate is less than 2e-38.
DCRNN_CELL float sigmoid(float q) {
  const float e = exp_negative(std::bit_cast<float>(std::bit_cast<std::uint32_t>(q) | 0x80000000u));
  const float x = 1.0f + e, lost = e - (x - 1.0f);
  float y = (x * 0.32323232f - 1.45454545f) * x + 2.12121212f;
  y = y + y * (1.0f - x * y);
  y = y + y * ((1.0f - x * y) - lost * y);
  const float g = q < 0.0f ? e * y : y;
  return q == q ? g : q;  // the bits added to the exponent would make a number of some NaN
}

DCRNN_CELL double sigmoid(double q) {
  const double g = q < -708.0 ? 0.0 : 1.0 / (1.0 + exp_clamped(-q));
  return q == q ? g : q;
}

template <typename A>
DCRNN_CELL A next_state(A h, A x0, A a, A g) {
  return h + g * x0 * a;
}

// From d = dL/dh': the gradients of a and of the gate's argument q, and the step's share of x0's gradient.
template <typename A>
struct StepGradient {
  A da, dq, dx0;
};

template <typename A>
DCRNN_CELL StepGradient<A> step_gradient(A d, A x0, A a, A g) {
  const A dg = d * g;
  const A da = dg * x0;
  return {da, da * a * (A(1) - g), dg * a};
}

}  // namespace
}  // namespace dcrnn_fast
