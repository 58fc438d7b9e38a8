// Runs the kernels on the CPU from C++, without PyTorch, and compares them with a reference in double. Sanitizers can watch this program.
//
//     cuda_on_host [all | short | tiny] [words that a case's name must contain]
//
// Prints every case with its largest error. The exit code is 1 if a case is wrong.
#include <csignal>
#include <cstdlib>

#include "cross_rnn.h"
#include "gather_checks.h"
#include "low_rank_checks.h"
#include "schedule.h"

namespace {

using namespace dcrnn_fast::cuda;

struct Kernels {
  const char* name;
  Schedule schedule;
  Tiles tiles;
};

constexpr Kernels every_kernel[] = {{"small tiles", Schedule::step, Tiles::small},
                                    {"large tiles", Schedule::step, Tiles::large},
                                    {"all steps", Schedule::all_steps, Tiles::small}};
constexpr Device device{132, 232448};

// One problem in one dtype: the inputs of the launches, and the forward's results by the first choice of kernels.
template <typename T>
class Runner {
  using A = accumulator<T>;

 public:
  Runner(const Inputs& in, const Reference& reference, bool tf32, double allowed)
      : s_(in.s), in_(in), reference_(reference), allowed_(allowed), index_(in.index), context_(typed<T>(in.context)) {
    const int64_t weights = int64_t(s_.num_shared()) * s_.gates() * s_.width(), biases = int64_t(s_.num_shared()) * s_.gates();
    x0_ = typed<T>(in.x0);
    if (s_.shifted) x0_.insert(x0_.begin(), T{});
    shared_weight_ = typed<T>(in.weight, 0, weights), private_weight_ = typed<T>(in.weight, weights);
    shared_bias_ = typed<T>(in.bias, 0, biases), private_bias_ = typed<T>(in.bias, biases);
    p_.x0 = x0_.data() + s_.shifted, p_.context = s_.columns ? context_.data() : nullptr, p_.index = index_.data();
    p_.shared_weight = shared_weight_.data(), p_.private_weight = private_weight_.data();
    p_.shared_bias = shared_bias_.data(), p_.private_bias = private_bias_.data();
    p_.batch = s_.batch, p_.tasks = s_.tasks, p_.dim = s_.dim, p_.columns = s_.columns, p_.gates = s_.gates(), p_.steps = s_.steps;
    p_.rows = s_.rows(), p_.num_shared = s_.num_shared(), p_.num_private = s_.num_private();
    p_.tf32 = tf32, p_.device = device;
  }

  Verdict run(const Kernels& kernels) {
    Verdict verdict{allowed_};
    p_.schedule = kernels.schedule, p_.tiles = kernels.tiles;
    auto out = poisoned<T>(s_.tasks * (s_.every_state ? s_.steps + 1 : 1) * s_.states());
    auto activations = poisoned<T>(s_.keep ? s_.tasks * s_.steps * s_.gates() * s_.states() : 0);
    auto scratch = poisoned<T>(forward_scratch(p_, s_.every_state));
    verdict.check(forward(p_, out.data(), s_.every_state, s_.keep ? activations.data() : nullptr, scratch.data(), nullptr));
    verdict.compare("out", reference_.result(), out);
    if (s_.keep) verdict.compare("activations", reference_.activations(), activations);
    if (first_out_.empty()) first_out_ = out, first_activations_ = activations;
    verdict.same_bits("out's bits", first_out_, out);
    verdict.same_bits("the activations' bits", first_activations_, activations);
    if (s_.keep && kernels.schedule == Schedule::step) run_backward(activations, verdict);
    return verdict;
  }

