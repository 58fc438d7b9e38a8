// Checks of the low-rank cell's kernels.
#pragma once

#include "low_rank.h"
#include "low_rank_reference.h"
#include "report.h"

namespace {

// A choice of tiles, and of the shared memory that a block may ask for: with little the pipeline has two stages, with none no operand stays
// on the chip.
struct LowRankKernels {
  const char* name;
  Tiles tiles;
  int shared_memory;
};

constexpr LowRankKernels every_low_rank_kernel[] = {{"small tiles", Tiles::small, 232448},
                                                    {"large tiles", Tiles::large, 232448},
                                                    {"two stages", Tiles::small, 65536},
                                                    {"through memory", Tiles::small, 0}};

// One problem in one dtype: the inputs of the launches, and the results by the first choice of kernels.
template <typename T>
class LowRankRunner {
  using A = accumulator<T>;

 public:
  LowRankRunner(const LowRankInputs& in, const LowRankReference& reference, bool tf32, double allowed)
      : s_(in.s), reference_(reference), allowed_(allowed), index_(in.index), projection_index_(in.projection_index) {
    const int64_t weights = int64_t(s_.num_shared()) * s_.gates() * s_.rank, biases = int64_t(s_.num_shared()) * s_.gates();
    const int64_t projections = int64_t(s_.num_shared_projections()) * s_.gates() * s_.width();
    x0_ = typed<T>(in.x0), context_ = typed<T>(in.context), grad_ = typed<T>(in.grad);
    if (s_.shifted) x0_.insert(x0_.begin(), T{});
    shared_weight_ = typed<T>(in.weight, 0, weights), private_weight_ = typed<T>(in.weight, weights);
    shared_bias_ = typed<T>(in.bias, 0, biases), private_bias_ = typed<T>(in.bias, biases);
    shared_projection_ = typed<T>(in.projection, 0, projections), private_projection_ = typed<T>(in.projection, projections);
    p_.x0 = x0_.data() + s_.shifted, p_.context = s_.columns ? context_.data() : nullptr;
    p_.index = index_.data(), p_.projection_index = projection_index_.data();
    p_.shared_weight = shared_weight_.data(), p_.private_weight = private_weight_.data();
    p_.shared_bias = shared_bias_.data(), p_.private_bias = private_bias_.data();
    p_.shared_projection = shared_projection_.data(), p_.private_projection = private_projection_.data();
    p_.batch = s_.batch, p_.tasks = s_.tasks, p_.dim = s_.dim, p_.columns = s_.columns, p_.gates = s_.gates(), p_.steps = s_.steps;
    p_.rows = s_.rows(), p_.num_shared = s_.num_shared(), p_.num_private = s_.num_private(), p_.rank = s_.rank;
    p_.num_shared_projections = s_.num_shared_projections(), p_.num_private_projections = s_.num_private_projections();
    p_.tf32 = tf32;
  }

  Verdict run(const LowRankKernels& kernels) {
    Verdict verdict{allowed_};
    choose(kernels);
    auto activations = poisoned<T>(s_.tasks * s_.steps * s_.ranks());
    const std::vector<T> out = run_forward(activations.data(), verdict), alone = run_forward(nullptr, verdict);
    verdict.compare("out", reference_.result(), out);
    verdict.compare("activations", reference_.activations, activations);
    verdict.same_bits("out without activations", out, alone);
    if (first_out_.empty()) first_out_ = out, first_activations_ = activations;
    verdict.same_bits("out's bits", first_out_, out);
    verdict.same_bits("the activations' bits", first_activations_, activations);
    run_backward(activations, verdict);
    return verdict;
  }

