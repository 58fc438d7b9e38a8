// The element-wise passes for any CPU that the compiler's own flags allow.
#include <algorithm>

#include "elementwise.h"
#include "low_rank_kernels.h"

#define DCRNN_ISA baseline
#define DCRNN_VECTOR 16
#define DCRNN_COLUMNS 2
#include "elementwise.inl"
#include "low_rank_kernels.inl"
