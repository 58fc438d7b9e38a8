// The index through which tasks read the two parameter banks, for host and device code.
#pragma once

#include <cstdint>

namespace dcrnn_fast {

// A value of index [tasks, rows] below num_shared names a row of the shared bank; num_shared + p names row p of the task's private bank.
struct BankIndex {
  const int32_t* index;
  int64_t tasks, rows, num_shared, num_private;
};

}  // namespace dcrnn_fast
