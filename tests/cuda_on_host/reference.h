// Small problems and their results, computed by scalar loops in double: the reference of main.cpp.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace {

using Doubles = std::vector<double>;

// Each level runs its own cases and those of the levels before it.
enum class Level { tiny, brief, all };

struct Shape {
  Level level;
  int batch, dim, columns, tasks, steps;
  bool untied, gated, every_state;
  bool keep = true;      // keep the activations, and run the backward
  bool shifted = false;  // x0 starts one value after a multiple of 16 bytes

  int gates() const { return gated ? 2 : 1; }
  int width() const { return columns + dim; }
  int rows() const { return untied ? steps * dim : dim; }
  int num_shared() const { return dim / 2 + 1; }
  int num_private() const { return dim - dim / 2; }
  int bank_rows() const { return num_shared() + tasks * num_private(); }
  int64_t states() const { return int64_t(batch) * dim; }

  std::string name() const {
    const auto size = [](const char* letter, int value) { return letter + std::to_string(value) + " "; };
    return size("B", batch) + size("D", dim) + size("C", columns) + size("T", tasks) + size("L", steps) + (untied ? "untied " : "tied ") +
           (gated ? "gated" : "cross") + (every_state ? " every state" : "") + (keep ? "" : " no activations") +
           (shifted ? " shifted" : "");
  }
};

// Multiples of 1/128 below 1, times a power of two. Every dtype holds them exactly, so that one reference serves all.
class Random {
 public:
  double value(double scale) { return (static_cast<int>(engine_() % 255) - 127) / 128.0 * scale; }
  Doubles values(int64_t count, double scale) {
    Doubles out(count);
    for (double& x : out) x = value(scale);
    return out;
  }
  std::vector<int32_t> indices(int64_t count, int below) {
    std::vector<int32_t> out(count);
    for (int32_t& x : out) x = static_cast<int32_t>(engine_() % below);
    return out;
  }

 private:
  std::mt19937 engine_{7};
};

// Each pair of banks is one array: the shared rows first, then each task's private rows.
struct Inputs {
  explicit Inputs(const Shape& shape) : s(shape) {
    Random random;
    x0 = random.values(s.states(), 1);
    context = random.values(int64_t(s.steps) * s.batch * s.columns, 1);
    weight = random.values(int64_t(s.bank_rows()) * s.gates() * s.width(), 0.25);
    bias = random.values(int64_t(s.bank_rows()) * s.gates(), 0.5);
    grad = random.values(s.tasks * (s.every_state ? s.steps + 1 : 1) * s.states(), 1);
    index = random.indices(s.tasks * s.rows(), s.num_shared() + s.num_private());
  }

  int bank_row(int task, int step, int unit) const {
    const int row = index[task * s.rows() + (s.untied ? step * s.dim : 0) + unit];
    return row < s.num_shared() ? row : row + task * s.num_private();
  }

  Shape s;
  Doubles x0, context, weight, bias, grad;
  std::vector<int32_t> index;
};

// What the references of both cells have; the inputs are Inputs or LowRankInputs.
template <typename In>
struct ReferenceOf {
  explicit ReferenceOf(const In& inputs) : in(inputs), s(inputs.s), states(s.tasks * (s.steps + 1) * s.states()) {
    dx0.resize(in.x0.size()), dcontext.resize(in.context.size()), dweight.resize(in.weight.size()), dbias.resize(in.bias.size());
  }

  // The loss, of which the backward computes the gradients: the sum of the states times `grad`.
  double loss() const {
    double sum = 0;
    const Doubles out = result();
    for (size_t i = 0; i < out.size(); ++i) sum += out[i] * in.grad[i];
    return sum;
  }

  Doubles result() const {
    if (s.every_state) return states;
    Doubles out;
    for (int task = 0; task < s.tasks; ++task) {
      const auto last = states.begin() + state_at(task, s.steps, 0);
      out.insert(out.end(), last, last + s.states());
    }
    return out;
  }

  const In& in;
  const decltype(In::s)& s;
  Doubles states;  // [T, L + 1, B, D]
  Doubles dx0, dcontext, dweight, dbias;

