// Which build of the element-wise passes runs.
#pragma once

namespace dcrnn_fast::cpu {

enum class Isa { baseline, avx2, avx512 };

// The best set this CPU has, or the one that DCRNN_FAST_ISA names: read once. Throws where that is unknown or this CPU lacks it.
Isa isa();

const char* isa_name(Isa isa);

}  // namespace dcrnn_fast::cpu
