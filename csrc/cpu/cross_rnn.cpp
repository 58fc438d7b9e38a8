// Builds the problem of cross_rnn; see cross_rnn.h.
#include "cross_rnn.h"

namespace dcrnn_fast::cpu {

namespace {

// A copy of the tensor with zeros appended in dimension `dim`, up to `size`.
Tensor padded(const Tensor& tensor, int64_t dim, int64_t size) {
  std::vector<int64_t> shape(tensor.sizes().begin(), tensor.sizes().end());
  shape[dim] = size;
  Tensor out = torch::stable::new_zeros(tensor, shape), part = torch::stable::narrow(out, dim, 0, tensor.size(dim));
  torch::stable::copy_(part, tensor);
  return out;
}

}  // namespace

bool computes_in_float(const Arguments& arguments, Passes passes) {
  const ScalarType dtype = arguments.x0.scalar_type();
  if (dtype != ScalarType::BFloat16 && dtype != ScalarType::Half) return false;
  const int64_t batch = arguments.batch(), weights = arguments.shared_weight.numel() + arguments.private_weight.numel();
  const int64_t products = arguments.tasks() * arguments.steps * arguments.dim() * arguments.gates() * arguments.columns();  // of a row
  if (weights <= 1 << 18 && products < (1 << 24) / std::max<int64_t>(1, batch)) return true;
  if (batch <= few_rows) return passes == Passes::backward;
#if defined(__x86_64__)
  return !(dtype == ScalarType::BFloat16 ? multiplies_bfloat16() : multiplies_float16());
#else
  return false;
#endif
}

Tensor converted(const Tensor& tensor, ScalarType dtype) {
  if (tensor.scalar_type() == dtype) return tensor;
  Tensor out = allocated(tensor, {tensor.sizes().begin(), tensor.sizes().end()}, "a copy of another dtype", dtype);
  return torch::stable::copy_(out, tensor);
}

void widen(Arguments& arguments) {
  for (Tensor* const tensor :
       {&arguments.x0, &arguments.shared_weight, &arguments.shared_bias, &arguments.private_weight, &arguments.private_bias})
    *tensor = converted(*tensor, ScalarType::Float);
  if (arguments.context) arguments.context = converted(*arguments.context, ScalarType::Float);
}

void pad(Arguments& arguments, int64_t rows) {
  arguments.x0 = padded(arguments.x0, 0, rows);
  if (arguments.context) arguments.context = padded(*arguments.context, 1, rows);
}

Tiles::Tiles(int64_t batch, int64_t fewest, int64_t enough, int64_t row_bytes, int64_t parts) : batch(batch) {
  constexpr int64_t cache_bytes = 1 << 20;
  const int64_t fits = cache_bytes / row_bytes;
  const int64_t for_threads = std::max(fewest, (batch + parts - 1) / parts);
  const int64_t rows = std::min(std::max(enough, std::min<int64_t>(512, fits)), for_threads);
  count = std::max<int64_t>(1, (batch + rows / 2) / rows);
}

namespace {

// The longest run of units that read the same shared row in every task at the first step.
Units common_units(const BankIndex& bank, int64_t dim) {
  Units longest, run;
  if (bank.tasks < 2) return longest;
  for (int64_t unit = 0; unit < dim; ++unit) {
    bool same = bank.index[unit] < bank.num_shared;
    for (int64_t task = 1; same && task < bank.tasks; ++task) same = bank.index[task * bank.rows + unit] == bank.index[unit];
    if (!same)
      run = {unit + 1, unit + 1};
    else if ((run.end = unit + 1) - run.begin > longest.count())
      longest = run;
  }
  // a product over a few columns costs more than it saves
  return longest.count() * 8 >= dim ? longest : Units{};
}

// Whether `count` places from two on, of different tasks, read the same shared rows.
bool reads_alike(const BankIndex& bank, int64_t one, int64_t other, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    if (bank.index[one + i] != bank.index[other + i] || bank.index[one + i] >= bank.num_shared) return false;
  return true;
}

// The task's weight rows if they lie one after another in one bank, else null.
template <typename T>
const T* rows_in_place(const BankIndex& bank, int64_t task, const T* shared, const T* own, int64_t n) {
  const int32_t* const index = bank.index + task * bank.rows;
  const int64_t first = index[0];
  for (int64_t row = 1; row < bank.rows; ++row)
    if (index[row] != first + row) return nullptr;
  const bool in_one_bank = first + bank.rows <= bank.num_shared || first >= bank.num_shared;
  return in_one_bank ? row_of(bank, shared, own, task, 0, n) : nullptr;
}

}  // namespace

template <typename T>
Problem<T>::Problem(const Arguments& arguments, Passes passes)
    : tasks(arguments.tasks()),
      batch(arguments.batch()),
      dim(arguments.dim()),
      context(arguments.context_columns()),
      columns(arguments.columns()),
      gates(arguments.gates()),
      steps(arguments.steps),
      weight_steps(arguments.weight_steps()),
      x0{static_cast<const T*>(arguments.x0.const_data_ptr()), arguments.x0.stride(0)},
      context_states(arguments.context ? static_cast<const T*>(arguments.context->const_data_ptr()) : nullptr),
      bank(arguments.bank()),
      common(common_units(bank, dim)) {
  const auto data = [](const Tensor& tensor) { return static_cast<const T*>(tensor.const_data_ptr()); };
  const T *const shared = data(arguments.shared_weight), *const own = data(arguments.private_weight);
  const bool packs = !is_low<T> && passes != Passes::backward && batch > few_rows;
  if (passes != Passes::forward || !packs) gather(shared, own);
  if (packs) pack(shared, own);
  biases_ = Buffer<A>(tasks * bank.rows * gates);
  for (int64_t place = 0; place < tasks * bank.rows; ++place) {
    const T* const from =
        row_of(bank, data(arguments.shared_bias), data(arguments.private_bias), place / bank.rows, place % bank.rows, gates);
    const int64_t unit = place % dim;
    for (int64_t g = 0; g < gates; ++g) biases_.get()[((place - unit) * gates) + g * dim + unit] = A(from[g]);
  }
  for (int64_t task = 0; task < tasks; ++task) bias.push_back(biases_.get() + task * bank.rows * gates);
}

template <typename T>
void Problem<T>::gather(const T* shared, const T* own) {
  const int64_t n = gates * columns;
  bool in_place = true;
  for (int64_t task = 0; task < tasks; ++task) {
    weight.push_back(rows_in_place(bank, task, shared, own, n));
    in_place = in_place && weight.back();
  }
  if (in_place) return;
  weights_ = Buffer<T>(tasks * bank.rows * n);
  const auto bytes = [](const T* values) { return reinterpret_cast<const char*>(values); };
  gather_rows(bank, bytes(shared), bytes(own), reinterpret_cast<char*>(weights_.get()), n * sizeof(T));
  for (int64_t task = 0; task < tasks; ++task) weight[task] = weights_.get() + task * bank.rows * n;
}

template <typename T>
void Problem<T>::pack(const T* shared, const T* own) {
  if constexpr (!is_low<T>) {
    constexpr int64_t most_rows = 16;
    const int64_t width = dim * gates, parts = (width + most_rows - 1) / most_rows, size = columns * packed_width();
    std::vector<int64_t> own_blocks, packed_as;  // those that are packed, and the place among them of each
    for (int64_t block = 0; block < tasks * weight_steps; ++block) {
      const int64_t before = block - weight_steps;
      if (before < 0 || !reads_alike(bank, before * dim, block * dim, dim)) own_blocks.push_back(block);
      packed_as.push_back(before < 0 || own_blocks.back() == block ? own_blocks.size() - 1 : packed_as[before]);
    }
    packed_ = Buffer<T>(own_blocks.size() * size);
    for (const int64_t place : packed_as) packed_blocks_.push_back(packed_.get() + place * size);
    parallel_for(0, own_blocks.size() * parts, grain(most_rows * columns), [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        const int64_t block = own_blocks[part / parts], first = part % parts * most_rows, count = std::min(most_rows, width - first);
        const T* rows[most_rows];
        for (int64_t i = 0; i < count; ++i) {
          const int64_t row = first + i, place = block % weight_steps * dim + row / gates;
          rows[i] = row_of(bank, shared, own, block / weight_steps, place, gates * columns) + row % gates * columns;
        }
        product_kernels<T>().transpose(rows, count, columns, packed_.get() + part / parts * size + first, packed_width());
      }
    });
  }
}