  // An index out of range makes its unit NaN, or its column of z and y, and leaves the others alone. For problems of one task and step.
  Verdict run_stray(const LowRankKernels& kernels) {
    Verdict verdict{allowed_};
    choose(kernels);
    const auto is_nan = [](const T& x) { return widen(x) != widen(x); };
    auto activations = poisoned<T>(s_.ranks());
    const std::vector<T> clean = run_forward(activations.data(), verdict), kept = activations;
    const int32_t index = std::exchange(index_[s_.dim - 1], s_.num_shared() + s_.num_private());
    const std::vector<T> out = run_forward(nullptr, verdict);
    for (size_t i = 0; i < out.size(); ++i) {
      const bool stray = int(i) % s_.dim == s_.dim - 1;
      if (stray ? !is_nan(out[i]) : std::memcmp(&out[i], &clean[i], sizeof(T)) != 0) verdict.add("a unit", INFINITY);
    }
    index_[s_.dim - 1] = index;
    const int32_t place = std::exchange(projection_index_[0], -1);
    std::fill(activations.begin(), activations.end(), T{});
    run_forward(activations.data(), verdict);
    for (size_t i = 0; i < activations.size(); ++i)
      if (int(i) % s_.rank == 0 ? !is_nan(activations[i]) : std::memcmp(&activations[i], &kept[i], sizeof(T)) != 0)
        verdict.add("a column of z or y", INFINITY);
    projection_index_[0] = place;
    return verdict;
  }

 private:
  void choose(const LowRankKernels& kernels) { p_.tiles = kernels.tiles, p_.device = {132, kernels.shared_memory}; }

  std::vector<T> run_forward(T* activations, Verdict& verdict) {
    auto out = poisoned<T>(s_.tasks * (s_.every_state ? s_.steps + 1 : 1) * s_.states());
    auto scratch = poisoned<double>(low_rank_forward_bytes(p_, activations != nullptr) / 8 + 1);
    verdict.check(low_rank_forward(p_, out.data(), s_.every_state, activations, scratch.data(), nullptr));
    return out;
  }

  struct Memory {
    Memory(const LowRankProblem<T>& p, const LowRankShape& s, bool kept, bool all)
        : states(poisoned<T>(s.tasks * (s.steps - 1) * s.states())),
          gradients(poisoned<T>(s.tasks * s.steps * s.gates() * s.states())),
          rank_gradients(poisoned<T>(s.tasks * s.steps * s.ranks())),
          dx0_sums(poisoned<A>(all ? s.tasks * s.states() : 0)),
          dcontext_sums(poisoned<A>(all ? int64_t(s.tasks) * s.steps * s.batch * s.columns : 0)),
          sums(poisoned<A>(int64_t(s.tasks) * s.steps * low_rank_row_tiles(p) * s.gates() * s.dim)),
          scratch(poisoned<double>(low_rank_backward_bytes(p, kept) / 8 + 1)) {}

    LowRankWorkspace<T> workspace() {
      const auto wanted = [](std::vector<A>& values) { return values.empty() ? nullptr : values.data(); };
      return {states.data(), gradients.data(), rank_gradients.data(), wanted(dx0_sums), wanted(dcontext_sums), sums.data(), scratch.data()};
    }

    std::vector<T> states, gradients, rank_gradients;
    std::vector<A> dx0_sums, dcontext_sums, sums;
    std::vector<double> scratch;
  };

