// Records the launches of problems of every size, up to those that no GPU's memory holds, and checks them against what each architecture
// starts: blocks, threads, shared memory, bytes of arguments. Runs no kernel. A problem may be refused only if it is larger than any
// memory.
#include <algorithm>
#include <cstdio>
#include <string>

#include "low_rank.h"
#include "machine.h"
#include "param_gather.h"

namespace {

using namespace dcrnn_fast::cuda;

struct Architecture {
  const char* name;
  Device device;
};
constexpr Architecture architectures[] = {
    {"sm_80", {108, 166912}}, {"sm_90", {132, 232448}}, {"sm_100", {148, 232448}}, {"sm_120", {170, 101376}}};
constexpr int64_t any_memory = int64_t{1} << 39;  // values of x0, a step's context or the weights

int64_t launches = 0, refused = 0, wrong = 0;
std::string problem;

void fail(const char* words, int64_t value) {
  if (++wrong <= 20) std::printf("WRONG %s: %s (%lld)\n", problem.c_str(), words, static_cast<long long>(value));
}

void record_for(const Device& device) {
  host::record = [shared = device.shared_memory](const host::Launch& launch) {
    ++launches;
    if (launch.x < 1 || launch.x > INT32_MAX) fail("blocks in x", launch.x);
    if (launch.y < 1 || launch.y > 65535) fail("blocks in y", launch.y);
    if (launch.threads > 1024) fail("threads", launch.threads);
    if (launch.shared_bytes > shared) fail("bytes of shared memory", launch.shared_bytes);
    if (launch.argument_bytes > 4096) fail("bytes of arguments", int64_t(launch.argument_bytes));
  };
}

void expect(cudaError_t error, bool may_refuse) {
  refused += error == cudaErrorInvalidConfiguration;
  if (error != cudaSuccess && !(may_refuse && error == cudaErrorInvalidConfiguration)) fail("refused", error);
}

// Memory that nobody reads or writes.
template <typename T>
T* somewhere() {
  return reinterpret_cast<T*>(uintptr_t{1} << 40);
}

template <typename T>
void check_cross_rnn(const Architecture& on, const char* math, bool tf32, int64_t batch, int dim, int columns, int tasks, int steps) {
  Problem<T> p{};
  p.x0 = p.context = p.shared_weight = p.shared_bias = p.private_weight = p.private_bias = somewhere<T>(), p.index = somewhere<int32_t>();
  p.batch = batch, p.dim = p.rows = dim, p.columns = columns, p.tasks = tasks, p.steps = steps, p.num_shared = dim, p.num_private = 1;
  p.tf32 = tf32, p.device = on.device;
  if (double(tasks) * (steps + 1) * double(batch) * 2 * dim >= double(int64_t{1} << 59)) return;  // refused before
  const bool may_refuse = batch * std::max(dim, columns) >= any_memory || double(dim) * (dim + columns) * tasks >= double(any_memory);
  for (const int gates : {1, 2})
    for (const Schedule schedule : {Schedule::automatic, Schedule::step, Schedule::all_steps})
      for (const Tiles tiles : {Tiles::automatic, Tiles::small, Tiles::large})
        for (const bool every_state : {false, true}) {
          p.gates = gates, p.schedule = schedule, p.tiles = tiles;
          const auto size = [](const char* letter, int64_t value) { return std::string(" ") + letter + std::to_string(value); };
          problem = on.name + std::string(" ") + math + size("B", batch) + size("D", dim) + size("C", columns) + size("T", tasks) +
                    size("L", steps) + size("G", gates) + size("schedule ", int(schedule)) + size("tiles ", int(tiles));
          T* const any = somewhere<T>();
          accumulator<T>* const wide = somewhere<accumulator<T>>();
          expect(forward(p, any, every_state, any, any, nullptr), may_refuse);
          expect(backward(p, any, every_state, any, {any, any, any, wide, wide}, any, columns ? any : nullptr, nullptr), may_refuse);
          const InverseIndex inverse = inverse_in(any, p.bank());
          expect(invert(p.bank(), any, nullptr), may_refuse);
          expect(sum_products(p.bank(), inverse, gates, p.weight_steps(), step_groups(p), columns + dim, any, any, any, nullptr),
                 may_refuse);
          expect(sum_tiles(p.bank(), inverse, gates, p.weight_steps(), steps, backward_row_tiles(p), wide, any, any, nullptr), may_refuse);
        }
}

template <typename T>
void check_low_rank(const Architecture& on, const char* math, bool tf32, int64_t batch, int dim, int columns, int tasks, int steps,
                    int rank) {
  LowRankProblem<T> p{};
  p.x0 = p.context = p.shared_weight = p.shared_bias = p.private_weight = p.private_bias = somewhere<T>();
  p.shared_projection = p.private_projection = somewhere<T>(), p.index = p.projection_index = somewhere<int32_t>();
  p.batch = batch, p.dim = dim, p.columns = columns, p.tasks = tasks, p.steps = steps, p.num_shared = dim, p.num_private = 1;
  p.rank = p.num_shared_projections = rank, p.num_private_projections = 1, p.tf32 = tf32, p.device = on.device;
  if (double(tasks) * (steps + 1) * double(batch) * 2 * std::max(dim, rank) >= double(int64_t{1} << 59)) return;  // refused before
  const double weights = double(dim + columns) * 2 * rank * tasks * steps;
  const bool may_refuse = batch * std::max(dim, columns) >= any_memory || weights >= double(any_memory);
  for (const int gates : {1, 2})
    for (const bool tied : {false, true})
      for (const Tiles tiles : {Tiles::automatic, Tiles::small, Tiles::large})
        for (const bool every_state : {false, true}) {
          p.gates = gates, p.rows = tied ? dim : dim * steps, p.tiles = tiles;
          const auto size = [](const char* letter, int64_t value) { return std::string(" ") + letter + std::to_string(value); };
          problem = on.name + std::string(" ") + math + size("B", batch) + size("D", dim) + size("C", columns) + size("T", tasks) +
                    size("L", steps) + size("G", gates) + size("rank ", rank) + size("tied ", tied) + size("tiles ", int(tiles));
          T* const any = somewhere<T>();
          accumulator<T>* const wide = somewhere<accumulator<T>>();
          expect(low_rank_forward(p, any, every_state, every_state ? any : nullptr, any, nullptr), may_refuse);
          const LowRankWorkspace<T> workspace{any, any, any, wide, columns ? wide : nullptr, wide, any};
          expect(low_rank_backward(p, any, every_state, any, every_state, workspace, any, any, nullptr), may_refuse);
          const InverseIndex inverse = inverse_in(any, p.projection_bank());
          expect(invert(p.projection_bank(), any, nullptr), may_refuse);
          expect(sum_products(p.bank(), inverse, gates, p.weight_steps(), p.weight_steps(), rank, any, any, any, nullptr), may_refuse);
          expect(sum_products(p.projection_bank(), inverse, gates, p.weight_steps(), step_groups(p), columns + dim, any, any, any, nullptr),
                 may_refuse);
          expect(sum_tiles(p.bank(), inverse, gates, p.weight_steps(), steps, low_rank_row_tiles(p), wide, any, any, nullptr), may_refuse);
        }
}

void check_low_rank(const Architecture& on, int64_t batch, int dim, int columns, int tasks, int steps, int rank) {
  check_low_rank<float>(on, "float32", false, batch, dim, columns, tasks, steps, rank);
  check_low_rank<float>(on, "tf32", true, batch, dim, columns, tasks, steps, rank);
  check_low_rank<double>(on, "float64", false, batch, dim, columns, tasks, steps, rank);
  check_low_rank<BFloat16>(on, "bfloat16", false, batch, dim, columns, tasks, steps, rank);
  check_low_rank<Half>(on, "float16", false, batch, dim, columns, tasks, steps, rank);
}

void check_cross_rnn(const Architecture& on, int64_t batch, int dim, int columns, int tasks, int steps) {
  check_cross_rnn<float>(on, "float32", false, batch, dim, columns, tasks, steps);
  check_cross_rnn<float>(on, "tf32", true, batch, dim, columns, tasks, steps);
  check_cross_rnn<double>(on, "float64", false, batch, dim, columns, tasks, steps);
  check_cross_rnn<BFloat16>(on, "bfloat16", false, batch, dim, columns, tasks, steps);
  check_cross_rnn<Half>(on, "float16", false, batch, dim, columns, tasks, steps);
}

// A bank has so many rows, or so long ones, that the sums need more blocks than a GPU starts: those alone are refused.
void check_param_gather(const Architecture& on, int64_t tasks, int64_t rows, int64_t num_shared, int64_t num_private, int64_t values) {
  const dcrnn_fast::BankIndex bank{somewhere<int32_t>(), tasks, rows, num_shared, num_private};
  problem = on.name + std::string(" param_gather T") + std::to_string(tasks) + " R" + std::to_string(rows) + " S" +
            std::to_string(num_shared) + " P" + std::to_string(num_private) + " values " + std::to_string(values);
  float* const any = somewhere<float>();
  expect(gather(bank, any, any, any, values * 4, 4, on.device, nullptr), false);
  const bool too_many = (num_shared + tasks * num_private) * ((values + 511) / 512) > INT32_MAX;
  const int64_t before = refused;
  expect(sum_rows(bank, any, any, any, any, values, nullptr), too_many);
  if (too_many && refused == before) fail("not refused", values);
}

}  // namespace

