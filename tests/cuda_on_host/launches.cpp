// Records the launches of calls of every size, up to those that no GPU's memory holds, and checks them against what each architecture
// starts: blocks, threads, shared memory, bytes of arguments. Runs no kernel. A call may be refused only if it is larger than any memory.
#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "cross_rnn.h"
#include "machine.h"
#include "param_gather.h"

namespace {

using namespace dcrnn_fast::cuda;

struct Architecture {
  const char* name;
  int multiprocessors, shared_memory;
};
constexpr Architecture architectures[] = {{"sm_80", 108, 166912}, {"sm_90", 132, 232448}, {"sm_100", 148, 232448}, {"sm_120", 170, 101376}};
constexpr int64_t any_memory = int64_t{1} << 39;  // values of x0, a step's context or the weights

int64_t launches = 0, refused = 0, wrong = 0;
std::string call;  // in words

void fail(const char* words, int64_t value) {
  if (++wrong <= 20) std::printf("WRONG %s: %s (%lld)\n", call.c_str(), words, static_cast<long long>(value));
}

// Only what is larger than any memory may be refused.
template <typename Launch>
void expect(bool may_refuse, const Launch& launch) {
  try {
    launch();
  } catch (const std::invalid_argument&) {
    ++refused;
    if (!may_refuse) fail("refused", 0);
  }
}

// Memory that nobody reads or writes.
template <typename T>
T* somewhere() {
  return reinterpret_cast<T*>(uintptr_t{1} << 40);
}

Gpu gpu_of(const Architecture& on) {
  const auto allocate = [](int64_t) { return std::shared_ptr<void>(somewhere<void>(), [](void*) {}); };
  return {on.multiprocessors, on.shared_memory, nullptr, allocate, [](const auto&, const auto&, const auto&) {}};
}

std::string size_of(const char* letter, int64_t value) { return std::string(" ") + letter + std::to_string(value); }

struct Sizes {
  int64_t batch;
  int dim, columns, tasks, steps, rank;  // 0 for the full cell
};

template <typename T>
void check(const Architecture& on, const char* math, bool tf32, const Sizes& s) {
  if (double(s.tasks) * (s.steps + 1) * double(s.batch) * 2 * std::max(s.dim, s.rank) >= double(int64_t{1} << 59))
    return;  // refused before
  T* const any = somewhere<T>();
  const LowRankGradientPointers<T> gradients{{any, s.columns ? any : nullptr, true, any, any, any, any}, true, any, any};
  for (const int gates : {1, 2})
    for (const int weight_steps : {1, s.steps})
      for (const Schedule schedule : {Schedule::automatic, Schedule::step, Schedule::all_steps})
        for (const Tiles tiles : {Tiles::automatic, Tiles::small, Tiles::large})
          for (const bool every_state : {false, true}) {
            if (s.rank && schedule != Schedule::automatic) continue;
            const auto bank = [&](int rows) { return BankRows<T>{{s.tasks, weight_steps, rows / 2, rows - rows / 2}, any, any}; };
            const LowRankCell<T> cell{
                {any, any, bank(s.dim), bank(s.dim), s.batch, s.dim, s.columns, gates, s.steps, tf32, gpu_of(on), schedule, tiles},
                bank(s.rank)};
            call = on.name + std::string(" ") + math + size_of("B", s.batch) + size_of("D", s.dim) + size_of("C", s.columns) +
                   size_of("T", s.tasks) + size_of("L", s.steps) + size_of("G", gates) + size_of("rank ", s.rank) +
                   size_of("W", weight_steps) + size_of("schedule ", int(schedule)) + size_of("tiles ", int(tiles));
            const double weights = double(s.dim + s.columns) * gates * (s.rank ? s.rank : s.dim) * s.tasks * weight_steps;
            const bool may_refuse = s.batch * std::max(s.dim, s.columns) >= any_memory || weights >= double(any_memory);
            T* const activations = every_state ? any : nullptr;
            const auto run = [&](const auto& some, const auto& some_gradients) {
              expect(may_refuse, [&] { forward<T>(some, any, every_state, activations); });
              expect(may_refuse, [&] { backward<T>(some, any, every_state, activations, some_gradients); });
            };
            s.rank ? run(cell, gradients) : run(static_cast<const Cell<T>&>(cell), static_cast<const GradientPointers<T>&>(gradients));
          }
}

// A bank has so many rows, or so long ones, that the sums need more blocks than a GPU starts: those alone are refused.
void check_param_gather(const Architecture& on, int64_t tasks, int64_t num_shared, int64_t num_private, int64_t values) {
  const RowIndex index{somewhere<int32_t>(), 10000, {tasks, 1, num_shared, num_private}};
  call = on.name + size_of("param_gather T", tasks) + size_of("S", num_shared) + size_of("P", num_private) + size_of("values ", values);
  float* const any = somewhere<float>();
  const bool too_many = (num_shared + tasks * num_private) * ((values + 511) / 512) > INT32_MAX;
  const int64_t before = refused;
  expect(too_many, [&] { sum_rows(index, any, any, any, values, gpu_of(on)); });
  if (too_many != (refused > before)) fail("not refused", values);
  expect(false, [&] { gather(index, any, any, any, values * 4, gpu_of(on)); });
}

}  // namespace

int main() {
  for (const Architecture& on : architectures) {
    host::record = [&](const host::Launch& launch) {
      ++launches;
      if (launch.x < 1 || launch.x > INT32_MAX || launch.y < 1 || launch.y > 65535) fail("blocks", launch.x);
      if (launch.threads > 1024) fail("threads", launch.threads);
      if (launch.shared_bytes > on.shared_memory) fail("bytes of shared memory", launch.shared_bytes);
      if (launch.argument_bytes > 4096) fail("bytes of arguments", int64_t(launch.argument_bytes));
    };
    for (const int64_t batch : {int64_t{1}, int64_t{127}, int64_t{8192}, int64_t{1} << 24, int64_t{INT32_MAX}})
      for (const int dim : {1, 33, 256, 512, 624, 8192})
        for (const int columns : {0, 8192})
          for (const int tasks : {1, 8, 65535})
            for (const int steps : {1, 3})
              for (const int rank : {0, 1, 16, 64, 1000}) {
                const Sizes sizes{batch, dim, columns, tasks, steps, rank};
                check<float>(on, "float32", false, sizes), check<float>(on, "tf32", true, sizes),
                    check<double>(on, "float64", false, sizes);
                check<BFloat16>(on, "bfloat16", false, sizes), check<Half>(on, "float16", false, sizes);
              }
    check<BFloat16>(on, "bfloat16", false, {64, 256, 64, 2, 65535, 0});
    check<double>(on, "float64", false, {1, 256, 1 << 16, 1, 65535, 0});  // more slices than 32 bits count
    for (const int64_t tasks : {1, 8, 1000})
      for (const int64_t num_shared : {0, 1000, 1 << 24})
        for (const int64_t num_private : {0, 1000, 1 << 24})
          for (const int64_t values : {1, 1248, 1 << 20}) check_param_gather(on, tasks, num_shared, num_private, values);
  }
  std::printf("%lld launches recorded, %lld calls refused, %lld wrong\n", static_cast<long long>(launches), static_cast<long long>(refused),
              static_cast<long long>(wrong));
  return wrong != 0 || refused == 0;
}
