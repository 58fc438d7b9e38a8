// Prepares the recurrence of cross_rnn; see cross_rnn.h.
#include "cross_rnn.h"

namespace dcrnn_fast::cpu {

bool computes_in_float(const CellArguments& arguments, Passes passes) {
  const ScalarType dtype = arguments.x0.scalar_type();
  if (dtype != ScalarType::BFloat16 && dtype != ScalarType::Half) return false;
  const int64_t batch = arguments.batch(), weights = arguments.shared_weight.numel() + arguments.private_weight.numel();
  const int64_t products = arguments.tasks() * arguments.steps * arguments.dim() * arguments.gates() * arguments.columns();  // of a row
  if (weights <= 1 << 18 && products < (1 << 24) / std::max<int64_t>(1, batch)) return true;
  // the library's choice of kernel for 4 to 12 rows was seen to depend on the number of threads, and so would the forward's bits
  if (batch < 16) return batch > few_rows || passes == Passes::backward;
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

void widen(CellArguments& arguments) {
  for (Tensor* const tensor :
       {&arguments.x0, &arguments.shared_weight, &arguments.shared_bias, &arguments.private_weight, &arguments.private_bias})
    *tensor = converted(*tensor, ScalarType::Float);
  if (arguments.context) arguments.context = converted(*arguments.context, ScalarType::Float);
}

void align_few_rows(CellArguments& arguments) {
  if (arguments.batch() > few_rows) return;
  const auto align = [](Tensor& tensor) {
    if (!tensor.numel() || reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 64 == 0) return;
    Tensor out = allocated(tensor, {tensor.sizes().begin(), tensor.sizes().end()}, "an aligned copy");
    tensor = torch::stable::copy_(out, tensor);
  };
  for (Tensor* const tensor : {&arguments.x0, &arguments.shared_weight, &arguments.private_weight}) align(*tensor);
  if (arguments.context) align(*arguments.context);
}

Tiles::Tiles(int64_t batch, int64_t fewest, int64_t enough, int64_t row_bytes, int64_t parts) : batch(batch) {
  constexpr int64_t cache_bytes = 1 << 20;
  const int64_t fits = cache_bytes / row_bytes;
  const int64_t for_threads = std::max(fewest, (batch + parts - 1) / parts);
  const int64_t rows = std::min(std::max(enough, std::min<int64_t>(512, fits)), for_threads);
  count = std::max<int64_t>(1, (batch + rows / 2) / rows);
}

template <typename T>
Recurrence<T>::Recurrence(const CellArguments& arguments, Passes passes)
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
      banks(arguments.banks()),
      shared_weight(static_cast<const T*>(arguments.shared_weight.const_data_ptr())),
      private_weight(static_cast<const T*>(arguments.private_weight.const_data_ptr())),
      starts_alike(tasks > 1 && banks.shared * 8 >= dim),  // a product over a few columns costs more than it saves
      packs_(!is_low<T> && passes != Passes::backward && batch > few_rows),
      joins_(is_low<T> && batch > few_rows && banks.shared && banks.own) {
  if (joins_) {
    joined_ = Buffer<T>(tasks * weight_steps * dim * gates * columns);
    parallel_for(0, tasks * weight_steps * dim, grain(gates * columns), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t block = i / dim, size = gates * columns;
        const T* const from = row_of(banks, shared_weight, private_weight, block / weight_steps, block % weight_steps, i % dim, size);
        std::memcpy(static_cast<void*>(joined_.get() + i * size), from, size * sizeof(T));
      }
    });
  }
  if (packs_) {
    const int64_t own = tasks * sliced_values<T>(columns, banks.own * gates);
    packed_ = Buffer<T>(weight_steps * (sliced_values<T>(columns, banks.shared * gates) + own));
    pack(1, shared_units());
    pack(tasks, private_units());
  }
  biases_ = Buffer<A>(tasks * weight_steps * dim * gates);
  const auto *const shared = static_cast<const T*>(arguments.shared_bias.const_data_ptr()), *const own = static_cast<const T*>(
                                                                                                arguments.private_bias.const_data_ptr());
  A* to = biases_.get();
  for (int64_t block = 0; block < tasks * weight_steps; ++block, to += dim * gates)
    for (int64_t unit = 0; unit < dim; ++unit) {
      const T* const from = row_of(banks, shared, own, block / weight_steps, block % weight_steps, unit, gates);
      for (int64_t g = 0; g < gates; ++g) to[g * dim + unit] = A(from[g]);
    }
}

