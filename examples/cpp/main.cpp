// Calls the operators from C++ by name, through PyTorch's dispatcher, and checks them against the formulas and against finite differences.
// The exit code is 1 if a number differs.
//
// Linking dcrnn_fast::ops is all that registers the operators; a program that is not linked with it may dlopen libdcrnn_fast_ops.so. This
// example uses PyTorch's stable ABI, so that it, like the library, runs with later versions of PyTorch than the one it was built against.
// With libtorch's own API, c10::Dispatcher::singleton().findSchemaOrThrow("dcrnn_fast::cross_rnn", "") finds the same operators.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#ifndef STABLE_TORCH_ERROR_CODE_CHECK  // PyTorch 2.13 added it; its errors say more
#define STABLE_TORCH_ERROR_CODE_CHECK TORCH_ERROR_CODE_CHECK
#endif

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Doubles = std::vector<double>;

// A call must give all arguments of the operator's schema: the dispatcher fills in no defaults. csrc/ops.cpp has the schemas.
template <typename... Results, typename... Arguments>
std::tuple<Results...> call(const char* op, const Arguments&... arguments) {
  std::array<StableIValue, std::max(sizeof...(Arguments), sizeof...(Results))> stack{torch::stable::detail::from(arguments)...};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(op, "", stack.data(), TORCH_ABI_VERSION));
  size_t i = 0;
  return std::tuple<Results...>{torch::stable::detail::to<Results>(stack[i++])...};
}

// A tensor on the vector's memory.
template <typename T>
Tensor tensor(std::vector<T>& values, const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size() - 1; i > 0; --i) strides[i - 1] = strides[i] * sizes[i];
  const ScalarType dtype = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Int;
  return torch::stable::from_blob(values.data(), sizes, strides, torch::stable::Device(torch::headeronly::DeviceType::CPU), dtype);
}

int failures = 0;

void expect_close(const char* name, const Tensor& got, const Doubles& want) {
  double error = got.numel() == static_cast<int64_t>(want.size()) ? 0 : INFINITY;
  const double* const values = static_cast<const double*>(got.const_data_ptr());
  for (size_t i = 0; error < INFINITY && i < want.size(); ++i) error = std::max(error, std::abs(values[i] - want[i]));
  const bool right = error <= 1e-8;
  std::printf("%s %-36s largest error %.1e\n", right ? "right" : "WRONG", name, error);
  failures += !right;
}

// Tasks, rows, units, steps, units that the tasks share, and each task's own.
constexpr int64_t T = 2, B = 3, D = 4, L = 2, S = 3, P = D - S;

// The row at a place of two banks, `size` values long: below S a shared row, S + p the task's own row p.
const double* row(const Doubles& shared, const Doubles& own, int64_t t, int64_t at, int64_t size) {
  return at < S ? &shared[at * size] : &own[(t * P + at - S) * size];
}

struct Problem {
  Doubles x0 = Doubles(B * D), shared_weight = Doubles(S * 2 * D), shared_bias = Doubles(S * 2);
  Doubles private_weight = Doubles(T * P * 2 * D), private_bias = Doubles(T * P * 2);

  Problem() {
    double phase = 0;
    for (Doubles* values : inputs())
      for (double& value : *values) value = std::sin(phase += 1.7);
  }

  std::array<Doubles*, 5> inputs() { return {&x0, &shared_weight, &shared_bias, &private_weight, &private_bias}; }

  // h' = h + sigmoid(V h + c) * x0 * (W h + b), from h = x0, L times: [T, B, D].
  Doubles states() const {
    Doubles out;
    for (int64_t t = 0; t < T; ++t)
      for (int64_t b = 0; b < B; ++b) {
        const double* const start = &x0[b * D];
        Doubles h(start, start + D);
        for (int64_t step = 0; step < L; ++step) {
          const Doubles before = h;
          for (int64_t d = 0; d < D; ++d) {
            const double* const weight = row(shared_weight, private_weight, t, d, 2 * D);
            const double* const bias = row(shared_bias, private_bias, t, d, 2);
            double a = bias[0], q = bias[1];
            for (int64_t k = 0; k < D; ++k) a += weight[k] * before[k], q += weight[D + k] * before[k];
            h[d] += start[d] * a / (1 + std::exp(-q));
          }
        }
        out.insert(out.end(), h.begin(), h.end());
      }
    return out;
  }
};

