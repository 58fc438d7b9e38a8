// Small cells and their results, computed by scalar loops in double: the reference of main.cpp.
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
  int rank = 0;          // of the low-rank cell; 0 for the full cell
  bool shifted = false;  // x0 starts one value after a multiple of 16 bytes

  int gates() const { return gated ? 2 : 1; }
  int width() const { return columns + dim; }
  int inner() const { return rank ? rank : width(); }  // the columns of the weights
  int weight_steps() const { return untied ? steps : 1; }
  int shared_units() const { return dim / 2; }
  int shared_ranks() const { return (rank + 1) / 2; }
  int64_t states() const { return int64_t(batch) * dim; }

  std::string name() const {
    const auto size = [](const char* letter, int value) { return letter + std::to_string(value) + " "; };
    return (rank ? size("low rank ", rank) : "") + size("B", batch) + size("D", dim) + size("C", columns) + size("T", tasks) +
           size("L", steps) + (untied ? "untied " : "tied ") + (gated ? "gated" : "cross") + (every_state ? " every state" : "") +
           (shifted ? " shifted" : "");
  }
};

// Multiples of 1/128 below 1, times a power of two. Every dtype holds them exactly, so that one reference serves all.
class Random {
 public:
  int below(int count) { return static_cast<int>(engine_() % count); }
  Doubles values(int64_t count, double scale) {
    Doubles out(count);
    for (double& x : out) x = (below(255) - 127) / 128.0 * scale;
    return out;
  }

 private:
  std::mt19937 engine_{7};
};

// Rows [gates, size] of both banks in one array: the shared ones [W, shared], then the private ones [T, W, own].
struct Rows {
  Doubles values;
  int shared, own, weight_steps, gates, size;

  Rows(const Shape& s, int shared, int rows, int size)
      : shared(shared), own(rows - shared), weight_steps(s.weight_steps()), gates(s.gates()), size(size) {
    values.resize((shared + int64_t(s.tasks) * own) * weight_steps * gates * size);
  }
  int64_t shared_values() const { return int64_t(weight_steps) * shared * gates * size; }
  double* at(int task, int step, int row, int gate) {
    const int in_step = weight_steps > 1 ? step : 0;
    const int64_t place =
        row < shared ? in_step * shared + row : weight_steps * shared + (task * weight_steps + in_step) * own + row - shared;
    return values.data() + (place * gates + gate) * size;
  }
};

// The inputs of a cell, or their gradients.
struct Inputs {
  Doubles x0, context;
  Rows weight, bias, projection;

  explicit Inputs(const Shape& s)
      : x0(s.states()),
        context(int64_t(s.steps) * s.batch * s.columns),
        weight(s, s.shared_units(), s.dim, s.inner()),
        bias(s, s.shared_units(), s.dim, 1),
        projection(s, s.shared_ranks(), s.rank, s.width()) {}

  std::vector<Doubles*> arrays() { return {&x0, &context, &weight.values, &bias.values, &projection.values}; }
};

// The formulas of the kernels. In the full cell, z and y are [context, h].
struct Reference {
  const Shape s;
  Inputs in, gradients;
  Doubles grad, states, activations;  // as the kernels take and give them; all states [T, L + 1, B, D]

  explicit Reference(const Shape& shape) : s(shape), in(shape), gradients(shape) {
    Random random;
    const double scales[] = {1, 1, 0.25, 0.5, 0.125};
    for (int i = 0; i < 5; ++i) *in.arrays()[i] = random.values(in.arrays()[i]->size(), scales[i]);
    grad = random.values(s.tasks * (s.every_state ? s.steps + 1 : 1) * s.states(), 1);
    states.resize(s.tasks * (s.steps + 1) * s.states());
    activations.resize(int64_t(s.tasks) * s.steps * s.batch * s.gates() * (s.rank ? s.rank : s.dim));
    for (int task = 0; task < s.tasks; ++task)
      for (int row = 0; row < s.batch; ++row) compute_row(task, row);
  }

  Doubles result() const {
    if (s.every_state) return states;
    Doubles out;
    for (int task = 0; task < s.tasks; ++task)
      out.insert(out.end(), states.begin() + state_at(task, s.steps, 0), states.begin() + state_at(task, s.steps, s.batch));
    return out;
  }