 protected:
  int64_t state_at(int task, int step, int row) const { return ((task * int64_t(s.steps + 1) + step) * s.batch + row) * s.dim; }
  int64_t context_at(int step, int row) const { return (int64_t(step) * s.batch + row) * s.columns; }
  double operand(int task, int step, int row, int k) const {
    return k < s.columns ? in.context[context_at(step, row) + k] : states[state_at(task, step, row) + k - s.columns];
  }
  double given(int task, int step, int row, int unit) const {
    if (s.every_state) return in.grad[state_at(task, step, row) + unit];
    return step == s.steps ? in.grad[(int64_t(task) * s.batch + row) * s.dim + unit] : 0.0;
  }
};

// The formulas of cross_rnn_forward_kernels.h and cross_rnn_backward_kernels.h, as scalar loops.
struct Reference : ReferenceOf<Inputs> {
  explicit Reference(const Inputs& inputs) : ReferenceOf(inputs) {
    forward();
    backward();
  }

  // In the kernels' layout, [T, L, B, G, D].
  Doubles activations() const {
    Doubles out;
    for (int64_t row = 0; row < int64_t(s.tasks) * s.steps * s.batch; ++row)
      for (const Doubles* part : {&a, &g})
        if (part == &a || s.gated) out.insert(out.end(), part->begin() + row * s.dim, part->begin() + (row + 1) * s.dim);
    return out;
  }

  Doubles a, g;  // [T, L, B, D] each

 private:
  int64_t gate_at(int task, int step, int row) const { return ((task * int64_t(s.steps) + step) * s.batch + row) * s.dim; }
  const double* vector_of(int task, int step, int unit, int gate) const {
    return in.weight.data() + (int64_t(in.bank_row(task, step, unit)) * s.gates() + gate) * s.width();
  }

  void forward() {
    a.resize(s.tasks * s.steps * s.states()), g.assign(a.size(), 1.0);
    for (int task = 0; task < s.tasks; ++task) {
      std::copy(in.x0.begin(), in.x0.end(), states.begin() + state_at(task, 0, 0));
      for (int step = 0; step < s.steps; ++step)
        for (int row = 0; row < s.batch; ++row)
          for (int unit = 0; unit < s.dim; ++unit) {
            double sums[2];
            for (int gate = 0; gate < s.gates(); ++gate) {
              sums[gate] = in.bias[in.bank_row(task, step, unit) * s.gates() + gate];
              for (int k = 0; k < s.width(); ++k) sums[gate] += vector_of(task, step, unit, gate)[k] * operand(task, step, row, k);
            }
            const int64_t at = gate_at(task, step, row) + unit, from = row * s.dim + unit;
            a[at] = sums[0];
            if (s.gated) g[at] = 1 / (1 + std::exp(-sums[1]));
            states[state_at(task, step + 1, row) + unit] = states[state_at(task, step, row) + unit] + g[at] * in.x0[from] * a[at];
          }
    }
  }

  void backward() {
    for (int task = 0; task < s.tasks; ++task)
      for (int row = 0; row < s.batch; ++row) {
        Doubles d(s.dim);
        for (int unit = 0; unit < s.dim; ++unit) d[unit] = given(task, s.steps, row, unit);
        for (int step = s.steps - 1; step >= 0; --step) {
          Doubles du(s.width());
          for (int unit = 0; unit < s.dim; ++unit) {
            const int64_t at = gate_at(task, step, row) + unit, from = row * s.dim + unit;
            const double x0 = in.x0[from], of_gate[2] = {d[unit] * g[at] * x0, d[unit] * x0 * a[at] * g[at] * (1 - g[at])};
            dx0[from] += d[unit] * g[at] * a[at];
            for (int gate = 0; gate < s.gates(); ++gate) {
              const int64_t vector = in.bank_row(task, step, unit) * s.gates() + gate;
              dbias[vector] += of_gate[gate];
              for (int k = 0; k < s.width(); ++k) {
                dweight[vector * s.width() + k] += of_gate[gate] * operand(task, step, row, k);
                du[k] += of_gate[gate] * vector_of(task, step, unit, gate)[k];
              }
            }
          }
          for (int k = 0; k < s.columns; ++k) dcontext[context_at(step, row) + k] += du[k];
          for (int unit = 0; unit < s.dim; ++unit) d[unit] += du[s.columns + unit] + given(task, step, row, unit);
        }
        for (int unit = 0; unit < s.dim; ++unit) dx0[row * s.dim + unit] += d[unit];
      }
  }
};

}  // namespace