// The derivatives of the sum of all states by each of the values, which belong to the problem.
Doubles differences(const Problem& problem, Doubles& values) {
  const auto loss = [&](double& value, double moved) {
    const double before = value;
    value = moved;
    double sum = 0;
    for (const double state : problem.states()) sum += state;
    value = before;
    return sum;
  };
  Doubles out;
  for (double& value : values) out.push_back((loss(value, value + 1e-5) - loss(value, value - 1e-5)) / 2e-5);
  return out;
}

void run() {
  Problem p;
  std::vector<int32_t> places{0, 1, 3, 3, 3, 2, 1, 3};
  Tensor index = tensor(places, {T, D}), x0 = tensor(p.x0, {B, D});
  Tensor shared_weight = tensor(p.shared_weight, {1, S, 2, D}), private_weight = tensor(p.private_weight, {T, 1, P, 2, D});
  Tensor shared_bias = tensor(p.shared_bias, {1, S, 2}), private_bias = tensor(p.private_bias, {T, 1, P, 2});

  const auto [rows] =
      call<Tensor>("dcrnn_fast::param_gather", tensor(p.shared_weight, {S, 2, D}), tensor(p.private_weight, {T, P, 2, D}), index);
  Doubles want;
  for (int64_t place = 0; place < T * D; ++place) {
    const double* const values = row(p.shared_weight, p.private_weight, place / D, places[place], 2 * D);
    want.insert(want.end(), values, values + 2 * D);
  }
  expect_close("param_gather", rows, want);

  // For a gradient of ones, a row's gradient is the number of places that read it.
  Doubles ones(T * D * 2 * D, 1.0), shared_count(S * 2 * D), private_count(T * P * 2 * D);
  for (int64_t place = 0; place < T * D; ++place)
    for (int64_t i = 0; i < 2 * D; ++i) {
      const int64_t at = places[place];
      ++(at < S ? shared_count[at * 2 * D + i] : private_count[(place / D * P + at - S) * 2 * D + i]);
    }
  const auto [dshared, dprivate] = call<Tensor, Tensor>("dcrnn_fast::param_gather_backward", tensor(ones, {T, D, 2, D}), index, S, P);
  expect_close("param_gather_backward: shared", dshared, shared_count);
  expect_close("param_gather_backward: private", dprivate, private_count);

  const std::string cell = "gated";
  const std::optional<Tensor> context;  // none
  const bool return_states = false, allow_tf32 = false;
  const bool saved = true;  // the activations, so that the backward does not compute them again
  const auto [out, activations] = call<Tensor, Tensor>("dcrnn_fast::cross_rnn", x0, shared_weight, shared_bias, private_weight,
                                                       private_bias, L, cell, context, return_states, allow_tf32, saved);
  expect_close("cross_rnn", out, p.states());

  const int64_t grad_mask = 1 | 2 | 4 | 8 | 16;  // the gradients of the first five inputs; there is no context
  Tensor grad = torch::stable::empty_like(out);
  torch::stable::fill_(grad, 1.0);
  const auto [dx0, dshared_weight, dshared_bias, dprivate_weight, dprivate_bias, dcontext] =
      call<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>("dcrnn_fast::cross_rnn_backward", grad, activations, grad_mask, x0,
                                                           shared_weight, shared_bias, private_weight, private_bias, L, cell, context,
                                                           return_states, allow_tf32);
  expect_close("cross_rnn_backward: x0", dx0, differences(p, p.x0));
  expect_close("cross_rnn_backward: shared_weight", dshared_weight, differences(p, p.shared_weight));
  expect_close("cross_rnn_backward: shared_bias", dshared_bias, differences(p, p.shared_bias));
  expect_close("cross_rnn_backward: private_weight", dprivate_weight, differences(p, p.private_weight));
  expect_close("cross_rnn_backward: private_bias", dprivate_bias, differences(p, p.private_bias));
}

}  // namespace

int main() {
  try {
    run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  if (failures) std::fprintf(stderr, "%d results differ\n", failures);
  return failures != 0;
}
