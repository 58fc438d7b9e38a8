// Which build of the element-wise passes runs.
#pragma once

namespace dcrnn_fast::cpu {

enum class Isa { baseline, avx2, avx512 };

// The best instruction set of this CPU, or the one that DCRNN_FAST_ISA names, which is read once. Throws if that one is unknown or this CPU
// lacks it.
Isa isa();

const char* isa_name(Isa isa);

// Whether the instruction set that runs is AVX512 and the CPU multiplies pairs of bfloat16 (AVX512-BF16).
bool multiplies_bfloat16();

}  // namespace dcrnn_fast::cpu