  // An index out of range makes its unit NaN and leaves the others alone. For problems of one step.
  Verdict run_stray(const Kernels& kernels) {
    Verdict verdict{allowed_};
    p_.schedule = kernels.schedule, p_.tiles = kernels.tiles;
    index_[0] = -1, index_[s_.rows() - 1] = s_.num_shared() + s_.num_private();
    auto out = poisoned<T>(s_.tasks * s_.states());
    verdict.check(forward<T>(p_, out.data(), false, nullptr, nullptr, nullptr));
    std::vector<T> rest;
    Doubles want;
    for (int64_t i = 0; i < int64_t(out.size()); ++i) {
      const bool stray = i < s_.states() && (i % s_.dim == 0 || i % s_.dim == s_.dim - 1), is_nan = widen(out[i]) != widen(out[i]);
      if (stray != is_nan) verdict.add(stray ? "a stray unit is no NaN" : "a NaN", INFINITY);
      if (!stray) rest.push_back(out[i]), want.push_back(reference_.result()[i]);
    }
    verdict.compare("out", want, rest);
    return verdict;
  }

  // A NaN of any bits in the gate's bias makes the gate and the state NaN: the bits that the exponential adds to the exponent could make a
  // number of it. GPUs make 0x7fffffff of every NaN. For gated problems of one step.
  Verdict run_nan(const Kernels& kernels, const std::vector<uint64_t>& nans) {
    Verdict verdict{allowed_};
    p_.schedule = kernels.schedule, p_.tiles = kernels.tiles;
    size_t next = 0;
    for (std::vector<T>* biases : {&shared_bias_, &private_bias_})
      for (size_t i = 1; i < biases->size(); i += 2) std::memcpy(&(*biases)[i], &nans[next++ % nans.size()], sizeof(T));
    auto out = poisoned<T>(s_.tasks * s_.states()), activations = poisoned<T>(2 * s_.tasks * s_.states());
    std::fill(out.begin(), out.end(), T{}), std::fill(activations.begin(), activations.end(), T{});
    verdict.check(forward<T>(p_, out.data(), false, activations.data(), nullptr, nullptr));
    const auto is_nan = [](const T& x) { return widen(x) != widen(x); };
    for (const T& x : out)
      if (!is_nan(x)) verdict.add("a state is no NaN", INFINITY);
    for (size_t i = 0; i < activations.size(); ++i)
      if (is_nan(activations[i]) != (i / s_.dim % 2 == 1)) verdict.add("a gate is no NaN, or an a is one", INFINITY);
    return verdict;
  }

 private:
  void run_backward(const std::vector<T>& activations, Verdict& verdict) {
    const int64_t all = s_.states(), plane = s_.gates() * all;
    const std::vector<T> grad = typed<T>(in_.grad);
    auto states = poisoned<T>(s_.tasks * (s_.steps - 1) * all), gradients = poisoned<T>(s_.tasks * s_.steps * plane);
    auto d = poisoned<T>(s_.steps > 1 ? s_.tasks * all : 0);
    auto dx0_sums = poisoned<A>(s_.tasks * all);
    auto sums = poisoned<A>(int64_t(s_.tasks) * s_.steps * backward_row_tiles(p_) * s_.gates() * s_.dim);
    auto dx0 = poisoned<T>(all), dcontext = poisoned<T>(in_.context.size());
    const Workspace<T> workspace{states.data(), gradients.data(), d.data(), dx0_sums.data(), sums.data()};
    verdict.check(backward(p_, grad.data(), s_.every_state, activations.data(), workspace, dx0.data(),
                           s_.columns ? dcontext.data() : nullptr, nullptr));
    verdict.compare("dx0", reference_.dx0, dx0);
    verdict.compare("dcontext", reference_.dcontext, dcontext);
    if (p_.tiles == Tiles::small) {  // without dx0: no memory for it, and the same da|dq
      auto others = poisoned<T>(gradients.size());
      const Workspace<T> without{states.data(), others.data(), d.data(), nullptr, sums.data()};
      verdict.check(backward<T>(p_, grad.data(), s_.every_state, activations.data(), without, nullptr, nullptr, nullptr));
      verdict.same_bits("da|dq without dx0", gradients, others);
    }

    const std::vector<T> products = multiply(states, gradients);
    auto dshared = poisoned<T>(shared_weight_.size()), dprivate = poisoned<T>(private_weight_.size());
    std::vector<uint32_t> memory(inverse_values(p_.bank()));
    const InverseIndex inverse = inverse_in(memory.data(), p_.bank());
    verdict.check(invert(p_.bank(), memory.data(), nullptr));
    verdict.check(sum_products(p_.bank(), inverse, p_.gates, p_.weight_steps(), step_groups(p_), s_.width(), products.data(),
                               dshared.data(), dprivate.data(), nullptr));
    verdict.compare("dweight", reference_.dweight, joined(dshared, dprivate));
    dshared = poisoned<T>(shared_bias_.size()), dprivate = poisoned<T>(private_bias_.size());
    verdict.check(sum_tiles(p_.bank(), inverse, p_.gates, p_.weight_steps(), p_.steps, backward_row_tiles(p_), sums.data(), dshared.data(),
                            dprivate.data(), nullptr));
    verdict.compare("dbias", reference_.dbias, joined(dshared, dprivate));
  }

