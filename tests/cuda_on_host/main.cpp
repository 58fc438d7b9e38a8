// Runs the kernels on the CPU from C++, without PyTorch, and compares them with a reference in double. Sanitizers can watch this program.
//
//     cuda_on_host [all | short | tiny] [words that a case's name must contain]
//
// Prints every case with its largest error. The exit code is 1 if a case is wrong.
#include <csignal>
#include <cstdlib>

#include "../cell.h"
#include "cross_rnn.h"
#include "param_gather.h"
#include "report.h"

namespace {

// A choice of kernels, and of the shared memory that a block may ask for: with little the low-rank cell's pipeline has two stages, with
// none no operand of it stays on the chip.
struct Kernels {
  const char* name;
  bool low_rank;
  Schedule schedule;
  Tiles tiles;
  int shared_memory = 232448;
};

constexpr Kernels every_kernel[] = {
    {"small tiles", false, Schedule::step, Tiles::small},      {"large tiles", false, Schedule::step, Tiles::large},
    {"all steps", false, Schedule::all_steps, Tiles::small},   {"small tiles", true, Schedule::step, Tiles::small},
    {"large tiles", true, Schedule::step, Tiles::large},       {"two stages", true, Schedule::step, Tiles::small, 65536},
    {"through memory", true, Schedule::step, Tiles::small, 0},
};

// A cell in one dtype: the inputs of the launches, and the forward's results by the first choice of kernels.
template <typename T>
class Runner {
 public:
  Runner(Reference& reference, bool tf32, double allowed) : s_(reference.s), reference_(reference), allowed_(allowed) {
    for (const Doubles* values : reference.in.arrays()) inputs_.push_back(typed<T>(*values));
    if (s_.shifted) inputs_[0].insert(inputs_[0].begin(), T{});
    const auto rows_of = [&](const Rows& rows, const std::vector<T>& values) {
      return BankRows<T>{{s_.tasks, rows.weight_steps, rows.shared, rows.own}, values.data(), values.data() + rows.shared_values()};
    };
    Inputs& in = reference.in;
    cell_.x0 = inputs_[0].data() + s_.shifted, cell_.context = s_.columns ? inputs_[1].data() : nullptr;
    cell_.weight = rows_of(in.weight, inputs_[2]), cell_.bias = rows_of(in.bias, inputs_[3]);
    cell_.projection = rows_of(in.projection, inputs_[4]);
    cell_.batch = s_.batch, cell_.dim = s_.dim, cell_.columns = s_.columns, cell_.gates = s_.gates(), cell_.steps = s_.steps;
    cell_.tf32 = tf32;
  }

  Verdict run(const Kernels& kernels) {
    Verdict verdict{allowed_};
    choose(kernels);
    auto activations = poisoned<T>(reference_.activations.size());
    const std::vector<T> out = run_forward(activations.data());
    verdict.compare("out", reference_.result(), out);
    verdict.compare("activations", reference_.activations, activations);
    verdict.same_bits("out without activations", out, run_forward(nullptr));
    if (first_out_.empty()) first_out_ = out;
    verdict.same_bits("out's bits", first_out_, out);
    if (kernels.schedule == Schedule::all_steps) return verdict;

    const char* const names[] = {"dx0", "dcontext", "dweight", "dbias", "dprojection"};
    auto gradients = run_backward(activations.data(), true);
    for (int i = 0; i < 5; ++i) verdict.compare(names[i], *reference_.gradients.arrays()[i], gradients[i]);
    const auto again = run_backward(nullptr, true);
    for (int i = 0; i < 5; ++i) verdict.same_bits("a gradient from activations computed again", gradients[i], again[i]);
    gradients[0] = poisoned<T>(s_.states());
    const auto others = run_backward(activations.data(), false);
    for (int i = 0; i < 5; ++i) verdict.same_bits("a gradient without dx0", gradients[i], others[i]);
    return verdict;
  }

 private:
  void choose(const Kernels& kernels) {
    cell_.schedule = kernels.schedule, cell_.tiles = kernels.tiles, cell_.gpu = gpu_with<T>(132, kernels.shared_memory);
  }