  void run_backward(const std::vector<T>& kept, Verdict& verdict) {
    auto activations = kept, dx0 = poisoned<T>(s_.states()), dcontext = poisoned<T>(context_.size());
    Memory m(p_, s_, true, true);
    verdict.check(
        low_rank_backward(p_, grad_.data(), s_.every_state, activations.data(), true, m.workspace(), dx0.data(), dcontext.data(), nullptr));
    verdict.compare("dx0", reference_.dx0, dx0);
    verdict.compare("dcontext", reference_.dcontext, dcontext);
    // z and y are computed again, and nobody asks for dx0 or dcontext: the same bits
    activations = poisoned<T>(kept.size());
    Memory other(p_, s_, false, false);
    verdict.check(
        low_rank_backward<T>(p_, grad_.data(), s_.every_state, activations.data(), false, other.workspace(), nullptr, nullptr, nullptr));
    verdict.same_bits("z|y computed again", kept, activations);
    verdict.same_bits("the states with z|y", m.states, other.states);
    verdict.same_bits("da|dq without dx0", m.gradients, other.gradients);
    verdict.same_bits("dz|dy without dx0", m.rank_gradients, other.rank_gradients);

    std::vector<uint32_t> memory(inverse_values(p_.bank()));
    InverseIndex inverse = inverse_in(memory.data(), p_.bank());
    verdict.check(invert(p_.bank(), memory.data(), nullptr));
    auto dshared = poisoned<T>(shared_weight_.size()), dprivate = poisoned<T>(private_weight_.size());
    const std::vector<T> products = rank_products(m.gradients, kept);
    verdict.check(sum_products(p_.bank(), inverse, p_.gates, p_.weight_steps(), p_.weight_steps(), p_.rank, products.data(), dshared.data(),
                               dprivate.data(), nullptr));
    verdict.compare("dweight", reference_.dweight, joined(dshared, dprivate));
    dshared = poisoned<T>(shared_bias_.size()), dprivate = poisoned<T>(private_bias_.size());
    verdict.check(sum_tiles(p_.bank(), inverse, p_.gates, p_.weight_steps(), p_.steps, low_rank_row_tiles(p_), m.sums.data(),
                            dshared.data(), dprivate.data(), nullptr));
    verdict.compare("dbias", reference_.dbias, joined(dshared, dprivate));
    memory.resize(inverse_values(p_.projection_bank()));
    inverse = inverse_in(memory.data(), p_.projection_bank());
    verdict.check(invert(p_.projection_bank(), memory.data(), nullptr));
    dshared = poisoned<T>(shared_projection_.size()), dprivate = poisoned<T>(private_projection_.size());
    const std::vector<T> inputs = input_products(m.rank_gradients, m.states);
    verdict.check(sum_products(p_.projection_bank(), inverse, p_.gates, p_.weight_steps(), step_groups(p_), s_.width(), inputs.data(),
                               dshared.data(), dprivate.data(), nullptr));
    verdict.compare("dprojection", reference_.dprojection, joined(dshared, dprivate));
  }

  // The matrix products that a library computes on a GPU: the sums over rows and a group's steps of left [T, L, B, G, lefts] times
  // right(task, step, row, gate, k), as [groups, T, G, lefts, rights].
  template <typename Right>
  std::vector<T> products(const std::vector<T>& left, int lefts, int rights, int groups, const Right& right) const {
    auto out = poisoned<T>(int64_t(groups) * s_.tasks * s_.gates() * lefts * rights);
    auto next = out.begin();
    for (int group = 0; group < groups; ++group)
      for (int task = 0; task < s_.tasks; ++task)
        for (int vector = 0; vector < s_.gates() * lefts; ++vector)
          for (int k = 0; k < rights; ++k) {
            A sum = 0;
            for (int step = group; step < (group == groups - 1 ? s_.steps : group + 1); ++step)
              for (int row = 0; row < s_.batch; ++row) {
                const int64_t at = ((int64_t(task) * s_.steps + step) * s_.batch + row) * s_.gates() * lefts + vector;
                sum += widen(left[at]) * widen(right(task, step, row, vector / lefts, k));
              }
            round_to(*next++, sum);
          }
    return out;
  }

  std::vector<T> rank_products(const std::vector<T>& gradients, const std::vector<T>& activations) const {
    return products(gradients, s_.dim, s_.rank, p_.weight_steps(), [&](int task, int step, int row, int gate, int k) {
      return activations[(((int64_t(task) * s_.steps + step) * s_.batch + row) * s_.gates() + gate) * s_.rank + k];
    });
  }

  std::vector<T> input_products(const std::vector<T>& gradients, const std::vector<T>& states) const {
    return products(gradients, s_.rank, s_.width(), step_groups(p_), [&](int task, int step, int row, int, int k) {
      if (k < s_.columns) return context_[(int64_t(step) * s_.batch + row) * s_.columns + k];
      if (step == 0) return p_.x0[int64_t(row) * s_.dim + k - s_.columns];
      return states[((int64_t(task) * (s_.steps - 1) + step - 1) * s_.batch + row) * s_.dim + k - s_.columns];
    });
  }

