// Packs the weights of the low-rank cell, and computes the steps of a tile; see low_rank.h.
#include "low_rank.h"

namespace dcrnn_fast::cpu {
namespace {

// Writes `count` rows of `n` values, the rows[i], as columns of a right operand of `width` columns, and zeros up to `padding` columns and
// in the rest of a last group of terms.
template <typename T, typename O>
void pack_columns(const T* const* rows, int64_t count, int64_t n, O* to, int64_t width) {
  if constexpr (std::is_same_v<T, accumulator<O>>) {
    product_kernels<T>().transpose(rows, count, n, to, width);
    for (int64_t v = 0; count < padding && v < n; ++v) std::fill(to + v * width + count, to + v * width + padding, O(0));
  } else {
    for (int64_t v = 0; v < grouped<O>(n); ++v)
      for (int64_t i = 0; i < padding; ++i) to[place<O>(v, i, width)] = i < count && v < n ? O(rows[i][v]) : O(0.f);
  }
}

// Writes a row of `n` values as term `k` of a right operand of `width` columns, and zeros up to `plane` columns.
template <typename T, typename O>
void pack_row(const T* row, int64_t n, int64_t plane, int64_t k, O* to, int64_t width) {
  for (int64_t v = 0; v < plane; ++v) to[place<O>(k, v, width)] = v < n ? O(row[v]) : O(0.f);
}

// A row of zeros in place of a last term that fills up a group.
template <typename O>
void end_terms(int64_t terms, int64_t plane, O* to, int64_t width) {
  for (int64_t k = terms; k < grouped<O>(terms); ++k) pack_row<O, O>(nullptr, 0, plane, k, to, width);
}

}  // namespace

template <typename T, typename O>
LowRankRecurrence<T, O>::LowRankRecurrence(const LowRankArguments& a, bool backward)
    : tasks(a.tasks()),
      batch(a.batch()),
      dim(a.dim()),
      context(a.context_columns()),
      gates(a.gates()),
      steps(a.steps),
      weight_steps(a.weight_steps()),
      rank(a.rank()),
      plane(padded(dim)),
      context_plane(padded(context)),
      rank_plane(padded(rank)),
      x0{static_cast<const T*>(a.x0.const_data_ptr()), a.x0.stride(0)},
      context_states(a.context ? static_cast<const T*>(a.context->const_data_ptr()) : nullptr),
      banks(a.banks()),
      projection_banks(a.projection_banks()),
      common(projection_banks.own == 0),
      projections(common ? 1 : tasks) {
  const auto data = [](const Tensor& tensor) { return static_cast<const T*>(tensor.const_data_ptr()); };
  pack_weights(data(a.shared_weight), data(a.private_weight), data(a.shared_bias), data(a.private_bias), backward);
  pack_projections(data(a.shared_projection), data(a.private_projection), backward);
}

template <typename T, typename O>
LowRankRecurrence<T, O>::LowRankRecurrence(int64_t tasks, int64_t dim, int64_t shared, int64_t gates, int64_t steps, int64_t weight_steps,
                                           int64_t rank, bool common)
    : tasks(tasks),
      batch(0),
      dim(dim),
      context(0),
      gates(gates),
      steps(steps),
      weight_steps(weight_steps),
      rank(rank),
      plane(padded(dim)),
      context_plane(0),
      rank_plane(padded(rank)),
      x0{},
      context_states(nullptr),
      banks{tasks, weight_steps, shared, dim - shared},
      projection_banks{},
      common(common),
      projections(common ? 1 : tasks) {}

template <typename T, typename O>
void LowRankRecurrence<T, O>::pack_weights(const T* shared, const T* own, const T* shared_bias, const T* own_bias, bool backward) {
  const int64_t blocks = tasks * weight_steps, parts = plane / padding, n = gates * rank, terms = grouped<O>(rank);
  weights_ = Buffer<O>(weight_values()), biases_ = Buffer<A>(bias_values());
  packed_weights = weights_.get(), packed_biases = biases_.get();
  if (backward) weight_rows_ = Buffer<O>(blocks * gates * grouped<O>(dim) * rank_plane);
  parallel_for(0, blocks * parts, grain(n * padding), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t task = i / parts / weight_steps, step = i / parts % weight_steps, first = i % parts * padding;
      const int64_t count = std::min(padding, dim - first);
      const T *rows[padding], *biases[padding];
      for (int64_t u = 0; u < count; ++u) {
        rows[u] = row_of(banks, shared, own, task, step, first + u, n);
        biases[u] = row_of(banks, shared_bias, own_bias, task, step, first + u, gates);
      }
      for (int64_t g = 0; g < gates; ++g, std::for_each_n(rows, count, [&](const T*& row) { row += rank; })) {
        pack_columns(rows, count, rank, weights_.get() + (i / parts * gates + g) * terms * plane + first * group<O>, plane);
        A* const bias = biases_.get() + (i / parts * gates + g) * plane + first;
        for (int64_t u = 0; u < padding; ++u) bias[u] = u < count ? A(biases[u][g]) : A(0);
        if (!backward) continue;
        O* const to = weight_rows_.get() + (i / parts * gates + g) * grouped<O>(dim) * rank_plane;
        for (int64_t u = 0; u < count; ++u) pack_row(rows[u], rank, rank_plane, first + u, to, rank_plane);
        if (first + count == dim) end_terms(dim, rank_plane, to, rank_plane);
      }
    }
  });
}