  std::vector<T> run_forward(T* activations) const {
    auto out = poisoned<T>(s_.tasks * (s_.every_state ? s_.steps + 1 : 1) * s_.states());
    const Cell<T>& full = cell_;
    s_.rank ? forward(cell_, out.data(), s_.every_state, activations) : forward(full, out.data(), s_.every_state, activations);
    return out;
  }

  // The gradients, in the order of Inputs::arrays().
  std::vector<std::vector<T>> run_backward(const T* activations, bool of_x0) {
    std::vector<std::vector<T>> out;
    for (const Doubles* values : reference_.in.arrays()) out.push_back(poisoned<T>(values->size()));
    const std::vector<T> grad = typed<T>(reference_.grad);
    Inputs& in = reference_.in;
    const auto own = [&](int number, const Rows& rows) { return out[number].data() + rows.shared_values(); };
    GradientPointers<T> pointers{of_x0 ? out[0].data() : nullptr,     out[2].data(), out[3].data(), own(2, in.weight), own(3, in.bias),
                                 s_.columns ? out[1].data() : nullptr};
    if (s_.rank) {
      pointers.shared_projection = out[4].data(), pointers.private_projection = own(4, in.projection);
      backward<T>(cell_, grad.data(), s_.every_state, activations, pointers);
    } else {
      backward<T>(static_cast<const Cell<T>&>(cell_), grad.data(), s_.every_state, activations, pointers);
    }
    return out;
  }

  const Shape s_;
  Reference& reference_;
  const double allowed_;
  std::vector<std::vector<T>> inputs_;  // in the order of Inputs::arrays()
  LowRankCell<T> cell_{};
  std::vector<T> first_out_;
};

// From `level` on, or that of the shape.
template <typename T>
void check(Report& report, Level level, const Shape& shape, const char* math, double allowed, bool tf32 = false) {
  const auto name_of = [&](const Kernels& kernels) { return std::string(math) + " " + shape.name() + " " + kernels.name; };
  const auto wanted = [&](const Kernels& kernels) {
    return kernels.low_rank == (shape.rank > 0) && report.wanted(std::max(level, shape.level), name_of(kernels));
  };
  if (std::none_of(std::begin(every_kernel), std::end(every_kernel), wanted)) return;
  Reference reference(shape);
  Runner<T> runner(reference, tf32, allowed);
  for (const Kernels& kernels : every_kernel)
    if (wanted(kernels)) report.add(name_of(kernels), runner.run(kernels));
}

// Gathers rows of `values` values with a grid so small that it loops, and sums them back.
template <typename T>
void check_gather(Report& report, const char* dtype, double allowed, int values, int num_shared = 5, int num_private = 4, int rows = 70) {
  constexpr int tasks = 2;
  const int bank_rows = num_shared + num_private;
  const std::string name = std::string("gather ") + dtype + " rows of " + std::to_string(values * sizeof(T)) + " bytes from " +
                           std::to_string(num_shared) + " and " + std::to_string(num_private);
  if (!report.wanted(Level::tiny, name)) return;
  Verdict verdict{allowed};
  Random random;
  const Doubles bank = random.values((num_shared + tasks * num_private) * values, 1), grad = random.values(tasks * rows * values, 1);
  std::vector<int32_t> index(tasks * rows);
  for (int32_t& x : index) x = random.below(bank_rows + 2) - 1;  // and some out of range
  const RowIndex row_index{index.data(), rows, {tasks, 1, num_shared, num_private}};
  const auto part = [](const Doubles& all, int64_t first, int64_t end) { return typed<T>({all.begin() + first, all.begin() + end}); };
  const int64_t shared_values = int64_t(num_shared) * values;
  const std::vector<T> shared = part(bank, 0, shared_values), own = part(bank, shared_values, bank.size()), gradient = typed<T>(grad);
  std::vector<T> want = poisoned<T>(tasks * rows * values), out(want.size());
  Doubles sums(bank.size());
  for (int place = 0; place < tasks * rows; ++place) {
    if (index[place] < 0 || index[place] >= bank_rows) continue;
    const int row = index[place] < num_shared ? index[place] : index[place] + place / rows * num_private;
    for (int i = 0; i < values; ++i) {
      round_to(want[place * values + i], static_cast<accumulator<T>>(bank[row * values + i]));
      sums[row * values + i] += grad[place * values + i];
    }
  }
  const Gpu gpu = gpu_with<T>(1, 232448);
  gather(row_index, shared.data(), own.data(), out.data(), values * sizeof(T), gpu);
  verdict.same_bits("out's bits", want, out);
  auto dshared = poisoned<T>(shared.size()), dprivate = poisoned<T>(own.size());
  sum_rows(row_index, gradient.data(), dshared.data(), dprivate.data(), values, gpu);
  verdict.compare("the shared rows' sums", {sums.begin(), sums.begin() + shared_values}, dshared);
  verdict.compare("the private rows' sums", {sums.begin() + shared_values, sums.end()}, dprivate);
  report.add(name, verdict);
}

// In some shapes all rows are multiples of 16 bytes in every dtype, so that copies are asynchronous; in others not. The second shape's
// product ends after the pipeline's first stage, whose memory the sums then take. Some have more rows and units than any tile. Ranks share
// a tile with the gate's, fill one alone, or fill several.
constexpr Shape shapes[] = {
    {Level::tiny, 3, 40, 24, 2, 2, false, true, true},
    {Level::tiny, 3, 9, 0, 1, 2, false, false, false},
    {Level::tiny, 3, 40, 24, 1, 2, false, true, true, 8},
    {Level::brief, 33, 35, 0, 1, 3, false, true, false},
    {Level::brief, 5, 37, 3, 2, 2, true, false, true},
    {Level::brief, 3, 16, 0, 1, 1, false, true, false, 0, true},
    {Level::brief, 5, 37, 3, 2, 2, true, true, true, 33},
    {Level::brief, 18, 72, 0, 1, 2, false, false, false, 72},
    {Level::brief, 3, 16, 0, 1, 1, false, true, false, 16, true},
    {Level::all, 130, 72, 16, 1, 2, false, false, false},
    {Level::all, 129, 71, 67, 1, 2, true, true, true},
    {Level::all, 1, 1, 1, 1, 1, false, true, false},
    {Level::all, 7, 136, 0, 3, 2, false, true, true},
    {Level::all, 130, 72, 16, 1, 2, false, true, false, 16},
    {Level::all, 5, 71, 67, 3, 3, true, false, true, 40},
    {Level::all, 1, 1, 1, 1, 1, false, true, false, 1},
};

}  // namespace

