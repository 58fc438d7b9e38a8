// request: rows of ids and numbers to logits or probabilities. A tile of rows goes through the whole model while it is in cache: its
// features, the low-rank recurrence, each task's tower, and the relation between the tasks. It has no derivative.
#include "request.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

namespace dcrnn_fast::cpu {
namespace {

// What a call brings to a packed model.
template <typename T>
struct Inputs {
  using A = accumulator<T>;
  const void* ids;  // [B, C], int32 if `narrow`, else int64
  bool narrow;
  const A* numbers;              // [B, N]
  const T *table, *first_order;  // [V, E] and [V, T], or null
  int64_t batch;

  int64_t id(int64_t place) const { return narrow ? static_cast<const int32_t*>(ids)[place] : static_cast<const int64_t*>(ids)[place]; }
};

// to += sum_q factors[q] rows[q], of `count` rows of `width` values. The sums of some columns stay in registers while the rows go by.
template <int columns, typename T>
void add_columns(const accumulator<T>* factors, const T* rows, int64_t count, int64_t width, accumulator<T>* to) {
  accumulator<T> sums[columns];
  for (int i = 0; i < columns; ++i) sums[i] = to[i];
  for (int64_t q = 0; q < count; ++q)
    for (int i = 0; i < columns; ++i) sums[i] += factors[q] * accumulator<T>(rows[q * width + i]);
  for (int i = 0; i < columns; ++i) to[i] = sums[i];
}
template <typename T>
void add_rows(const accumulator<T>* factors, const T* rows, int64_t count, int64_t width, accumulator<T>* to) {
  int64_t e = 0;
  for (; e + 8 <= width; e += 8) add_columns<8>(factors, rows + e, count, width, to + e);
  for (; e + 2 <= width; e += 2) add_columns<2>(factors, rows + e, count, width, to + e);
  for (; e < width; ++e) add_columns<1>(factors, rows + e, count, width, to + e);
}

template <typename T, typename O>
class Features {
 public:
  using A = accumulator<T>;
  Features(const Request<T, O>& model, const Inputs<T>& in) : p_(model), in_(in), parts_(model.bins) {}

  // A row's features to x0, and its first-order term to `terms` [T]. False where an id is out of range or a number is not finite.
  bool row(int64_t row, A* x0, A* terms) const {
    std::fill_n(terms, p_.tasks, A(0));
    for (int64_t f = 0; f < p_.fields; ++f)
      if (!field(row * p_.columns, f, x0 + f * p_.width, terms)) return false;
    for (int64_t n = 0; n < p_.numbers; ++n)
      if (!number(in_.numbers[row * p_.numbers + n], n, x0 + (p_.fields + n) * p_.width, terms)) return false;
    return true;
  }

 private:
  // Of several values, id 0 adds nothing and does not count.
  bool field(int64_t first, int64_t f, A* to, A* terms) const {
    const bool pooled = p_.pooling[f] != Pooling::none;
    A held = 0;
    for (int64_t c = p_.starts[f]; c < p_.starts[f + 1]; ++c) {
      const int64_t id = in_.id(first + c);
      if (id < 0 || id >= p_.id_sizes[c]) return false;
      held += A(id != 0);
    }
    std::fill_n(to, p_.width, A(0));
    const A factor = p_.pooling[f] == Pooling::mean && held > 1 ? 1 / held : A(1);
    for (int64_t c = p_.starts[f]; c < p_.starts[f + 1]; ++c) {
      const int64_t id = in_.id(first + c), at = p_.offsets[c] + id;
      if (pooled && id == 0) continue;
      add_rows(&factor, in_.table + at * p_.width, 1, p_.width, to);
      if (in_.first_order) add_rows(&factor, in_.first_order + at * p_.tasks, 1, p_.tasks, terms);
    }
    return true;
  }

  bool number(A value, int64_t n, A* to, A* terms) const {
    if (!std::isfinite(value)) return false;
    const A *const lower = p_.lower + n * p_.bins, *const scale = p_.scale + n * p_.bins;
    A* const parts = parts_.get();
    for (int64_t q = 0; q < p_.bins; ++q) {
      const A place = (value - lower[q]) * scale[q];
      parts[q] = place < 0 ? A(0) : place > 1 ? A(1) : place;  // NaN stays NaN
    }
    std::copy_n(p_.vector_bias + n * p_.width, p_.width, to);
    add_rows(parts, p_.vectors + n * p_.bins * p_.width, p_.bins, p_.width, to);
    if (p_.first_order) add_rows(parts, p_.number_terms + n * p_.bins * p_.tasks, p_.bins, p_.tasks, terms);
    return true;
  }