template <typename T, typename O>
void LowRankRecurrence<T, O>::pack_projections(const T* shared, const T* own, bool backward) {
  const int64_t blocks = projections * weight_steps, columns = context + dim, parts = rank_plane / padding, width = input_plane();
  const int64_t terms = grouped<O>(context) + grouped<O>(dim);
  projections_ = Buffer<O>(projection_values());
  packed_projections = projections_.get();
  if (backward) projection_rows_ = Buffer<O>(blocks * gates * grouped<O>(rank) * width);
  parallel_for(0, blocks * parts * gates, grain(padding * columns), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / gates / parts, g = i % gates, task = b / weight_steps, step = b % weight_steps;
      const int64_t first = i / gates % parts * padding, count = std::min(padding, rank - first);
      const T *rows[padding], *states[padding];
      for (int64_t j = 0; j < count; ++j) {
        rows[j] = row_of(projection_banks, shared, own, task, step, first + j, gates * columns) + g * columns;
        states[j] = rows[j] + context;
      }
      O* const to = projections_.get() + b * terms * z_width() + (g * rank_plane + first) * group<O>;
      pack_columns(rows, count, context, to, z_width());
      pack_columns(states, count, dim, to + grouped<O>(context) * z_width(), z_width());
      if (!backward) continue;
      O* const row = projection_rows_.get() + (b * gates + g) * grouped<O>(rank) * width;
      for (int64_t j = 0; j < count; ++j) {
        pack_row(rows[j], context, context_plane, first + j, row, width);
        pack_row(states[j], dim, plane, first + j, row + context_plane * group<O>, width);
      }
      if (first + count == rank) end_terms(rank, width, row, width);
    }
  });
}

LowRankTiles::LowRankTiles(int64_t batch, int64_t row_bytes, int64_t whole) : batch(batch) {
  constexpr int64_t cache_bytes = 3 << 18, fewest = 12, most = 96, parts = 16;
  const int64_t fits = std::clamp(cache_bytes / std::max<int64_t>(row_bytes, 1), fewest, most);
  const int64_t rows = std::min(fits, std::max(fewest, (batch + parts - 1) / parts));
  const int64_t even = std::max(rows / whole, int64_t{1}) * whole;
  count = std::max<int64_t>(1, (batch + even - 1) / even);
}

template <typename T, typename O>
LowRankTile<T, O>::LowRankTile(const LowRankRecurrence<T, O>& recurrence, int64_t rows)
    : p_(recurrence),
      convert_(kernels<T>()),
      kernels_(low_rank_kernels<O>()),
      x0_(rows, p_.plane),
      context_(rows, p_.context_plane),
      common_(p_.common ? (p_.context ? p_.steps : 1) * rows * p_.z_width() : 0) {}

