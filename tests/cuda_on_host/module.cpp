// The kernels on the CPU for the tests in Python: addresses of memory come as integers.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "cross_rnn.h"
#include "gather.h"

namespace py = pybind11;
using namespace dcrnn_fast::cuda;

namespace {

template <typename T>
T* address(const py::dict& of, const char* name) {
  return reinterpret_cast<T*>(of[name].cast<uintptr_t>());
}

int number(const py::dict& of, const char* name) { return of[name].cast<int>(); }

constexpr Device device{132, 232448};

Banks banks_of(const py::dict& of) {
  return {address<const int32_t>(of, "index"), number(of, "tasks"), number(of, "rows"), number(of, "num_shared"), number(of, "num_private")};
}

template <typename T>
Problem<T> problem_of(const py::dict& of) {
  Problem<T> p{};
  p.x0 = address<const T>(of, "x0"), p.context = address<const T>(of, "context");
  p.shared_weight = address<const T>(of, "shared_weight"), p.shared_bias = address<const T>(of, "shared_bias");
  p.private_weight = address<const T>(of, "private_weight"), p.private_bias = address<const T>(of, "private_bias");
  p.index = address<const int32_t>(of, "index");
  p.batch = number(of, "batch"), p.tasks = number(of, "tasks"), p.dim = number(of, "dim"), p.columns = number(of, "columns");
  p.gates = number(of, "vectors"), p.steps = number(of, "steps"), p.rows = number(of, "rows");
  p.num_shared = number(of, "num_shared"), p.num_private = number(of, "num_private");
  p.tf32 = of["tf32"].cast<bool>();
  p.device = {number(of, "multiprocessors"), device.shared_memory};
  const std::string schedule = of["schedule"].cast<std::string>(), tiles = of["tiles"].cast<std::string>();
  p.schedule = schedule == "step" ? Schedule::step : schedule == "all_steps" ? Schedule::all_steps : Schedule::automatic;
  p.tiles = tiles == "small" ? Tiles::small : tiles == "large" ? Tiles::large : Tiles::automatic;
  return p;
}

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error("launch failed: " + std::to_string(error));
}

template <typename Body>
auto with_type(const py::dict& of, const Body& body) {
  const std::string dtype = of["dtype"].cast<std::string>();
  if (dtype == "float32") return body(float{});
  if (dtype == "float64") return body(double{});
  if (dtype == "bfloat16") return body(BFloat16{});
  if (dtype == "float16") return body(Half{});
  throw std::invalid_argument("dtype: " + dtype);
}

}  // namespace

PYBIND11_MODULE(dcrnn_fast_cuda_on_host, m) {
  m.def("forward_scratch", [](const py::dict& of) {
    return with_type(of, [&](auto zero) { return forward_scratch(problem_of<decltype(zero)>(of), of["every_state"].cast<bool>()); });
  });
  m.def("backward_row_tiles", [](const py::dict& of) {
    return with_type(of, [&](auto zero) { return backward_row_tiles(problem_of<decltype(zero)>(of)); });
  });
  m.def("step_groups", [](const py::dict& of) { return step_groups(problem_of<float>(of)); });
  m.def("forward", [](const py::dict& of) {
    with_type(of, [&](auto zero) {
      using T = decltype(zero);
      check(forward(problem_of<T>(of), address<T>(of, "out"), of["every_state"].cast<bool>(), address<T>(of, "gates"), address<T>(of, "scratch"),
                    nullptr));
    });
  });
  m.def("backward", [](const py::dict& of) {
    with_type(of, [&](auto zero) {
      using T = decltype(zero);
      using A = accumulator<T>;
      const Workspace<T> workspace{address<T>(of, "states"), address<T>(of, "gradients"), address<A>(of, "d"), address<A>(of, "dx0_sums"),
                                   address<A>(of, "sums")};
      check(backward(problem_of<T>(of), address<const T>(of, "grad"), of["every_state"].cast<bool>(), address<const T>(of, "gates"), workspace,
                     address<T>(of, "dx0"), address<T>(of, "dcontext"), nullptr));
    });
  });
  m.def("sum_banks", [](const py::dict& of) {
    with_type(of, [&](auto zero) {
      using T = decltype(zero);
      const Problem<T> p = problem_of<T>(of);
      check(sum_weights(p, address<const T>(of, "products"), address<T>(of, "dshared_weight"), address<T>(of, "dprivate_weight"), nullptr));
      check(sum_biases(p, address<const accumulator<T>>(of, "sums"), address<T>(of, "dshared_bias"), address<T>(of, "dprivate_bias"), nullptr));
    });
  });
  m.def("gather", [](const py::dict& of) {
    check(gather(banks_of(of), address<void>(of, "shared"), address<void>(of, "private"), address<void>(of, "out"), number(of, "row_bytes"),
                 number(of, "value_bytes"), device, nullptr));
  });
  m.def("sum_rows", [](const py::dict& of) {
    with_type(of, [&](auto zero) {
      using T = decltype(zero);
      check(sum_rows(banks_of(of), address<const T>(of, "gradient"), address<T>(of, "dshared"), address<T>(of, "dprivate"), number(of, "size"), nullptr));
    });
  });
}