  // The matrix products that a library computes on a GPU, [groups, tasks, G, D, K].
  std::vector<T> multiply(const std::vector<T>& states, const std::vector<T>& gradients) const {
    const int groups = step_groups(p_);
    auto out = poisoned<T>(int64_t(groups) * s_.tasks * s_.gates() * s_.dim * s_.width());
    auto next = out.begin();
    for (int group = 0; group < groups; ++group)
      for (int task = 0; task < s_.tasks; ++task)
        for (int vector = 0; vector < s_.gates() * s_.dim; ++vector)
          for (int k = 0; k < s_.width(); ++k) {
            A sum = 0;
            for (int step = group; step < (group == groups - 1 ? s_.steps : group + 1); ++step)
              for (int row = 0; row < s_.batch; ++row) {
                const int64_t state = ((int64_t(task) * (s_.steps - 1) + step - 1) * s_.batch + row) * s_.dim + k - s_.columns;
                const T right = k < s_.columns ? context_[(int64_t(step) * s_.batch + row) * s_.columns + k]
                                : step == 0    ? p_.x0[int64_t(row) * s_.dim + k - s_.columns]
                                               : states[state];
                const int64_t left = ((int64_t(task) * s_.steps + step) * s_.batch + row) * s_.gates() * s_.dim + vector;
                sum += widen(gradients[left]) * widen(right);
              }
            round_to(*next++, sum);
          }
    return out;
  }

  const Shape s_;
  const Inputs& in_;
  const Reference& reference_;
  const double allowed_;
  Problem<T> p_{};
  std::vector<int32_t> index_;
  std::vector<T> x0_, context_, shared_weight_, private_weight_, shared_bias_, private_bias_, first_out_, first_activations_;
};

void check_reference(Report& report) {
  check_gradients<Inputs, Reference>(report, "reference: its gradients against differences", [](const Shape& shape) { return shape; },
                                     {{"x0", &Inputs::x0, &Reference::dx0},
                                      {"context", &Inputs::context, &Reference::dcontext},
                                      {"weight", &Inputs::weight, &Reference::dweight},
                                      {"bias", &Inputs::bias, &Reference::dbias}});
}

template <typename T>
void check_cross_rnn(Report& report, const Shape& shape, const char* math, double allowed, bool tf32 = false) {
  const auto name_of = [&](const Kernels& kernels) { return std::string(math) + " " + shape.name() + " " + kernels.name; };
  const auto wanted = [&](const Kernels& kernels) { return report.wanted(shape.level, name_of(kernels)); };
  if (std::none_of(std::begin(every_kernel), std::end(every_kernel), wanted)) return;
  const Inputs in(shape);
  const Reference reference(in);
  Runner<T> runner(in, reference, tf32, allowed);
  for (const Kernels& kernels : every_kernel)
    if (wanted(kernels)) report.add(name_of(kernels), runner.run(kernels));
}

template <typename T>
void check_stray(Report& report, const char* math, double allowed) {
  const Inputs in({Level::brief, 3, 9, 0, 2, 1, false, true, false});
  const Reference reference(in);
  Runner<T> runner(in, reference, false, allowed);
  for (const Kernels& kernels : every_kernel) {
    const std::string name = std::string(math) + " " + in.s.name() + " " + kernels.name + ", indices out of range";
    if (report.wanted(in.s.level, name)) report.add(name, runner.run_stray(kernels));
  }
}

template <typename T>
void check_nan(Report& report, const char* math, const std::vector<uint64_t>& nans) {
  const Inputs in({Level::tiny, 3, 19, 0, 2, 1, false, true, false});
  const Reference reference(in);
  Runner<T> runner(in, reference, false, 0);
  for (const Kernels& kernels : every_kernel) {
    const std::string name = std::string(math) + " " + in.s.name() + " " + kernels.name + ", NaN of many bits";
    if (report.wanted(in.s.level, name)) report.add(name, runner.run_nan(kernels, nans));
  }
}

// In some shapes all rows are multiples of 16 bytes in every dtype, so that copies are asynchronous; in others not. The second shape's
// product ends after the pipeline's first stage, whose memory the sums then take. The last level has more rows and units than any tile.
// clang-format off
constexpr Shape shapes[] = {
    {Level::tiny, 3, 40, 24, 2, 2, false, true, true},
    {Level::tiny, 3, 9, 0, 1, 2, false, false, false},
    {Level::brief, 33, 35, 0, 1, 3, false, true, false},
    {Level::brief, 5, 37, 3, 2, 2, true, false, true},
    {Level::brief, 2, 72, 8, 1, 2, true, true, false, false},
    {Level::brief, 3, 16, 0, 1, 1, false, true, false, true, true},
    {Level::all, 130, 72, 16, 1, 2, false, false, false},
    {Level::all, 129, 71, 67, 1, 2, true, true, true},
    {Level::all, 1, 1, 1, 1, 1, false, true, false},
    {Level::all, 7, 136, 0, 3, 2, false, true, true},
};
// clang-format on

}  // namespace

