// low_rank_cross_rnn's backward on the CPU: the threads walk through their tiles (low_rank_walk.h), and the threads' sums of the
// weights' gradients are added up in a fixed order.
#include <torch/csrc/stable/library.h>

#include <memory>

#include "low_rank_walk.h"
#include "results.h"

namespace dcrnn_fast::cpu {
namespace {

// Which gradients are wanted, and where they go. x0 and context are null where they are not wanted.
template <typename T>
struct Destinations {
  bool weights, projections;
  T *x0, *context, *shared_weight, *shared_bias, *private_weight, *private_bias, *shared_projection, *private_projection;
};

// The threads' sums have so many bytes at most; where they would have more, fewer threads work.
constexpr int64_t most_bytes = int64_t{1} << 30;
// A thread sums so many tiles apart from those before: the rounding error of one long chain of additions would grow with the batch.
constexpr int64_t few_tiles = 4;

// So many of a row's values lie one after another in the sums, from `offset` on.
struct Segment {
  int64_t offset, count;
};

// Adds up the threads' sums, and of a shared row those of all tasks. start(task, step, row, g) is where the sums of a row's vector begin,
// whose values lie `stride` apart.
template <typename T, typename Sum, typename Start>
void add_up(const Banks& banks, const std::vector<const Sum*>& sums, int64_t gates, const std::vector<Segment>& segments,
            const Start& start, int64_t stride, T* shared, T* own) {
  int64_t each = 0;
  for (const Segment& segment : segments) each += segment.count;
  const int64_t of_shared = banks.weight_steps * banks.shared, of_own = banks.tasks * banks.weight_steps * banks.own;
  parallel_for(0, of_shared + of_own, grain(gates * each), [&](int64_t begin, int64_t end) {
    const Buffer<Sum> total(each);
    for (int64_t i = begin; i < end; ++i) {
      const bool all = i < of_shared;                                              // whether the row is every task's
      const int64_t block = all ? i / banks.shared : (i - of_shared) / banks.own;  // a step, or a task's step
      const int64_t row = all ? i % banks.shared : banks.shared + (i - of_shared) % banks.own, step = block % banks.weight_steps;
      const int64_t first = all ? 0 : block / banks.weight_steps, last = all ? banks.tasks : first + 1;
      for (int64_t g = 0; g < gates; ++g) {
        std::fill_n(total.get(), each, Sum(0));
        for (int64_t task = first; task < last; ++task)
          for (const Sum* const of_thread : sums) {
            Sum* to = total.get();
            for (const Segment& segment : segments) {
              const Sum* const from = of_thread + start(task, step, row, g) + segment.offset;
              for (int64_t n = 0; n < segment.count; ++n) to[n] += from[n * stride];
              to += segment.count;
            }
          }
        T* const to = all ? shared + (i * gates + g) * each : own + ((i - of_shared) * gates + g) * each;
        for (int64_t n = 0; n < each; ++n) to[n] = T(total.get()[n]);
      }
    }
  });
}

template <typename T, typename O>
void backward(const LowRankRecurrence<T, O>& p, const T* grad, const T* activations, bool return_states, const Destinations<T>& out) {
  const LowRankTiles tiles(p.batch, LowRankWalk<T, O>::row_bytes(p), whole_rows<O>());
  std::vector<std::unique_ptr<LowRankSums<T, O>>> sums;
  sums.push_back(std::make_unique<LowRankSums<T, O>>(p, out.weights, out.projections));
  const int64_t bytes = (tiles.count > few_tiles ? 2 : 1) * sums[0]->bytes();
  const int64_t fit = most_bytes / std::max<int64_t>(1, bytes);
  const int64_t shares = std::max<int64_t>(1, std::min({int64_t{torch::stable::get_num_threads()}, tiles.count, fit}));
  while (static_cast<int64_t>(sums.size()) < shares) sums.push_back(std::make_unique<LowRankSums<T, O>>(p, out.weights, out.projections));
  parallel_for(0, shares, 1, [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share) {
      const int64_t first = tiles.count * share / shares, last = tiles.count * (share + 1) / shares;
      const bool apart = last - first > few_tiles;
      LowRankSums<T, O> few(p, apart && out.weights, apart && out.projections);
      LowRankWalk<T, O> walk(p, apart ? few : *sums[share], tiles.most_rows(), grad, return_states, activations, out.x0, out.context);
      for (int64_t i = first; i < last; ++i) {
        walk.run(tiles.begin(i), tiles.begin(i + 1) - tiles.begin(i));
        if (apart && ((i - first) % few_tiles == few_tiles - 1 || i + 1 == last)) few.move_to(*sums[share]);
      }
    }
  });
  const auto of_threads = [&]<typename Sum>(Sum* (LowRankSums<T, O>::*part)() const) {
    std::vector<const Sum*> found;
    for (const auto& one : sums) found.push_back(((*one).*part)());
    return found;
  };
  if (out.weights) {
    add_up<T>(
        p.banks, of_threads(&LowRankSums<T, O>::weight), p.gates, {{0, p.rank}},
        [&](int64_t task, int64_t step, int64_t unit, int64_t g) { return (p.block(task, step) * p.gates + g) * p.rank * p.plane + unit; },
        p.plane, out.shared_weight, out.private_weight);
    add_up<T>(
        p.banks, of_threads(&LowRankSums<T, O>::bias), p.gates, {{0, 1}},
        [&](int64_t task, int64_t step, int64_t unit, int64_t g) { return (p.block(task, step) * p.gates + g) * p.plane + unit; }, 1,
        out.shared_bias, out.private_bias);
  }
  if (out.projections) {
    Banks banks = p.projection_banks;
    banks.tasks = p.projections;  // if all tasks have one, the sums are of all tasks
    add_up<T>(
        banks, of_threads(&LowRankSums<T, O>::projection), p.gates, {{0, p.context}, {p.context_plane, p.dim}},
        [&](int64_t task, int64_t step, int64_t row, int64_t g) {
          return ((p.projection_block(task, step) * p.rank + row) * p.gates + g) * p.input_plane();
        },
        1, out.shared_projection, out.private_projection);
  }
}

template <typename T>
LowRankGradients gradients(const LowRankArguments& a, const Tensor& grad, const Tensor& activations, int64_t grad_mask) {
  const bool has_work = a.batch() && a.tasks(), weights = grad_mask & grad_weights, projections = grad_mask & grad_projections;
  const auto gradient = [&](const Tensor& input, bool wanted) { return new_gradient(a.x0, wanted, has_work, with_trailing({}, input, 0)); };
  const LowRankGradients out{gradient(a.x0, grad_mask & grad_x0),
                             gradient(a.shared_weight, weights),
                             gradient(a.shared_bias, weights),
                             gradient(a.private_weight, weights),
                             gradient(a.private_bias, weights),
                             new_gradient(a.x0, grad_mask & grad_context, has_work, {a.steps, a.batch(), a.context_columns()}),
                             gradient(a.shared_projection, projections),
                             gradient(a.private_projection, projections)};
  if (!has_work) return out;
  const auto data = [](const Tensor& tensor, bool wanted) { return wanted ? static_cast<T*>(tensor.mutable_data_ptr()) : nullptr; };
  const auto& [x0, shared_weight, shared_bias, private_weight, private_bias, context, shared_projection, private_projection] = out;
  const Destinations<T> to{weights,
                           projections,
                           data(x0, grad_mask & grad_x0),
                           data(context, (grad_mask & grad_context) && a.context),
                           data(shared_weight, weights),
                           data(shared_bias, weights),
                           data(private_weight, weights),
                           data(private_bias, weights),
                           data(shared_projection, projections),
                           data(private_projection, projections)};
  with_operands<T>([&](auto operand) {
    backward(LowRankRecurrence<T, decltype(operand)>(a, true), static_cast<const T*>(grad.const_data_ptr()),
             activations.numel() ? static_cast<const T*>(activations.const_data_ptr()) : nullptr, a.return_states, to);
  });
  return out;
}

LowRankGradients run(LowRankArguments& arguments, const Tensor& grad, const Tensor& activations, int64_t grad_mask) {
  arguments.prepare();
  arguments.check_backward(grad, activations, grad_mask);
  return with_type<BFloat16, Half>(arguments.x0, "x0", [&](auto zero) {
    return gradients<decltype(zero)>(arguments, dense(grad, "grad"), dense(activations, "activations"), grad_mask);
  });
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) {
  m.impl("low_rank_cross_rnn_backward", TORCH_BOX(&dcrnn_fast::low_rank_cross_rnn_backward<&dcrnn_fast::cpu::run>));
}
