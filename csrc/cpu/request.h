// A model prepared for requests, as one block of memory: the sizes, the columns of ids, the bins of the numbers, the recurrence's weights
// as its products read them, and the towers. request_pack writes it, and request reads it. Letters as in ops.cpp.
#pragma once

#include <cstdint>
#include <cstring>

#include "../checks.h"
#include "low_rank.h"

namespace dcrnn_fast::cpu {

enum class Pooling : int64_t { none, mean, sum };

// The head of the block. It holds no more than numbers, and is checked like any argument.
struct RequestSizes {
  int64_t format = 0, dtype = 0, low_operands = 0;  // of products: bfloat16, or as sums are
  int64_t columns = 0, fields = 0;                  // C columns of ids make F fields
  int64_t numbers = 0, bins = 0, width = 0;         // N, Q, E
  int64_t tasks = 0, cell_tasks = 0;                // T, and 1 in place of T where all tasks share all of the recurrence
  int64_t steps = 0, weight_steps = 0, rank = 0, gates = 0, shared_units = 0, common_projection = 0;
  int64_t layers = 0, tower_values = 0;  // a tower's hidden layers, and its weights and biases
  int64_t first_order = 0, chain = 0;

  int64_t dim() const { return (fields + numbers) * width; }
};

inline constexpr int64_t request_format = 0x6463726e6e310a02, most_layers = 1024;

template <typename T, typename O>
struct Request : RequestSizes {
  using A = accumulator<T>;

  // Where everything lies in `memory`, which may be null: then `bytes` alone is of use.
  Request(const RequestSizes& sizes, char* memory)
      : RequestSizes(sizes),
        recurrence(cell_tasks, dim(), shared_units, gates, steps, weight_steps, rank, common_projection != 0),
        memory_(memory) {
    take<RequestSizes>({1});
    id_sizes = take<int64_t>({columns}), offsets = take<int64_t>({columns});
    starts = take<int64_t>({fields + 1}), pooling = take<Pooling>({fields}), widths = take<int64_t>({layers});
    lower = take<A>({numbers, bins}), scale = take<A>({numbers, bins});
    vectors = take<A>({numbers, bins, width}), vector_bias = take<A>({numbers, width});
    number_terms = take<A>({first_order * numbers, bins, tasks});
    recurrence.packed_weights = weights = take<O>({recurrence.weight_values()});
    recurrence.packed_projections = projections = take<O>({recurrence.projection_values()});
    recurrence.packed_biases = biases = take<A>({recurrence.bias_values()});
    towers = take<A>({tasks, tower_values});
  }

  LowRankRecurrence<T, O> recurrence;
  int64_t *id_sizes, *offsets;  // [C]: a column's ids, and the table's row of the first
  int64_t* starts;              // [F + 1]: a field's first column
  Pooling* pooling;             // [F]
  int64_t* widths;
  A *lower, *scale;          // [N, Q]
  A *vectors, *vector_bias;  // [N, Q, E] and [N, E]
  A* number_terms;           // [N, Q, T]
  O *weights, *projections;
  A *biases, *towers;
  int64_t bytes = 0;

 private:
  template <typename V>
  V* take(std::initializer_list<int64_t> shape) {
    const int64_t at = bytes, count = values_of(shape, "packed");
    check(count <= int64_t{1} << 40, "packed: too many values for any memory");
    bytes += (count * static_cast<int64_t>(sizeof(V)) + 63) / 64 * 64;
    return memory_ ? reinterpret_cast<V*>(memory_ + at) : nullptr;
  }

  char* memory_;
};

// The values of a tower whose hidden layers have these widths, of units that read `dim` values. Refuses widths that it cannot compute.
int64_t tower_values(const int64_t* widths, int64_t layers, int64_t dim);
// Whether a packed model can have these sizes.
bool possible(const RequestSizes& sizes);
// Refuses columns that do not lie in a table of so many rows, and fields that are not one after another.
void check_columns(const RequestSizes& sizes, const int64_t* id_sizes, const int64_t* offsets, const int64_t* starts,
                   const Pooling* pooling, int64_t table_rows);

}  // namespace dcrnn_fast::cpu