template <typename T>
void Problem<T>::multiply(int64_t task, int64_t step, int64_t row, int64_t rows, Units units, Rows<const T> state, Rows<T> product,
                          T* operand) const {
  const T* const upstream = context ? context_states + (step * batch + row) * context : nullptr;
  if (context && is_low<T>) {
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(static_cast<void*>(operand + r * columns), upstream + r * context, context * sizeof(T));
      std::memcpy(static_cast<void*>(operand + r * columns + context), state[r], dim * sizeof(T));
    }
    return gemm<T>(product, {operand, rows, columns, columns}, transposed(task, step, units, 0, columns));
  }
  if (context) gemm<T>(product, {upstream, rows, context, context}, transposed(task, step, units, 0, context));
  gemm<T>(product, {state.data, rows, dim, state.stride}, transposed(task, step, units, context, dim), context != 0);
}

template <typename T>
ForwardTile<T>::ForwardTile(const Problem<T>& problem, int64_t rows)
    : problem_(problem),
      kernels_(kernels<T>()),
      product_(rows * problem.dim * problem.gates),
      low_(is_low<T> ? rows * problem.dim : 0),
      operand_(is_low<T> && problem.context ? rows * problem.columns : 0),
      common_(rows * problem.common.count() * problem.gates),
      state_(rows * problem.dim) {}

template <typename T>
void ForwardTile<T>::begin(int64_t row, int64_t rows) {
  row_ = row, rows_ = rows;
  const Units common = problem_.common;
  if (common.count())
    problem_.multiply(0, 0, row, rows, common, problem_.x0.at(row), {common_.get(), common.count() * problem_.gates}, operand_.get());
}

template struct Problem<float>;
template struct Problem<double>;
template struct Problem<BFloat16>;
template struct Problem<Half>;
template class ForwardTile<float>;
template class ForwardTile<double>;
template class ForwardTile<BFloat16>;
template class ForwardTile<Half>;

}  // namespace dcrnn_fast::cpu
