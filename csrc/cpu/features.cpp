// features on the CPU: the recurrence's input x0 of rows of ids and numbers, and their first-order term, which inference computes at
// once. It has no derivative.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <tuple>

#include "../checks.h"
#include "buffer.h"
#include "parallel.h"
#include "types.h"

namespace dcrnn_fast::cpu {
namespace {

// The ids' part: field f's id i is row offsets[f] + i of the table.
struct Lookup {
  int64_t fields, width_bytes;
  const int64_t *sizes, *offsets;
  const char* table;
};

// The numbers' part. Number n with the bins q becomes bias[n] + sum_q clamp((x - lower[n, q]) scale[n, q], 0, 1) weight[n, q].
template <typename A>
struct Bins {
  int64_t numbers = 0, bins = 0, width = 0;
  const A *x = nullptr, *lower = nullptr, *scale = nullptr, *weight = nullptr, *bias = nullptr;

  bool finite(int64_t row) const {
    bool all = true;
    for (int64_t n = 0; n < numbers; ++n) all = all && std::isfinite(x[row * numbers + n]);
    return all;
  }

  // Leaves in `parts` how much of each bin the number fills.
  void embed(int64_t row, int64_t n, A* parts, A* to) const {
    const A value = x[row * numbers + n];
    for (int64_t q = 0; q < bins; ++q) {
      const A place = (value - lower[n * bins + q]) * scale[n * bins + q];
      parts[q] = place < 0 ? A(0) : place > 1 ? A(1) : place;  // NaN stays NaN
    }
    const A *const vectors = weight + n * bins * width, *const start = bias + n * width;
    int64_t e = 0;
    for (; e + 8 <= width; e += 8) sum<8>(parts, vectors + e, start + e, to + e);
    for (; e < width; ++e) sum<1>(parts, vectors + e, start + e, to + e);
  }

  // The sums stay in registers while the bins go by.
  template <int columns>
  void sum(const A* parts, const A* vectors, const A* start, A* to) const {
    A sums[columns];
    for (int c = 0; c < columns; ++c) sums[c] = start[c];
    for (int64_t q = 0; q < bins; ++q)
      for (int c = 0; c < columns; ++c) sums[c] += parts[q] * vectors[q * width + c];
    for (int c = 0; c < columns; ++c) to[c] = sums[c];
  }
};

// The sum over a row's fields and numbers of what each id, and each bin of a number, says of the tasks. It is summed in
// float64: the sum over the user's fields and that over an item's then add up to what one sum over all fields gives in float32.
template <typename T>
struct FirstOrder {
  int64_t tasks = 0;
  const T* table = nullptr;
  const accumulator<T>* weight = nullptr;
  double* out = nullptr;

  void add_ids(const int64_t* offsets, const auto* ids, int64_t fields, double* sums) const {
    int64_t t = 0;
    for (; t + 2 <= tasks; t += 2) add_ids<2>(offsets, ids, fields, t, sums);
    for (; t < tasks; ++t) add_ids<1>(offsets, ids, fields, t, sums);
  }

  // `parts` is how much of each of the number's bins is filled.
  void add_number(int64_t n, const accumulator<T>* parts, int64_t bins, double* sums) const {
    int64_t t = 0;
    for (; t + 2 <= tasks; t += 2) add_number<2>(n, parts, bins, t, sums);
    for (; t < tasks; ++t) add_number<1>(n, parts, bins, t, sums);
  }

 private:
  // The sums of some tasks stay in registers.
  template <int some>
  void add_ids(const int64_t* offsets, const auto* ids, int64_t fields, int64_t t, double* sums) const {
    double found[some] = {};
    for (int64_t f = 0; f < fields; ++f)
      for (int i = 0; i < some; ++i) found[i] += static_cast<accumulator<T>>(table[(offsets[f] + ids[f]) * tasks + t + i]);
    for (int i = 0; i < some; ++i) sums[t + i] += found[i];
  }

