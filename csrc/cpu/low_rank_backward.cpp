// cross_rnn's backward with a projection, on the CPU: the threads walk through their tiles (low_rank_walk.h), and the threads' sums of the
// weights' gradients are added up in a fixed order.
#include "low_rank_backward.h"

#include <memory>

#include "low_rank_walk.h"

namespace dcrnn_fast::cpu {
namespace {

// The threads' sums have so many bytes at most; where they would have more, fewer threads work.
constexpr int64_t most_bytes = int64_t{1} << 30;

// So many of a row's values lie one after another in the sums, from `offset` on.
struct Segment {
  int64_t offset, count;
};

// Adds up the threads' sums, and then the places that read a row of a bank. start(place, g) is where the sums of a place begin.
template <typename T, typename Start>
void add_up(const BankIndex& bank, const std::vector<const accumulator<T>*>& sums, int64_t gates, const std::vector<Segment>& segments,
            const Start& start, T* shared, T* own) {
  using A = accumulator<T>;
  int64_t each = 0;
  for (const Segment& segment : segments) each += segment.count;
  const int64_t places = bank.tasks * bank.rows;
  const Buffer<A> total(places * gates * each);
  torch::stable::parallel_for(0, places, grain(gates * each), [&](int64_t begin, int64_t end) {
    A* to = total.get() + begin * gates * each;
    for (int64_t place = begin; place < end; ++place)
      for (int64_t g = 0; g < gates; ++g)
        for (const Segment& segment : segments) {
          const int64_t from = start(place, g) + segment.offset;
          std::copy_n(sums[0] + from, segment.count, to);
          for (size_t s = 1; s < sums.size(); ++s)
            for (int64_t i = 0; i < segment.count; ++i) to[i] += sums[s][from + i];
          to += segment.count;
        }
  });
  reduce_rows(bank, Readers(bank), total.get(), shared, own, gates * each);
}

template <typename T, typename O>
void backward(const LowRankProblem<T, O>& p, const T* grad, const T* activations, bool return_states, const LowRankGradients<T>& out) {
  using A = accumulator<T>;
  const LowRankTiles tiles(p.batch, LowRankWalk<T, O>::row_bytes(p));
  std::vector<std::unique_ptr<LowRankSums<T, O>>> sums;
  sums.push_back(std::make_unique<LowRankSums<T, O>>(p, out.banks, out.projections));
  const int64_t fit = most_bytes / std::max<int64_t>(1, sums[0]->size() * sizeof(A));
  const int64_t shares = std::max<int64_t>(1, std::min({int64_t{torch::stable::get_num_threads()}, tiles.count, fit}));
  while (static_cast<int64_t>(sums.size()) < shares) sums.push_back(std::make_unique<LowRankSums<T, O>>(p, out.banks, out.projections));
  torch::stable::parallel_for(0, shares, 1, [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share) {
      LowRankWalk<T, O> walk(p, *sums[share], tiles.most_rows(), grad, return_states, activations, out.x0, out.context);
      const int64_t first = tiles.count * share / shares, last = tiles.count * (share + 1) / shares;
      for (int64_t i = first; i < last && !p.interruption.came(); ++i) walk.run(tiles.begin(i), tiles.begin(i + 1) - tiles.begin(i));
    }
  });
  p.interruption.raise();
  const auto of_threads = [&](A* (LowRankSums<T, O>::*part)() const) {
    std::vector<const A*> found;
    for (const auto& one : sums) found.push_back(((*one).*part)());
    return found;
  };
  if (out.banks) {
    add_up<T>(
        p.bank, of_threads(&LowRankSums<T, O>::weight), p.gates, {{0, p.rank}},
        [&](int64_t place, int64_t g) { return (place * p.gates + g) * p.rank_plane; }, out.shared_weight, out.private_weight);
    add_up<T>(
        p.bank, of_threads(&LowRankSums<T, O>::bias), p.gates, {{0, 1}},
        [&](int64_t place, int64_t g) { return (place / p.dim * p.gates + g) * p.plane + place % p.dim; }, out.shared_bias,
        out.private_bias);
  }
  if (out.projections) {
    BankIndex bank = p.projection_bank;
    if (p.common) {  // the sums are of all tasks, and no task reads a row of its own
      std::fill_n(out.private_projection, bank.tasks * bank.num_private * p.gates * (p.context + p.dim), T(0.f));
      bank.tasks = 1;
    }
    add_up<T>(
        bank, of_threads(&LowRankSums<T, O>::projection), p.gates, {{0, p.context}, {p.context_plane, p.dim}},
        [&](int64_t place, int64_t g) { return (place * p.gates + g) * p.input_plane(); }, out.shared_projection, out.private_projection);
  }
}

}  // namespace

template <typename T>
void low_rank_backward(const Arguments& arguments, const T* grad, const T* activations, bool return_states,
                       const LowRankGradients<T>& out) {
  with_operands<T>([&](auto zero) { backward(LowRankProblem<T, decltype(zero)>(arguments, true), grad, activations, return_states, out); });
}

template void low_rank_backward(const Arguments&, const float*, const float*, bool, const LowRankGradients<float>&);
template void low_rank_backward(const Arguments&, const double*, const double*, bool, const LowRankGradients<double>&);
template void low_rank_backward(const Arguments&, const BFloat16*, const BFloat16*, bool, const LowRankGradients<BFloat16>&);
template void low_rank_backward(const Arguments&, const Half*, const Half*, bool, const LowRankGradients<Half>&);

}  // namespace dcrnn_fast::cpu
