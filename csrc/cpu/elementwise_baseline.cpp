// The element-wise passes for any CPU that the compiler's own flags allow.
#include "elementwise.h"

#define DCRNN_ISA baseline
#include "elementwise.inl"
