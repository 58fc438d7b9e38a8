// Builds the problem of the low-rank cell and computes the steps of a tile; see low_rank.h.
#include "low_rank.h"

namespace dcrnn_fast::cpu {
namespace {

// Whether every task reads the same rows, all of them shared.
bool reads_alike(const BankIndex& bank) {
  for (int64_t place = 0; place < bank.tasks * bank.rows; ++place)
    if (bank.index[place] >= bank.num_shared || bank.index[place] != bank.index[place % bank.rows]) return false;
  return true;
}

template <typename T>
const T* row_of(const BankIndex& bank, const T* shared, const T* own, int64_t task, int64_t place, int64_t n) {
  const int64_t row = bank.index[task * bank.rows + place];
  return row < bank.num_shared ? shared + row * n : own + (task * bank.num_private + row - bank.num_shared) * n;
}

// Copies `count` rows of `n` values, the rows[i], to columns of `to`: value v of row i to to[v][i].
template <typename T, typename A>
void transpose(const T* const* rows, int64_t count, int64_t n, A* to, int64_t stride) {
  for (int64_t v = 0; v < n; ++v)
    for (int64_t i = 0; i < count; ++i) to[v * stride + i] = A(rows[i][v]);
}

}  // namespace

template <typename T>
LowRankProblem<T>::LowRankProblem(const Arguments& a, bool backward)
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
      bank(a.bank()),
      projection_bank(a.projection_bank()),
      common(reads_alike(projection_bank)),
      projections(common ? 1 : tasks) {
  const auto data = [](const Tensor& tensor) { return static_cast<const T*>(tensor.const_data_ptr()); };
  pack_weights(data(a.shared_weight), data(a.private_weight), data(a.shared_bias), data(a.private_bias), backward);
  pack_projections(data(*a.shared_projection), data(*a.private_projection), backward);
}

template <typename T>
void LowRankProblem<T>::pack_weights(const T* shared, const T* own, const T* shared_bias, const T* own_bias, bool backward) {
  const int64_t blocks = tasks * weight_steps, groups = plane / padding, n = gates * rank;
  weights_ = Buffer<A>(blocks * n * plane), biases_ = Buffer<A>(blocks * gates * plane);
  if (backward) weight_rows_ = Buffer<A>(blocks * gates * dim * rank_plane);
  torch::stable::parallel_for(0, blocks * groups, grain(n * padding), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / groups, task = b / weight_steps, step = b % weight_steps, first = i % groups * padding;
      const int64_t count = std::min(padding, dim - first);
      A *const to = weights_.get() + b * n * plane + first, *const bias = biases_.get() + b * gates * plane + first;
      const T* rows[padding];
      for (int64_t u = 0; u < count; ++u) rows[u] = row_of(bank, shared, own, task, step * dim + first + u, n);
      transpose(rows, count, n, to, plane);
      for (int64_t v = 0; v < n; ++v) std::fill(to + v * plane + count, to + v * plane + padding, A(0));
      for (int64_t g = 0; g < gates; ++g) {
        for (int64_t u = 0; u < padding; ++u)
          bias[g * plane + u] = u < count ? A(row_of(bank, shared_bias, own_bias, task, step * dim + first + u, gates)[g]) : A(0);
        for (int64_t u = 0; backward && u < count; ++u) {
          A* const row = weight_rows_.get() + ((b * gates + g) * dim + first + u) * rank_plane;
          for (int64_t j = 0; j < rank_plane; ++j) row[j] = j < rank ? A(rows[u][g * rank + j]) : A(0);
        }
      }
    }
  });
}

template <typename T>
void LowRankProblem<T>::pack_projections(const T* shared, const T* own, bool backward) {
  const int64_t blocks = projections * weight_steps, columns = context + dim, groups = rank_plane / padding;
  projections_ = Buffer<A>(blocks * columns * z_width());
  if (backward) projection_rows_ = Buffer<A>(blocks * rank * gates * input_plane());
  torch::stable::parallel_for(0, blocks * groups, grain(padding * gates * columns), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / groups, task = b / weight_steps, step = b % weight_steps, first = i % groups * padding;
      const int64_t count = std::min(padding, rank - first);
      for (int64_t g = 0; g < gates; ++g) {
        const T* rows[padding];
        for (int64_t j = 0; j < count; ++j)
          rows[j] = row_of(projection_bank, shared, own, task, step * rank + first + j, gates * columns) + g * columns;
        A* const to = projections_.get() + b * columns * z_width() + g * rank_plane + first;
        transpose(rows, count, columns, to, z_width());
        for (int64_t v = 0; v < columns; ++v) std::fill(to + v * z_width() + count, to + v * z_width() + padding, A(0));
        for (int64_t j = 0; backward && j < count; ++j) {
          A* const row = projection_rows_.get() + ((b * rank + first + j) * gates + g) * input_plane();
          for (int64_t v = 0; v < context_plane; ++v) row[v] = v < context ? A(rows[j][v]) : A(0);
          for (int64_t v = 0; v < plane; ++v) row[context_plane + v] = v < dim ? A(rows[j][context + v]) : A(0);
        }
      }
    }
  });
}