  template <int some>
  void add_number(int64_t n, const accumulator<T>* parts, int64_t bins, int64_t t, double* sums) const {
    accumulator<T> found[some] = {};
    for (int64_t q = 0; q < bins; ++q)
      for (int i = 0; i < some; ++i) found[i] += parts[q] * weight[(n * bins + q) * tasks + t + i];
    for (int i = 0; i < some; ++i) sums[t + i] += found[i];
  }
};

template <int bytes>
void copy_block(char* to, const char* from) {
  std::memcpy(to, from, bytes);  // of a constant size, this is no call
}

void copy_embedding(char* to, const char* from, int64_t bytes) {
  switch (bytes) {
    case 16:
      return copy_block<16>(to, from);
    case 32:
      return copy_block<32>(to, from);
    case 64:
      return copy_block<64>(to, from);
    case 128:
      return copy_block<128>(to, from);
    default:
      if (bytes) std::memcpy(to, from, bytes);
  }
}

// Where the blocks of a row of the output lie: side by side, or at their places in a copy of `row`.
struct Layout {
  int64_t bytes;  // of a row of the output
  const int64_t* places = nullptr;
  const void* row = nullptr;

  int64_t place(int64_t block) const { return places ? places[block] : block; }
};

// Copies the embeddings of a row's ids; false where an id is out of its field's range.
template <typename Id>
bool look_up(const Lookup& l, const Layout& layout, const Id* ids, char* out) {
  for (int64_t f = 0; f < l.fields; ++f) {
    const int64_t id = ids[f];
    if (id < 0 || id >= l.sizes[f]) return false;
    copy_embedding(out + layout.place(f) * l.width_bytes, l.table + (l.offsets[f] + id) * l.width_bytes, l.width_bytes);
  }
  return true;
}

template <typename Id>
void check_ids(const Lookup& l, const Id* ids, int64_t batch) {
  for (int64_t place = 0; place < batch * l.fields; ++place) {
    const int64_t size = l.sizes[place % l.fields];
    check(ids[place] >= 0 && ids[place] < size, "ids: got ", ids[place], " in row ", place / l.fields, ", column ", place % l.fields,
          ", expected an id in [0, ", size, ")");
  }
}

template <typename T, typename Id>
void compute(const Lookup& l, const Bins<accumulator<T>>& bins, const FirstOrder<T>& first, const Layout& layout, const Id* ids,
             int64_t batch, T* out) {
  using A = accumulator<T>;
  const int64_t dim = layout.bytes / static_cast<int64_t>(sizeof(T));
  std::atomic<bool> refused{false};
  parallel_for(0, batch, grain(dim), [&](int64_t begin, int64_t end) {
    const Buffer<A> wide(is_low<T> ? bins.width : 0), parts(bins.bins);
    for (int64_t row = begin; row < end; ++row) {
      T* const to = out + row * dim;
      if (layout.row && layout.bytes) std::memcpy(static_cast<void*>(to), layout.row, layout.bytes);
      const Id* const of_row = ids + row * l.fields;
      const bool fits = bins.finite(row) && look_up(l, layout, of_row, reinterpret_cast<char*>(to));
      if (!fits) return refused.store(true);
      double* const sums = first.out + row * first.tasks;
      std::fill_n(sums, first.tasks, 0.0);
      first.add_ids(l.offsets, of_row, l.fields, sums);
      for (int64_t n = 0; n < bins.numbers; ++n) {
        T* const embedding = to + layout.place(l.fields + n) * bins.width;
        if constexpr (is_low<T>) {
          bins.embed(row, n, parts.get(), wide.get());
          for (int64_t e = 0; e < bins.width; ++e) embedding[e] = T(wide.get()[e]);
        } else {
          bins.embed(row, n, parts.get(), embedding);
        }
        first.add_number(n, parts.get(), bins.bins, sums);
      }
    }
  });
  if (!refused) return;
  check_ids(l, ids, batch);
  fail("dense: got NaN or infinity, expected finite numbers");
}

void check_fields(const Tensor& sizes, const Tensor& offsets, int64_t rows) {
  const int64_t *const size = sizes.const_data_ptr<int64_t>(), *const offset = offsets.const_data_ptr<int64_t>();
  for (int64_t f = 0; f < sizes.size(0); ++f)
    check(size[f] >= 0 && size[f] <= rows && offset[f] >= 0 && offset[f] <= rows - size[f], "sizes, offsets: got ", size[f],
          " ids from row ", offset[f], " on in field ", f, ", expected rows of the table, which has ", rows);
}

// `row` has room for so many blocks, and every place is one of them.
void check_places(const Tensor& row, const Tensor& places, int64_t width) {
  const int64_t size = row.size(0), blocks = width ? size / width : 0;
  check(blocks * width == size, "row: got ", size, " values, expected a multiple of the table's width ", width);
  const int64_t* const place = places.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < places.size(0); ++i)
    check(place[i] >= 0 && place[i] < blocks, "places: got ", place[i], ", expected a place in [0, ", blocks, ")");
}

std::tuple<Tensor, Tensor> features(Tensor ids, Tensor table, Tensor sizes, Tensor offsets, std::optional<Tensor> numbers,
                                    std::optional<Tensor> lower, std::optional<Tensor> scale, std::optional<Tensor> weight,
                                    std::optional<Tensor> bias, std::optional<Tensor> row, std::optional<Tensor> places,
                                    std::optional<Tensor> first_order, std::optional<Tensor> first_order_weight) {
  check_memory(ids, "ids"), check_memory(table, "table");
  check_floats(table, "table"), Sizes().check_shape(ids, "ids", "BF"), Sizes().check_shape(table, "table", "VE");
  const bool narrow = ids.scalar_type() == ScalarType::Int;
  check(narrow || ids.scalar_type() == ScalarType::Long, "ids: expected dtype int64 or int32");
  const int64_t batch = ids.size(0), fields = ids.size(1), width = table.size(1), any = -1;
  const auto exact = table.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  sizes = taken(sizes, "sizes", ScalarType::Long, {fields}), offsets = taken(offsets, "offsets", ScalarType::Long, {fields});

  for (const auto* tensor : {&lower, &scale, &weight, &bias})
    check(tensor->has_value() == numbers.has_value(), "dense, lower, scale, weight, bias: got some of them, expected all five, or none");
  int64_t count = 0, bins = 0;
  if (numbers) {
    numbers = taken(*numbers, "dense", exact, {batch, any}), count = numbers->size(1);
    lower = taken(*lower, "lower", exact, {count, any}), bins = lower->size(1);
    scale = taken(*scale, "scale", exact, {count, bins}), weight = taken(*weight, "weight", exact, {count, bins, width});
    bias = taken(*bias, "bias", exact, {count, width});
  }
  ids = dense(ids, "ids"), table = dense(table, "table");
  check_fields(sizes, offsets, table.size(0));

  int64_t dim = (fields + count) * width;
  check(row.has_value() == places.has_value(), "row, places: got one of them, expected both, or none");
  if (row) {
    row = taken(*row, "row", table.scalar_type(), {any}), places = taken(*places, "places", ScalarType::Long, {fields + count});
    check_places(*row, *places, width);
    dim = row->size(0);
  }

  check(first_order_weight.has_value() == (first_order && numbers),
        "first_order_weight: expected one with numbers and first_order, and none without");
  if (first_order) first_order = taken(*first_order, "first_order", table.scalar_type(), {table.size(0), any});
  const int64_t tasks = first_order ? first_order->size(1) : 0;
  if (first_order_weight) first_order_weight = taken(*first_order_weight, "first_order_weight", exact, {count, bins, tasks});
  values_of({batch, dim}, "ids, dense: the features");
  values_of({batch, tasks}, "ids, first_order: the term");
  Tensor out = allocated(table, {batch, dim}, "ids, dense: the features");
  Tensor term = allocated(table, {batch, tasks}, "ids, first_order: the term", ScalarType::Double);
  with_type<BFloat16, Half>(table, "table", [&](auto zero) {
    using T = decltype(zero);
    using A = accumulator<T>;
    const Lookup lookup{fields, width * static_cast<int64_t>(sizeof(T)), sizes.const_data_ptr<int64_t>(), offsets.const_data_ptr<int64_t>(),
                        static_cast<const char*>(table.const_data_ptr())};
    Bins<A> of;
    const auto data = [](const std::optional<Tensor>& tensor) { return static_cast<const A*>(tensor->const_data_ptr()); };
    if (numbers) of = {count, bins, width, data(numbers), data(lower), data(scale), data(weight), data(bias)};
    FirstOrder<T> first{tasks};
    first.out = static_cast<double*>(term.mutable_data_ptr());
    if (first_order) first.table = static_cast<const T*>(first_order->const_data_ptr());
    if (first_order_weight) first.weight = data(first_order_weight);
    Layout layout{dim * static_cast<int64_t>(sizeof(T))};
    if (row) layout.places = places->const_data_ptr<int64_t>(), layout.row = row->const_data_ptr();
    T* const to = static_cast<T*>(out.mutable_data_ptr());
    if (narrow)
      compute(lookup, of, first, layout, ids.const_data_ptr<int32_t>(), batch, to);
    else
      compute(lookup, of, first, layout, ids.const_data_ptr<int64_t>(), batch, to);
  });
  return {out, term};
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) { m.impl("features", TORCH_BOX(&dcrnn_fast::cpu::features)); }
