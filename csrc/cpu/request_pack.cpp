// request_pack: a model as one block of memory; see request.h.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "request.h"

namespace dcrnn_fast::cpu {

int64_t tower_values(const int64_t* widths, int64_t layers, int64_t dim) {
  int64_t count = 0, in = dim;
  for (int64_t i = 0; i < layers; ++i) {
    const int64_t width = widths[i];
    check(width > 0 && width <= most_size && width % padding == 0, "widths: got ", width, ", expected multiples of ", padding, " up to ",
          most_size);
    count += (in + 1) * width, in = width;
    check(count <= most_size, "widths: got layers of more than ", most_size, " values, expected no more");
  }
  return count + in + 1;
}

bool possible(const RequestSizes& s) {
  const auto within = [](int64_t value, int64_t least, int64_t most) { return value >= least && value <= most; };
  bool fits = s.format == request_format && within(s.low_operands, 0, 1) && within(s.first_order, 0, 1) && within(s.chain, 0, 1);
  for (const int64_t size : {s.columns, s.fields, s.numbers, s.bins, s.width, s.tower_values}) fits = fits && within(size, 0, most_size);
  fits = fits && s.fields <= s.columns && s.numbers * s.bins <= most_size && within(s.fields + s.numbers, 1, most_size);
  fits = fits && s.width <= most_size / (s.fields + s.numbers) && s.dim() > 0 && within(s.tasks, 1, most_size);
  fits = fits && (s.cell_tasks == s.tasks || s.cell_tasks == 1) && within(s.steps, 1, most_steps) && within(s.rank, 1, most_size / 4);
  fits = fits && (s.weight_steps == 1 || s.weight_steps == s.steps) && within(s.gates, 1, 2) && within(s.common_projection, 0, 1);
  fits = fits && within(s.shared_units, 0, s.dim());
  return fits && within(s.layers, 0, most_layers);
}

void check_columns(const RequestSizes& s, const int64_t* id_sizes, const int64_t* offsets, const int64_t* starts, const Pooling* pooling,
                   int64_t table_rows) {
  for (int64_t c = 0; c < s.columns; ++c)
    check(id_sizes[c] >= 0 && id_sizes[c] <= table_rows && offsets[c] >= 0 && offsets[c] <= table_rows - id_sizes[c],
          "sizes, offsets: got ", id_sizes[c], " ids from row ", offsets[c], " on in column ", c,
          ", expected rows of the table, which has ", table_rows);
  bool fits = starts[0] == 0 && starts[s.fields] == s.columns;
  for (int64_t f = 0; f < s.fields; ++f)
    fits = fits && starts[f] < starts[f + 1] &&
           (pooling[f] == Pooling::none ? starts[f + 1] == starts[f] + 1 : pooling[f] == Pooling::mean || pooling[f] == Pooling::sum);
  check(fits,
        "starts, pooling: expected the first column of each field and the number of columns, and 0 for one column, 1 for the mean, 2");
}

namespace {

template <typename V>
void copy(const Tensor& from, V* to) {
  if (from.numel()) std::memcpy(to, from.const_data_ptr(), from.numel() * sizeof(V));
}

Tensor request_pack(Tensor table, Tensor sizes, Tensor offsets, Tensor starts, Tensor pooling, std::optional<Tensor> lower,
                    std::optional<Tensor> scale, std::optional<Tensor> weight, std::optional<Tensor> bias,
                    std::optional<Tensor> first_order_weight, Tensor shared_weight, Tensor shared_bias, Tensor private_weight,
                    Tensor private_bias, Tensor shared_projection, Tensor private_projection, int64_t steps, Text cell, Tensor towers,
                    Tensor widths, bool first_order, bool chain) {
  check_memory(table, "table"), check_floats(table, "table"), dcrnn_fast::Sizes().check_shape(table, "table", "VE");
  const auto exact = table.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  const int64_t any = -1, width = table.size(1);
  RequestSizes s;
  s.format = request_format, s.dtype = static_cast<int64_t>(table.scalar_type());
  sizes = taken(sizes, "sizes", ScalarType::Long, {any}), s.columns = sizes.size(0);
  offsets = taken(offsets, "offsets", ScalarType::Long, {s.columns});
  pooling = taken(pooling, "pooling", ScalarType::Long, {any}), s.fields = pooling.size(0);
  starts = taken(starts, "starts", ScalarType::Long, {s.fields + 1});
  towers = taken(towers, "towers", exact, {any, any}), s.tasks = towers.size(0);
  for (const auto* tensor : {&scale, &weight, &bias})
    check(tensor->has_value() == lower.has_value(), "lower, scale, weight, bias: got some of them, expected all four, or none");
  check(first_order_weight.has_value() == (first_order && lower), "first_order_weight: expected one with numbers and a first-order term");
  if (lower) {
    lower = taken(*lower, "lower", exact, {any, any}), s.numbers = lower->size(0), s.bins = lower->size(1);
    scale = taken(*scale, "scale", exact, {s.numbers, s.bins}), weight = taken(*weight, "weight", exact, {s.numbers, s.bins, width});
    bias = taken(*bias, "bias", exact, {s.numbers, width});
    if (first_order_weight) first_order_weight = taken(*first_order_weight, "first_order_weight", exact, {s.numbers, s.bins, s.tasks});
  }
  widths = taken(widths, "widths", ScalarType::Long, {any}), s.layers = widths.size(0);
  check(s.layers <= most_layers, "widths: got ", s.layers, " layers, expected at most ", most_layers);
  const int64_t* const hidden = widths.const_data_ptr<int64_t>();
  s.width = width, s.first_order = first_order, s.chain = chain;
  check(s.dim() > 0, "table, pooling, lower: got no features, expected some");
  s.tower_values = tower_values(hidden, s.layers, s.dim());
  towers = taken(towers, "towers", exact, {s.tasks, s.tower_values});

  LowRankArguments a{{allocated(table, {0, s.dim()}, "x0"), shared_weight, shared_bias, private_weight, private_bias, steps, cell,
                      std::nullopt, false, false},
                     shared_projection,
                     private_projection};
  a.prepare();
  s.cell_tasks = a.tasks(), s.steps = steps, s.weight_steps = a.weight_steps(), s.rank = a.rank(), s.gates = a.gates();
  check(s.cell_tasks == s.tasks || s.cell_tasks == 1, "private_weight: got ", s.cell_tasks, " tasks, expected 1 or ", s.tasks,
        " as towers has");
  s.shared_units = a.banks().shared, s.common_projection = a.projection_banks().own == 0;
  return with_type<BFloat16, Half>(table, "table", [&](auto zero) {
    using T = decltype(zero);
    return with_operands<T>([&](auto operand) {
      using O = decltype(operand);
      using A = accumulator<T>;
      s.low_operands = is_low<O>;
      check(possible(s), "table, sizes, lower, towers: got sizes of no model, or too large ones");
      Tensor out = allocated(table, {Request<T, O>(s, nullptr).bytes}, "the packed model", ScalarType::Byte);
      const Request<T, O> to(s, static_cast<char*>(out.mutable_data_ptr()));
      std::memcpy(out.mutable_data_ptr(), &s, sizeof s);
      copy(sizes, to.id_sizes), copy(offsets, to.offsets), copy(starts, to.starts), copy(pooling, to.pooling), copy(widths, to.widths);
      check_columns(s, to.id_sizes, to.offsets, to.starts, to.pooling, table.size(0));
      if (lower) copy<A>(*lower, to.lower), copy<A>(*scale, to.scale), copy<A>(*weight, to.vectors), copy<A>(*bias, to.vector_bias);
      if (first_order_weight) copy<A>(*first_order_weight, to.number_terms);
      const LowRankRecurrence<T, O> packed(a, false);
      std::copy_n(packed.packed_weights, packed.weight_values(), to.weights);
      std::copy_n(packed.packed_projections, packed.projection_values(), to.projections);
      std::copy_n(packed.packed_biases, packed.bias_values(), to.biases);
      copy<A>(towers, to.towers);
      return out;
    });
  });
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) { m.impl("request_pack", TORCH_BOX(&dcrnn_fast::cpu::request_pack)); }
