// param_gather on a GPU, by raw pointers, and sums into the two banks. As in cross_rnn.h, every array is contiguous, and functions queue
// their work on `stream` and return the first error.
#pragma once

#include <cstdint>

#include "../bank_index.h"
#include "runtime.h"
#include "types.h"

namespace dcrnn_fast::cuda {

// Copies rows of `row_bytes` bytes from shared [S, row] and own [T, P, row] to out [T, R, row]. All addresses are multiples of
// `value_bytes`, the size of the dtype.
cudaError_t gather(const BankIndex& bank, const void* shared, const void* own, void* out, int64_t row_bytes, int value_bytes,
                   const Device& device, cudaStream_t stream);

// For every bank row, places[first] to places[last - 1] are the places that read it, in ascending order: t * R + r of a shared row, and r
// of a private row of task t, whose places begin at places[(T + t) * R].
struct PlaceRange {
  uint32_t first, last;
};
struct InverseIndex {
  PlaceRange* ranges;  // [S], then [T, P]
  uint32_t* places;    // [2, T, R]
};

// invert() writes the inverse of an index of less than 2^32 values into memory of inverse_values() 32-bit values, where inverse_in() finds
// it.
int64_t inverse_values(const BankIndex& bank);
cudaError_t invert(const BankIndex& bank, void* memory, cudaStream_t stream);
InverseIndex inverse_in(void* memory, const BankIndex& bank);

// Sums products [groups, T, gates, R / W, part] into shared [S, gates, part] and own [T, P, gates, part]. `inverse` is that of `bank`. W is
// `weight_steps`, the number of steps that have rows of their own. There are W groups; where W is 1, any number, which are added.
template <typename Value>
cudaError_t sum_products(const BankIndex& bank, const InverseIndex& inverse, int gates, int weight_steps, int groups, int64_t part,
                         const Value* products, Value* shared, Value* own, cudaStream_t stream);

// The same, of sums [T, steps, row_tiles, gates, R / W]: parts of one value. Takes each step's first tile; where W is 1, the first step's.
template <typename Value>
cudaError_t sum_tiles(const BankIndex& bank, const InverseIndex& inverse, int gates, int weight_steps, int steps, int row_tiles,
                      const accumulator<Value>* sums, Value* shared, Value* own, cudaStream_t stream);

// Sums the gradient [T, R, n] into shared [S, n] and own [T, P, n]. `inverse` is memory of inverse_values() 32-bit values.
template <typename Value>
cudaError_t sum_rows(const BankIndex& bank, const Value* gradient, void* inverse, Value* shared, Value* own, int64_t n,
                     cudaStream_t stream);

}  // namespace dcrnn_fast::cuda