int main(int count, char** arguments) {
  const std::string level = count > 1 ? arguments[1] : "all";
  if (level != "tiny" && level != "short" && level != "all") {
    std::fprintf(stderr, "got %s, expected all, short or tiny\n", level.c_str());
    return 1;
  }
  std::signal(SIGABRT, [](int) { std::_Exit(3); });  // CTest reads no report of a program that a signal ended
  Report report(level == "tiny" ? Level::tiny : level == "short" ? Level::brief : Level::all, count > 2 ? arguments[2] : "");
  constexpr double of_float = 5e-6, of_tf32 = 2e-3, of_double = 1e-14, of_bfloat16 = 2e-2, of_float16 = 2e-3;
  check_reference(report);
  for (const Shape& shape : shapes) {
    check_cross_rnn<float>(report, shape, "float32", of_float);
    check_cross_rnn<float>(report, shape, "tf32", of_tf32, true);
    check_cross_rnn<double>(report, shape, "float64", of_double);
    check_cross_rnn<BFloat16>(report, shape, "bfloat16", of_bfloat16);
    check_cross_rnn<Half>(report, shape, "float16", of_float16);
  }
  check_stray<float>(report, "float32", of_float);
  check_stray<BFloat16>(report, "bfloat16", of_bfloat16);
  check_nan<float>(report, "float32", {0x7fffffff, 0xffffffff, 0x7fc00000, 0xffc00000, 0x7f800001, 0xff812345, 0x7fc12345, 0xffedcba9});
  check_nan<double>(report, "float64",
                    {0x7fffffffffffffff, 0xffffffffffffffff, 0x7ff8000000000000, 0xfff8000000000000, 0x7ff0000000000001, 0xfff123456789abcd,
                     0x7ff8123456789abc, 0xfffedcba98765432});
  check_nan<BFloat16>(report, "bfloat16", {0x7fff, 0xffff, 0x7fc0, 0xffc0, 0x7f81, 0xff92});
  check_nan<Half>(report, "float16", {0x7fff, 0xffff, 0x7e00, 0xfe00, 0x7c01, 0xfd23});
  check_low_rank(report, of_float, of_tf32, of_double, of_bfloat16, of_float16);
  check_param_gather(report, of_float, of_double, of_bfloat16, of_float16);
  return report.finish();
}