int main(int count, char** arguments) {
  const std::string name = count > 1 ? arguments[1] : "all";
  const Level level = name == "tiny" ? Level::tiny : name == "short" ? Level::brief : Level::all;
  std::signal(SIGABRT, [](int) { std::_Exit(3); });  // CTest reads no report of a program that a signal ended
  Report report(level, count > 2 ? arguments[2] : "");
  constexpr double of_float = 5e-6, of_tf32 = 2e-3, of_double = 1e-14, of_bfloat16 = 2e-2, of_float16 = 2e-3;
  for (const Shape& shape : shapes) {
    const Level brief = shape.rank ? Level::brief : Level::tiny, all = shape.rank ? Level::all : Level::tiny;
    check<float>(report, all, shape, "float32", of_float);
    check<float>(report, brief, shape, "tf32", of_tf32, true);
    check<double>(report, brief, shape, "float64", of_double);
    check<BFloat16>(report, Level::tiny, shape, "bfloat16", of_bfloat16);
    check<Half>(report, all, shape, "float16", of_float16);
  }
  check_gather<float>(report, "float32", of_float, 33);
  check_gather<float>(report, "float32", of_float, 8);
  check_gather<float>(report, "float32", of_float, 2, 0, 5);
  check_gather<double>(report, "float64", of_double, 600, 3, 0, 9);
  check_gather<double>(report, "float64", of_double, 1, 30, 21, 100);
  check_gather<BFloat16>(report, "bfloat16", of_bfloat16, 3);
  check_gather<Half>(report, "float16", of_float16, 2);
  return report.finish();
}