  const Request<T, O>& p_;
  const Inputs<T>& in_;
  Buffer<A> parts_;
};

// Several sums side by side, which fill vectors: one chain of additions would also round more.
template <typename A>
A dot(const A* a, const A* b, int64_t count) {
  constexpr int64_t lanes = 16;
  A sums[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    for (int64_t lane = 0; lane < lanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  for (; i < count; ++i) sums[i % lanes] += a[i] * b[i];
  for (int64_t half = lanes / 2; half; half /= 2)
    for (int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  return sums[0];
}

// Adds the output of a task's tower to column `task` of the logits [rows, T]. `one` and `other` have room for the rows of the widest layer.
template <typename T, typename O>
void tower(const Request<T, O>& p, int64_t task, Rows<const accumulator<T>> from, int64_t rows, accumulator<T>* one, accumulator<T>* other,
           accumulator<T>* logits) {
  using A = accumulator<T>;
  const A* packed = p.towers + task * p.tower_values;
  int64_t in = p.dim();
  for (int64_t layer = 0; layer < p.layers; ++layer) {
    const int64_t width = p.widths[layer];
    const Rows<A> to{one, width};
    for (int64_t row = 0; row < rows; ++row) std::copy_n(packed + in * width, width, to[row]);
    low_rank_kernels<A>().product({rows, width, in, from.data, from.stride, 1, packed, width, to, true});
    for (int64_t i = 0; i < rows * width; ++i) one[i] = one[i] < 0 ? A(0) : one[i];  // NaN stays NaN
    packed += (in + 1) * width, in = width, from = to;
    std::swap(one, other);
  }
  for (int64_t row = 0; row < rows; ++row) logits[row * p.tasks + task] += dot(from[row], packed, in) + packed[in];
}

template <typename A>
A log_add_exp(A a, A b) {
  const A larger = a > b ? a : b;
  return std::isinf(larger) ? larger : larger + std::log1p(std::exp(-std::abs(a - b)));
}

template <typename A>
A sigmoid(A x) {
  return 1 / (1 + std::exp(-x));
}

// Writes a row's results, `stride` apart: the logits of the events or, with `probabilities`, these of the events and, in a chain, of each
// event given the one before it. The chain is that of dcrnn_fast/nn/relations.py.
template <typename A>
void write_row(const RequestSizes& p, const A* z, A log_rate, bool probabilities, A* out, int64_t stride) {
  A joint = 0;  // minus the logit of all events so far
  for (int64_t t = 0; t < p.tasks; ++t) {
    const A own = -(probabilities && t == 0 ? z[0] + log_rate : z[t]);
    joint = p.chain && t ? log_add_exp(log_add_exp(joint, own), joint + own) : own;
    out[t * stride] = probabilities ? sigmoid(-joint) : -joint;
    if (p.chain && probabilities && t) out[(p.tasks + t - 1) * stride] = sigmoid(-own);
  }
}

template <typename T, typename O>
void compute(const Request<T, O>& p, const Inputs<T>& in, accumulator<T> log_rate, bool probabilities, accumulator<T>* out) {
  using A = accumulator<T>;
  const LowRankRecurrence<T, O>& cell = p.recurrence;
  const int64_t widest = p.layers ? *std::max_element(p.widths, p.widths + p.layers) : 0;
  const LowRankTiles tiles(in.batch, (3 * cell.plane + 2 * cell.z_width() + 2 * widest) * sizeof(A), whole_rows<O>());
  std::atomic<bool> refused{false};
  parallel_for(0, tiles.count, 1, [&](int64_t begin, int64_t end) {
    const int64_t most = tiles.most_rows();
    LowRankTile<T, O> tile(cell, most);
    const Features<T, O> features(p, in);
    const BothBuffers<O> after_first(most, cell.plane), after_others(most, cell.plane), projected(most, cell.z_width());
    const Buffer<A> one(most * widest), other(most * widest), logits(most * p.tasks);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = tiles.begin(i), rows = tiles.begin(i + 1) - first;
      for (int64_t r = 0; r < rows; ++r) {
        A* const x0 = tile.x0_to_fill()[r];
        if (!features.row(first + r, x0, logits.get() + r * p.tasks)) return refused.store(true);
        std::fill(x0 + cell.dim, x0 + cell.plane, A(0));
      }
      tile.start(rows);
      for (int64_t task = 0; task < cell.tasks; ++task) {
        BothRows<O> state = tile.x0();
        for (int64_t step = 0; step < cell.steps; ++step) {
          tile.project(task, step, state.low, projected.wide());
          tile.narrow(projected.wide(), projected.low(), cell.gates, cell.rank, cell.rank_plane);
          const BothBuffers<O>& next = step ? after_others : after_first;
          tile.advance(task, step, projected.low(), state.wide, next.wide(), next.low(), {});
          state = next.rows();
        }
        const int64_t last = cell.tasks == p.tasks ? task + 1 : p.tasks;
        for (int64_t t = task; t < last; ++t) tower(p, t, state.wide, rows, one.get(), other.get(), logits.get());
      }
      for (int64_t r = 0; r < rows; ++r) write_row(p, logits.get() + r * p.tasks, log_rate, probabilities, out + first + r, in.batch);
    }
  });
  if (!refused) return;
  for (int64_t place = 0; place < in.batch * p.columns; ++place) {
    const int64_t size = p.id_sizes[place % p.columns];
    check(in.id(place) >= 0 && in.id(place) < size, "ids: got ", in.id(place), " in row ", place / p.columns, ", column ",
          place % p.columns, ", expected an id in [0, ", size, ")");
  }
  fail("dense: got NaN or infinity, expected finite numbers");
}

Tensor request(Tensor ids, std::optional<Tensor> numbers, Tensor table, std::optional<Tensor> first_order, Tensor packed, double log_rate,
               bool probabilities) {
  packed = taken(packed, "packed", ScalarType::Byte, {-1});
  check(packed.numel() >= static_cast<int64_t>(sizeof(RequestSizes)) && reinterpret_cast<uintptr_t>(packed.const_data_ptr()) % 8 == 0,
        "packed: expected what request_pack returned");
  RequestSizes s;
  std::memcpy(&s, packed.const_data_ptr(), sizeof s);
  check(possible(s), "packed: expected what request_pack returned");
  check_memory(ids, "ids"), check_memory(table, "table"), check_floats(table, "table");
  const bool narrow = ids.scalar_type() == ScalarType::Int;
  ids = taken(ids, "ids", narrow ? ScalarType::Int : ScalarType::Long, {-1, s.columns});
  table = taken(table, "table", static_cast<ScalarType>(s.dtype), {-1, s.width});
  const auto exact = table.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  check(numbers.has_value() == (s.numbers > 0), "dense: expected ", s.numbers ? "the model's numbers" : "none, the model has no numbers");
  if (numbers) numbers = taken(*numbers, "dense", exact, {ids.size(0), s.numbers});
  check(first_order.has_value() == (s.first_order && s.columns), "first_order: expected the term's table where the model has one");
  if (first_order) first_order = taken(*first_order, "first_order", table.scalar_type(), {table.size(0), s.tasks});
  values_of({ids.size(0), 2 * s.tasks}, "ids: the results");
  const int64_t results = s.tasks + (probabilities && s.chain ? s.tasks - 1 : 0);
  Tensor out = allocated(table, {results, ids.size(0)}, "ids: the results", exact);
  with_type<BFloat16, Half>(table, "table", [&](auto zero) {
    using T = decltype(zero);
    using A = accumulator<T>;
    with_operands<T>([&](auto operand) {
      using O = decltype(operand);
      check(s.low_operands == is_low<O>, "packed: it was packed for another CPU");
      char* const memory = static_cast<char*>(const_cast<void*>(packed.const_data_ptr()));
      const Request<T, O> model(s, memory);
      check(model.bytes == packed.numel(), "packed: got ", packed.numel(), " bytes, expected ", model.bytes);
      check_columns(s, model.id_sizes, model.offsets, model.starts, model.pooling, table.size(0));
      check(tower_values(model.widths, s.layers, s.dim()) == s.tower_values, "packed: expected what request_pack returned");
      const auto data = [](const std::optional<Tensor>& tensor) { return tensor ? tensor->const_data_ptr() : nullptr; };
      const Inputs<T> in{ids.const_data_ptr(),
                         narrow,
                         static_cast<const A*>(data(numbers)),
                         static_cast<const T*>(table.const_data_ptr()),
                         static_cast<const T*>(data(first_order)),
                         ids.size(0)};
      if (in.batch) compute(model, in, static_cast<A>(log_rate), probabilities, static_cast<A*>(out.mutable_data_ptr()));
    });
  });
  return out;
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) { m.impl("request", TORCH_BOX(&dcrnn_fast::cpu::request)); }
