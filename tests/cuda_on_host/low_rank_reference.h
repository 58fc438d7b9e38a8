// Small problems of the low-rank cell and their results, computed by scalar loops in double.
#pragma once

#include "reference.h"

namespace {

struct LowRankShape : Shape {
  int rank;

  int places() const { return untied ? steps * rank : rank; }
  int num_shared_projections() const { return rank / 2 + 1; }
  int num_private_projections() const { return rank - rank / 2; }
  int bank_projections() const { return num_shared_projections() + tasks * num_private_projections(); }
  int64_t ranks() const { return int64_t(batch) * gates() * rank; }
  std::string name() const { return "low rank " + std::to_string(rank) + " " + Shape::name(); }
};

// As Inputs, but the weights' rows have r columns a vector.
struct LowRankInputs {
  explicit LowRankInputs(const LowRankShape& shape) : s(shape) {
    Random random;
    x0 = random.values(s.states(), 1);
    context = random.values(int64_t(s.steps) * s.batch * s.columns, 1);
    weight = random.values(int64_t(s.bank_rows()) * s.gates() * s.rank, 0.25);
    bias = random.values(int64_t(s.bank_rows()) * s.gates(), 0.5);
    projection = random.values(int64_t(s.bank_projections()) * s.gates() * s.width(), 0.125);
    grad = random.values(s.tasks * (s.every_state ? s.steps + 1 : 1) * s.states(), 1);
    index = random.indices(s.tasks * s.rows(), s.num_shared() + s.num_private());
    projection_index = random.indices(s.tasks * s.places(), s.num_shared_projections() + s.num_private_projections());
  }

  int bank_row(int task, int step, int unit) const {
    const int row = index[task * s.rows() + (s.untied ? step * s.dim : 0) + unit];
    return row < s.num_shared() ? row : row + task * s.num_private();
  }
  int bank_projection(int task, int step, int column) const {
    const int row = projection_index[task * s.places() + (s.untied ? step * s.rank : 0) + column];
    return row < s.num_shared_projections() ? row : row + task * s.num_private_projections();
  }

  LowRankShape s;
  Doubles x0, context, weight, bias, projection, grad;
  std::vector<int32_t> index, projection_index;
};

// The formulas of low_rank_forward_kernels.h and low_rank_backward_kernels.h.
struct LowRankReference : ReferenceOf<LowRankInputs> {
  explicit LowRankReference(const LowRankInputs& inputs) : ReferenceOf(inputs) {
    activations.resize(s.tasks * s.steps * s.ranks()), dprojection.resize(in.projection.size());
    for (int task = 0; task < s.tasks; ++task)
      for (int row = 0; row < s.batch; ++row) {
        for (int unit = 0; unit < s.dim; ++unit) states[state_at(task, 0, row) + unit] = in.x0[row * s.dim + unit];
        for (int step = 0; step < s.steps; ++step) forward(task, step, row);
        Doubles d(s.dim);
        for (int step = s.steps; step > 0; --step) {
          for (int unit = 0; unit < s.dim; ++unit) d[unit] += given(task, step, row, unit);
          backward(task, step - 1, row, d);
        }
        for (int unit = 0; unit < s.dim; ++unit) dx0[row * s.dim + unit] += d[unit] + given(task, 0, row, unit);
      }
  }

  Doubles activations;  // z|y [T, L, B, G, r]
  Doubles dprojection;

 private:
  double* ranks(int task, int step, int row, int gate) {
    return activations.data() + (((task * int64_t(s.steps) + step) * s.batch + row) * s.gates() + gate) * s.rank;
  }
  int64_t weight_at(int task, int step, int unit, int gate) const {
    return (int64_t(in.bank_row(task, step, unit)) * s.gates() + gate) * s.rank;
  }
  int64_t projection_at(int task, int step, int column, int gate) const {
    return (int64_t(in.bank_projection(task, step, column)) * s.gates() + gate) * s.width();
  }

  // a, or the gate's argument q, of a unit.
  double sum_of(int task, int step, int row, int unit, int gate) {
    double sum = in.bias[in.bank_row(task, step, unit) * s.gates() + gate];
    for (int j = 0; j < s.rank; ++j) sum += in.weight[weight_at(task, step, unit, gate) + j] * ranks(task, step, row, gate)[j];
    return sum;
  }

  void forward(int task, int step, int row) {
    for (int gate = 0; gate < s.gates(); ++gate)
      for (int j = 0; j < s.rank; ++j)
        for (int k = 0; k < s.width(); ++k)
          ranks(task, step, row, gate)[j] += in.projection[projection_at(task, step, j, gate) + k] * operand(task, step, row, k);
    for (int unit = 0; unit < s.dim; ++unit) {
      const double g = s.gated ? 1 / (1 + std::exp(-sum_of(task, step, row, unit, 1))) : 1;
      states[state_at(task, step + 1, row) + unit] =
          states[state_at(task, step, row) + unit] + g * in.x0[row * s.dim + unit] * sum_of(task, step, row, unit, 0);
    }
  }

  // Takes d from after the step to before it.
  void backward(int task, int step, int row, Doubles& d) {
    Doubles drank(s.gates() * s.rank);
    for (int unit = 0; unit < s.dim; ++unit) {
      const double a = sum_of(task, step, row, unit, 0), x0 = in.x0[row * s.dim + unit];
      const double g = s.gated ? 1 / (1 + std::exp(-sum_of(task, step, row, unit, 1))) : 1;
      const double of_gate[2] = {d[unit] * g * x0, d[unit] * x0 * a * g * (1 - g)};
      dx0[row * s.dim + unit] += d[unit] * g * a;
      for (int gate = 0; gate < s.gates(); ++gate) {
        dbias[in.bank_row(task, step, unit) * s.gates() + gate] += of_gate[gate];
        for (int j = 0; j < s.rank; ++j) {
          dweight[weight_at(task, step, unit, gate) + j] += of_gate[gate] * ranks(task, step, row, gate)[j];
          drank[gate * s.rank + j] += of_gate[gate] * in.weight[weight_at(task, step, unit, gate) + j];
        }
      }
    }
    for (int gate = 0; gate < s.gates(); ++gate)
      for (int j = 0; j < s.rank; ++j)
        for (int k = 0; k < s.width(); ++k) {
          const int64_t at = projection_at(task, step, j, gate) + k;
          const double du = drank[gate * s.rank + j] * in.projection[at];
          dprojection[at] += drank[gate * s.rank + j] * operand(task, step, row, k);
          (k < s.columns ? dcontext[context_at(step, row) + k] : d[k - s.columns]) += du;
        }
  }
};

}  // namespace