 private:
  int64_t state_at(int task, int step, int row) const { return ((task * int64_t(s.steps + 1) + step) * s.batch + row) * s.dim; }
  double given(int task, int step, int row, int unit) const {
    if (s.every_state) return grad[state_at(task, step, row) + unit];
    return step == s.steps ? grad[(int64_t(task) * s.batch + row) * s.dim + unit] : 0.0;
  }

  void compute_row(int task, int row) {
    const int gates = s.gates(), inner = s.inner();
    std::vector<Doubles> u(s.steps), z(s.steps), a(s.steps);  // of each step [K], [G, inner], and a and g [G, D]
    const double *const x0 = in.x0.data() + int64_t(row) * s.dim, *const context = in.context.data() + int64_t(row) * s.columns;
    Doubles h(x0, x0 + s.dim);
    const auto keep = [&](int step) { std::copy(h.begin(), h.end(), states.begin() + state_at(task, step, row)); };
    keep(0);
    for (int step = 0; step < s.steps; ++step) {
      const double* const upstream = context + int64_t(step) * s.batch * s.columns;
      u[step].assign(upstream, upstream + s.columns);
      u[step].insert(u[step].end(), h.begin(), h.end());
      a[step].assign(2 * s.dim, 1.0);
      for (int gate = 0; gate < gates; ++gate) {
        for (int j = 0; j < inner; ++j)
          z[step].push_back(s.rank ? dot(in.projection.at(task, step, j, gate), u[step].data(), s.width()) : u[step][j]);
        for (int unit = 0; unit < s.dim; ++unit) {
          const double* const row_of_weight = in.weight.at(task, step, unit, gate);
          const double sum = *in.bias.at(task, step, unit, gate) + dot(row_of_weight, z[step].data() + gate * inner, inner);
          a[step][gate * s.dim + unit] = gate ? 1 / (1 + std::exp(-sum)) : sum;
        }
      }
      const Doubles& kept = s.rank ? z[step] : a[step];
      const int64_t size = gates * (s.rank ? s.rank : s.dim);
      std::copy(kept.begin(), kept.begin() + size, activations.begin() + ((task * int64_t(s.steps) + step) * s.batch + row) * size);
      for (int unit = 0; unit < s.dim; ++unit) h[unit] += a[step][s.dim + unit] * x0[unit] * a[step][unit];
      keep(step + 1);
    }

    Doubles d(s.dim);
    double* const dx0 = gradients.x0.data() + int64_t(row) * s.dim;
    for (int unit = 0; unit < s.dim; ++unit) d[unit] = given(task, s.steps, row, unit);
    for (int step = s.steps - 1; step >= 0; --step) {
      Doubles dz(gates * inner), du(s.width());
      for (int unit = 0; unit < s.dim; ++unit) {
        const double of_a = a[step][unit], g = a[step][s.dim + unit];
        const double of_gate[2] = {d[unit] * g * x0[unit], d[unit] * x0[unit] * of_a * g * (1 - g)};
        dx0[unit] += d[unit] * g * of_a;
        for (int gate = 0; gate < gates; ++gate) {
          *gradients.bias.at(task, step, unit, gate) += of_gate[gate];
          add(gradients.weight.at(task, step, unit, gate), of_gate[gate], z[step].data() + gate * inner, inner);
          add(dz.data() + gate * inner, of_gate[gate], in.weight.at(task, step, unit, gate), inner);
        }
      }
      for (int gate = 0; gate < gates; ++gate)
        for (int j = 0; j < inner; ++j) {
          const double of_z = dz[gate * inner + j];
          if (s.rank) add(gradients.projection.at(task, step, j, gate), of_z, u[step].data(), s.width());
          s.rank ? add(du.data(), of_z, in.projection.at(task, step, j, gate), s.width()) : void(du[j] += of_z);
        }
      add(gradients.context.data() + (int64_t(step) * s.batch + row) * s.columns, 1, du.data(), s.columns);
      for (int unit = 0; unit < s.dim; ++unit) d[unit] += du[s.columns + unit] + given(task, step, row, unit);
    }
    add(dx0, 1, d.data(), s.dim);
  }

  static double dot(const double* left, const double* right, int count) {
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += left[i] * right[i];
    return sum;
  }
  static void add(double* to, double times, const double* more, int count) {
    for (int i = 0; i < count; ++i) to[i] += times * more[i];
  }
};

}  // namespace
