// The choice of the instruction set; see isa.h.
#include "isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <cstring>

#include "../checks.h"

namespace dcrnn_fast::cpu {
namespace {

#if defined(__x86_64__)
// A bit of the CPU's extended features: what compilers before GCC 12 have no name for.
bool has_feature(int bit) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> bit & 1);
}

// Linux grants a process the memory of tiles once it asks.
bool grants_tiles() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}
#endif

constexpr Isa all[] = {Isa::amx, Isa::avx512, Isa::avx2, Isa::baseline};

bool has(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (isa == Isa::amx)  // AMX-BF16 and AMX-TILE
    return has(Isa::avx512) && __builtin_cpu_supports("avx512bf16") && has_feature(22) && has_feature(24) && grants_tiles();
  if (isa == Isa::avx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
  if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#endif
  return isa == Isa::baseline;
}

Isa best() {
  for (const Isa isa : all)
    if (has(isa)) return isa;
  return Isa::baseline;
}

Isa choose() {
  const char* const wanted = std::getenv("DCRNN_FAST_ISA");
  if (!wanted) return best();
  for (const Isa isa : all) {
    if (std::strcmp(wanted, isa_name(isa)) != 0) continue;
    check(has(isa), "DCRNN_FAST_ISA='", wanted, "': this CPU lacks that instruction set; unset the variable, or set it to '",
          isa_name(best()), "'");
    return isa;
  }
  fail("DCRNN_FAST_ISA='", wanted, "': expected amx, avx512, avx2 or baseline; unset the variable for the best that this CPU has");
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

bool multiplies_bfloat16() {
#if defined(__x86_64__)
  static const bool found = isa() >= Isa::avx512 && __builtin_cpu_supports("avx512bf16");
  return found;
#else
  return false;
#endif
}

bool multiplies_float16() {
#if defined(__x86_64__)
  static const bool found = isa() >= Isa::avx512 && has_feature(23);
  return found;
#else
  return false;
#endif
}

const char* isa_name(Isa isa) { return isa == Isa::amx ? "amx" : isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "baseline"; }

}  // namespace dcrnn_fast::cpu