// Packs the weights of the shared units once, or of the private units of each task.
template <typename T>
void Recurrence<T>::pack(int64_t tasks_of_units, Units units) {
  if constexpr (!is_low<T>) {
    constexpr int64_t most_rows = 16;
    const int64_t width = units.count() * gates, parts = (width + most_rows - 1) / most_rows;
    parallel_for(0, tasks_of_units * weight_steps * parts, grain(most_rows * columns), [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        const int64_t task = part / parts / weight_steps, step = part / parts % weight_steps, first = part % parts * most_rows;
        const int64_t count = std::min(most_rows, width - first);
        const T* const from = weight(task, step, units) + first * columns;
        const T* rows[most_rows];
        for (int64_t i = 0; i < count; ++i) rows[i] = from + i * columns;
        T* const to = packed(task, step, units) + first / slice<T> * columns * slice<T> + first % slice<T>;
        product_kernels<T>().transpose(rows, count, columns, to, slice<T>);
      }
    });
  }
}

template <typename T>
void Recurrence<T>::multiply(int64_t task, int64_t step, int64_t row, int64_t rows, Units units, Rows<const T> state, Rows<T> product,
                             T* operand) const {
  const T* const upstream = context ? context_states + (step * batch + row) * context : nullptr;
  const Matrix<T> above{upstream, rows, context, context}, own{state.data, rows, dim, state.stride};
  const int64_t width = units.count() * gates;
  if constexpr (!is_low<T>)
    if (packs_) {
      const T* const weights = packed(task, step % weight_steps, units);
      if (context) gemm<T>(product, above, Sliced<T>{weights, context, width, columns * slice<T>});
      return gemm<T>(product, own, Sliced<T>{weights + context * slice<T>, dim, width, columns * slice<T>}, context != 0);
    }
  const T* const weights = weight(task, step, units);
  if (context && is_low<T>) {
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(static_cast<void*>(operand + r * columns), upstream + r * context, context * sizeof(T));
      std::memcpy(static_cast<void*>(operand + r * columns + context), state[r], dim * sizeof(T));
    }
    return gemm<T>(product, {operand, rows, columns, columns}, Matrix<T>{weights, columns, width, 1, columns});
  }
  if (context) gemm<T>(product, above, Matrix<T>{weights, context, width, 1, columns});
  gemm<T>(product, own, Matrix<T>{weights + context, dim, width, 1, columns}, context != 0);
}

template <typename T>
ForwardTile<T>::ForwardTile(const Recurrence<T>& recurrence, int64_t rows)
    : p_(recurrence),
      kernels_(kernels<T>()),
      product_(rows * p_.dim * p_.gates),
      low_(is_low<T> ? rows * p_.dim : 0),
      operand_(is_low<T> && p_.context ? rows * p_.columns : 0),
      common_(rows * p_.common().count() * p_.gates),
      state_(rows * p_.dim) {}

template <typename T>
void ForwardTile<T>::begin(int64_t row, int64_t rows) {
  row_ = row, rows_ = rows;
  const Units common = p_.common();
  if (common.count()) p_.multiply(0, 0, row, rows, common, p_.x0.at(row), {common_.get(), common.count() * p_.gates}, operand_.get());
}

template struct Recurrence<float>;
template struct Recurrence<double>;
template struct Recurrence<BFloat16>;
template struct Recurrence<Half>;
template class ForwardTile<float>;
template class ForwardTile<double>;
template class ForwardTile<BFloat16>;
template class ForwardTile<Half>;

}  // namespace dcrnn_fast::cpu
