// Which build of the element-wise passes and of the products runs.
#pragma once

namespace dcrnn_fast::cpu {

enum class Isa { baseline, avx2, avx512, amx };  // amx: AVX512 with AVX512-BF16, and tiles for products of bfloat16

// The best instruction set of this CPU, or the one that DCRNN_FAST_ISA names, which is read once. Throws if that one is unknown or this CPU
// lacks it.
Isa isa();

const char* isa_name(Isa isa);

// Each instruction set's table of functions, by the table's type: elementwise.h, product.h and low_rank_kernels.h declare the types, and a
// source file for each instruction set defines the tables.
namespace baseline {
template <typename Table>
const Table& table();
}
namespace avx2 {
template <typename Table>
const Table& table();
}
namespace avx512 {
template <typename Table>
const Table& table();
}

// The table of the instruction set that runs.
template <typename Table>
const Table& table() {
#if defined(__x86_64__)
  switch (isa()) {
    case Isa::amx:
    case Isa::avx512:
      return avx512::table<Table>();
    case Isa::avx2:
      return avx2::table<Table>();
    case Isa::baseline:
      break;
  }
#endif
  return baseline::table<Table>();
}

// Whether the instruction set that runs is at least AVX512 and the CPU multiplies pairs of bfloat16 (AVX512-BF16), or float16
// (AVX512-FP16).
bool multiplies_bfloat16();
bool multiplies_float16();
inline bool multiplies_tiles() { return isa() == Isa::amx; }

}  // namespace dcrnn_fast::cpu