LowRankTiles::LowRankTiles(int64_t batch, int64_t row_bytes) : batch(batch) {
  constexpr int64_t cache_bytes = 3 << 18, fewest = 12, most = 96, parts = 4;
  const int64_t fits = std::clamp(cache_bytes / row_bytes, fewest, most);
  const int64_t rows = std::min(fits, std::max(fewest, (batch + parts - 1) / parts));
  count = std::max<int64_t>(1, (batch + rows - 1) / rows);
}

template <typename T>
LowRankTile<T>::LowRankTile(const LowRankProblem<T>& problem, int64_t rows)
    : p_(problem),
      convert_(kernels<T>()),
      kernels_(low_rank_kernels<A>()),
      x0_(rows * p_.plane),
      context_(rows * p_.context_plane),
      common_(p_.common ? (p_.context ? p_.steps : 1) * rows * p_.z_width() : 0) {}

template <typename T>
void LowRankTile<T>::begin(int64_t row, int64_t rows) {
  row_ = row, rows_ = rows, context_step_ = -1;
  for (int64_t r = 0; r < rows; ++r) {
    A* const to = x0_.get() + r * p_.plane;
    convert_.widen(p_.x0[row + r], to, p_.dim);
    std::fill(to + p_.dim, to + p_.plane, A(0));
  }
  if (!p_.common) return;
  for (int64_t step = 0; step < (p_.context ? p_.steps : 1) && !p_.interruption.came(); ++step) {
    const Rows<A> z{common_.get() + step * rows * p_.z_width(), p_.z_width()};
    const A* const projection = p_.projection(0, step);
    if (p_.context) multiply(context(step), p_.context, {projection, p_.z_width()}, z, p_.z_width(), false);
    if (step == 0) multiply(x0(), p_.dim, {projection + p_.context * p_.z_width(), p_.z_width()}, z, p_.z_width(), p_.context > 0);
  }
}

template <typename T>
Rows<const accumulator<T>> LowRankTile<T>::context(int64_t step) {
  const Rows<A> to{context_.get(), p_.context_plane};
  if (step == context_step_) return to;
  context_step_ = step;
  for (int64_t r = 0; r < rows_; ++r) {
    convert_.widen(p_.context_states + (step * p_.batch + row_ + r) * p_.context, to[r], p_.context);
    std::fill(to[r] + p_.context, to[r] + p_.context_plane, A(0));
  }
  return to;
}

template <typename T>
Rows<const accumulator<T>> LowRankTile<T>::project(int64_t task, int64_t step, Rows<const A> state, Rows<A> to) {
  const int64_t width = p_.z_width();
  const A* const projection = p_.projection(task, step);
  const Rows<const A> known{common_.get() + step * rows_ * width, width};
  if (p_.common && step == 0) return known;
  const bool add = p_.context > 0;
  if (add && p_.common)
    for (int64_t r = 0; r < rows_; ++r) std::copy_n(known[r], width, to[r]);
  else if (add)
    multiply(context(step), p_.context, {projection, width}, to, width, false);
  multiply(state, p_.dim, {projection + p_.context * width, width}, to, width, add);
  return to;
}

template <typename T>
void LowRankTile<T>::advance(int64_t task, int64_t step, Rows<const A> z, Rows<const A> state, Rows<A> next, Rows<A> activations) const {
  const LowRankStep<A> pass{rows_, p_.plane, p_.rank, p_.rank_plane, z, p_.weight(task, step), p_.bias(task, step),
                            x0(),  state,    next,    activations};
  (p_.gates == 2 ? kernels_.step_gated : kernels_.step_cross)(pass);
}

template struct LowRankProblem<float>;
template struct LowRankProblem<double>;
template struct LowRankProblem<BFloat16>;
template struct LowRankProblem<Half>;
template class LowRankTile<float>;
template class LowRankTile<double>;
template class LowRankTile<BFloat16>;
template class LowRankTile<Half>;

}  // namespace dcrnn_fast::cpu