int main() {
  for (const Architecture& on : architectures) {
    record_for(on.device);
    for (const int64_t batch : {int64_t{1}, int64_t{127}, int64_t{8192}, int64_t{1} << 24, int64_t{INT32_MAX}})
      for (const int dim : {1, 33, 256, 512, 624, 8192})
        for (const int columns : {0, 8192})
          for (const int tasks : {1, 8, 65535})
            for (const int steps : {1, 3}) {
              check_cross_rnn(on, batch, dim, columns, tasks, steps);
              for (const int rank : {1, 16, 64, 1000}) check_low_rank(on, batch, dim, columns, tasks, steps, rank);
            }
    check_cross_rnn<BFloat16>(on, "bfloat16", false, 64, 256, 64, 2, 65535);
    check_cross_rnn<double>(on, "float64", false, 1, 256, 1 << 16, 1, 65535);  // more slices than 32 bits count
    for (const int64_t tasks : {1, 8, 1000})
      for (const int64_t num_shared : {0, 1000, 1 << 24})
        for (const int64_t num_private : {0, 1000, 1 << 24})
          for (const int64_t values : {1, 1248, 1 << 20}) check_param_gather(on, tasks, 10000, num_shared, num_private, values);
  }
  std::printf("%lld launches recorded, %lld problems refused, %lld wrong\n", static_cast<long long>(launches),
              static_cast<long long>(refused), static_cast<long long>(wrong));
  return wrong != 0 || refused == 0;
}
