// How the kernels of csrc/cuda are launched, as lines of JSON for scripts/resources/cuda_report.py: for every kernel a function of its
// name, with its template parameters. A C++ compiler suffices: tests/cuda_on_host/shim.h stands for CUDA.
#include <string>

#include "cross_rnn_backward_kernels.h"
#include "cross_rnn_states_kernels.h"
#include "inverse_index_kernels.h"
#include "low_rank_backward_kernels.h"
#include "low_rank_forward_kernels.h"
#include "low_rank_pack_kernels.h"
#include "param_gather_kernels.h"
#include "sums_kernels.h"

namespace shapes {

using namespace dcrnn_fast::cuda;

// One object of JSON, a line long.
class Line {
 public:
  Line() { std::printf("{"); }
  ~Line() { std::printf("}\n"); }
  Line& add(const char* name, const char* value) { return print(name, "\"%s\"", value); }
  Line& add(const char* name, int64_t value) { return print(name, "%lld", static_cast<long long>(value)); }
  Line& add(const char* name, int value) { return add(name, int64_t{value}); }
  Line& add(const char* name, bool value) { return print(name, "%s", value ? "true" : "false"); }

 private:
  template <typename Value>
  Line& print(const char* name, const char* format, Value value) {
    std::printf("%s\"%s\": ", separator, name);
    std::printf(format, value);
    separator = ", ";
    return *this;
  }
  const char* separator = "";
};

template <typename T>
const char* kind_of(bool tf32 = false) {
  if (std::is_same_v<T, BFloat16>) return "bfloat16";
  if (std::is_same_v<T, Half>) return "float16";
  if (std::is_same_v<T, double>) return "float64";
  return tf32 ? "tf32" : "float32";
}

template <typename Kernel>
struct Parameters;

template <template <typename, int, typename, int, bool> typename Kernel, typename M, int G, typename Tile, int stages, bool flag>
struct Parameters<Kernel<M, G, Tile, stages, flag>> {
  static constexpr bool tf32 = M::tf32;
  static constexpr int gates = G;
};

template <typename Kernel>
void add_product(Line& line) {
  using P = Parameters<Kernel>;
  line.add("kind", kind_of<typename Kernel::T>(P::tf32)).add("gates", P::gates);
  line.add("tile_rows", Kernel::Tile::rows).add("tile_columns", Kernel::Tile::columns);
  line.add("warps", Kernel::threads / 32).add("stages", Kernel::stages);
}

// DIM: the number of units that kernels of all steps are shown with.
template <typename Kernel>
void cross_rnn_forward() {
  Line line;
  add_product<Kernel>(line);
  line.add("all_steps", Kernel::all_steps).add("dynamic_shared", Kernel::shared_bytes(DIM));
  if (Kernel::all_steps) line.add("least_shared", Kernel::shared_bytes(1));
}

template <typename Kernel>
void cross_rnn_backward() {
  Line line;
  add_product<Kernel>(line);
  line.add("context", Kernel::context).add("dynamic_shared", Kernel::shared_bytes());
}

template <int G, typename T>
void cross_rnn_backward_start() {
  Line().add("kind", kind_of<T>()).add("gates", G).add("warps", start_warps).add("dynamic_shared", start_shared_bytes<T>(G));
}

template <int G, typename T>
void cross_rnn_states() {
  Line().add("kind", kind_of<T>()).add("gates", G).add("warps", element_threads / 32).add("dynamic_shared", 0);
}

// RANK: the rank that kernels of the low-rank cell are shown with, beside DIM. Where an operand does not fit, they need least_shared.
template <typename Kernel>
void add_low_rank() {
  const typename Kernel::Sizes sizes(DIM, 0, RANK);
  Line line;
  line.add("kind", kind_of<typename Kernel::T>(Kernel::Multiplication::tf32)).add("gates", Kernel::vectors);
  line.add("tile_rows", Kernel::Tile::rows).add("tile_columns", Kernel::Tile::columns);
  line.add("warps", Kernel::threads / 32).add("stages", Kernel::stages);
  line.add("dynamic_shared", Kernel::shared_bytes(sizes, true, Kernel::stages, Kernel::stages));
  line.add("least_shared", Kernel::shared_bytes(sizes, false, Kernel::stages, Kernel::stages));
}

template <typename Kernel>
void low_rank_forward_steps() {
  add_low_rank<Kernel>();
}

template <typename Kernel>
void low_rank_backward_steps() {
  add_low_rank<Kernel>();
}

template <typename T>
void low_rank_pack() {
  Line().add("kind", kind_of<T>()).add("warps", pack_threads / 32).add("dynamic_shared", 0);
}

template <typename A>
void sum_over_tiles() {
  Line().add("kind", kind_of<A>()).add("warps", sum_threads / 32).add("dynamic_shared", 0);
}

template <typename T>
void sum_over_tasks() {
  Line().add("kind", kind_of<T>()).add("warps", sum_threads / 32).add("dynamic_shared", 0);
}

template <typename Word>
void param_gather() {
  const std::string kind = std::to_string(sizeof(Word)) + " bytes";
  Line().add("kind", kind.c_str()).add("warps", gather_threads / 32).add("dynamic_shared", 0);
}

void invert_index() { Line().add("kind", "index").add("warps", invert_warps).add("dynamic_shared", invert_shared_bytes); }

template <typename From, typename To>
void param_gather_sum() {
  Line().add("kind", kind_of<To>()).add("from", kind_of<From>()).add("warps", sum_warps).add("dynamic_shared", 0);
}

}  // namespace shapes