template <typename T, typename O>
void LowRankTile<T, O>::begin(int64_t row, int64_t rows) {
  row_ = row;
  widen_rows(convert_, rows, p_.x0.at(row), p_.dim, x0_.wide(), p_.plane);
  start(rows);
}

template <typename T, typename O>
void LowRankTile<T, O>::start(int64_t rows) {
  rows_ = rows, context_step_ = -1;
  narrow(x0_.wide(), x0_.low(), 1, p_.dim, p_.plane);
  if (!p_.common) return;
  for (int64_t step = 0; step < (p_.context ? p_.steps : 1); ++step) {
    const Rows<A> z{common_.get() + step * rows * p_.z_width(), p_.z_width()};
    if (p_.context) multiply(context(step).low, p_.context, p_.context_projection(0, step), p_.z_width(), z, p_.z_width(), false);
    if (step == 0) multiply(x0().low, p_.dim, p_.projection(0, step), p_.z_width(), z, p_.z_width(), p_.context > 0);
  }
}

template <typename T, typename O>
BothRows<O> LowRankTile<T, O>::context(int64_t step) {
  if (step != context_step_) {
    const T* const from = p_.context_states + (step * p_.batch + row_) * p_.context;
    widen_rows(convert_, rows_, {from, p_.context}, p_.context, context_.wide(), p_.context_plane);
    narrow(context_.wide(), context_.low(), 1, p_.context, p_.context_plane);
    context_step_ = step;
  }
  return context_.rows();
}

template <typename T, typename O>
void LowRankTile<T, O>::project(int64_t task, int64_t step, Rows<const O> state, Rows<A> to) {
  const int64_t width = p_.z_width();
  const bool known = p_.common && (p_.context || step == 0);
  if (known)
    for (int64_t r = 0; r < rows_; ++r) std::copy_n(common_.get() + (step * rows_ + r) * width, width, to[r]);
  else if (p_.context)
    multiply(context(step).low, p_.context, p_.context_projection(task, step), width, to, width, false);
  if (!p_.common || step > 0) multiply(state, p_.dim, p_.projection(task, step), width, to, width, p_.context > 0);
}

template <typename T, typename O>
void LowRankTile<T, O>::advance(int64_t task, int64_t step, Rows<const O> z, Rows<const A> state, Rows<A> next, Rows<O> low,
                                Rows<A> activations) const {
  const int64_t first = task > 0 && step == 0 ? p_.alike() : 0;
  const LowRankStep<O> pass{
      rows_, first, p_.dim,      p_.plane, grouped<O>(p_.rank), p_.rank_plane, z, p_.weight(task, step), p_.bias(task, step), x0().wide,
      state, next,  activations, low};
  (p_.gates == 2 ? kernels_.step_gated : kernels_.step_cross)(pass);
}

template <typename T, typename O>
void LowRankTile<T, O>::narrow(Rows<const A> from, Rows<O> to, int64_t blocks, int64_t count, int64_t plane) const {
  if constexpr (is_low<O>) {
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t block = 0; block < blocks; ++block) {
        convert_.narrow(from[r] + block * plane, to[r] + block * plane, count);
        std::fill_n(to[r] + block * plane + count, grouped<O>(count) - count, O(0.f));
      }
  }
}

#define DCRNN_INSTANTIATE(T, O)            \
  template struct LowRankRecurrence<T, O>; \
  template class LowRankTile<T, O>
DCRNN_INSTANTIATE(float, float);
DCRNN_INSTANTIATE(double, double);
DCRNN_INSTANTIATE(BFloat16, float);
DCRNN_INSTANTIATE(Half, float);
#if defined(__x86_64__)
DCRNN_INSTANTIATE(BFloat16, BFloat16);
#endif
#undef DCRNN_INSTANTIATE

}  // namespace dcrnn_fast::cpu