  const LowRankShape s_;
  const LowRankReference& reference_;
  const double allowed_;
  LowRankProblem<T> p_{};
  std::vector<int32_t> index_, projection_index_;
  std::vector<T> x0_, context_, grad_, shared_weight_, private_weight_, shared_bias_, private_bias_, shared_projection_,
      private_projection_, first_out_, first_activations_;
};

void check_low_rank_reference(Report& report) {
  using In = LowRankInputs;
  using R = LowRankReference;
  check_gradients<In, R>(report, "low rank reference: its gradients against differences",
                         [](const Shape& shape) { return LowRankShape{shape, 3}; },
                         {{"x0", &In::x0, &R::dx0},
                          {"context", &In::context, &R::dcontext},
                          {"weight", &In::weight, &R::dweight},
                          {"bias", &In::bias, &R::dbias},
                          {"projection", &In::projection, &R::dprojection}});
}

// From `level` on, or that of the shape.
template <typename T>
void check_low_rank(Report& report, Level level, const LowRankShape& shape, const char* math, double allowed, bool tf32 = false) {
  const auto name_of = [&](const LowRankKernels& kernels) { return std::string(math) + " " + shape.name() + " " + kernels.name; };
  const auto wanted = [&](const LowRankKernels& kernels) { return report.wanted(std::max(level, shape.level), name_of(kernels)); };
  if (std::none_of(std::begin(every_low_rank_kernel), std::end(every_low_rank_kernel), wanted)) return;
  const LowRankInputs in(shape);
  const LowRankReference reference(in);
  LowRankRunner<T> runner(in, reference, tf32, allowed);
  for (const LowRankKernels& kernels : every_low_rank_kernel)
    if (wanted(kernels)) report.add(name_of(kernels), runner.run(kernels));
}

template <typename T>
void check_low_rank_stray(Report& report, const char* math, double allowed) {
  const LowRankInputs in({{Level::brief, 3, 9, 0, 1, 1, false, true, false}, 3});
  const LowRankReference reference(in);
  LowRankRunner<T> runner(in, reference, false, allowed);
  for (const LowRankKernels& kernels : every_low_rank_kernel) {
    const std::string name = std::string(math) + " " + in.s.name() + " " + kernels.name + ", indices out of range";
    if (report.wanted(in.s.level, name)) report.add(name, runner.run_stray(kernels));
  }
}

// Ranks that share a tile with the gate's, that fill one alone, and that fill several; widths as in main.cpp's shapes.
// clang-format off
const LowRankShape low_rank_shapes[] = {
    {{Level::tiny, 3, 40, 24, 1, 2, false, true, true}, 8},
    {{Level::brief, 5, 37, 3, 2, 2, true, true, true}, 33},
    {{Level::brief, 18, 72, 0, 1, 2, false, false, false}, 72},
    {{Level::brief, 3, 16, 0, 1, 1, false, true, false, true, true}, 16},
    {{Level::all, 130, 72, 16, 1, 2, false, true, false}, 16},
    {{Level::all, 5, 71, 67, 3, 3, true, false, true}, 40},
    {{Level::all, 1, 1, 1, 1, 1, false, true, false}, 1},
};
// clang-format on

void check_low_rank(Report& report, double of_float, double of_tf32, double of_double, double of_bfloat16, double of_float16) {
  check_low_rank_reference(report);
  for (const LowRankShape& shape : low_rank_shapes) {
    check_low_rank<BFloat16>(report, Level::tiny, shape, "bfloat16", of_bfloat16);
    check_low_rank<double>(report, Level::brief, shape, "float64", of_double);
    check_low_rank<float>(report, Level::brief, shape, "tf32", of_tf32, true);
    check_low_rank<float>(report, Level::all, shape, "float32", of_float);
    check_low_rank<Half>(report, Level::all, shape, "float16", of_float16);
  }
  check_low_rank_stray<float>(report, "float32", of_float);
  check_low_rank_stray<BFloat16>(report, "bfloat16", of_bfloat16);
}

}  // namespace
