// Serves a model that `dcrnn-fast export --format aoti` wrote: docs/guide/server.md.
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <functional>

#include "http/connections.h"

namespace asio = boost::asio;

namespace dcrnn_fast::server {
namespace {

constexpr rlim_t kReserved = 256;                // descriptors that are no connection's: files, threads, clients too many
constexpr std::chrono::seconds kLastAnswers{1};  // to say to those who wait in vain that the server stops

// numbers() has the defaults.
struct Options {
  std::string model;
  HttpOptions http{};
  Limits limits{};
  Batcher::Limits scoring{};
  std::size_t io_threads = 0;
  std::chrono::seconds grace{};
  bool help = false;
};

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Option {
  const char* name;
  const char* meaning;
  std::int64_t least, most, value;
  std::function<void(Options&, std::int64_t)> set;
};

// The cores, or fewer if the limits of this process's control groups, such as a container's, grant fewer CPUs.
std::int64_t granted_cpus() {
  double granted = std::max(1U, std::thread::hardware_concurrency());
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "4:cpu,cpuacct:/a/b", and in version 2 "0::/a/b"
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    const std::string top = std::string("/sys/fs/cgroup") + (controllers.empty() ? "" : "/cpu");
    for (std::string group = top + line.substr(second + 1); group.size() >= top.size(); group.resize(group.rfind('/'))) {
      double quota = 0, period = 0;  // stay so where there is no such file, or no limit
      if (controllers.empty()) {
        std::ifstream(group + "/cpu.max") >> quota >> period;
      } else {
        std::ifstream(group + "/cpu.cfs_quota_us") >> quota;
        std::ifstream(group + "/cpu.cfs_period_us") >> period;
      }
      if (quota > 0 && period > 0) granted = std::min(granted, quota / period);
    }
  }
  return std::max<std::int64_t>(1, std::llround(std::ceil(granted)));
}

const std::vector<Option>& numbers() {
  static const std::int64_t cpus = granted_cpus();
  static const std::vector<Option> options{
      {"--port", "0: a free one, which the first line of the output tells", 0, 65535, 8000,
       [](Options& o, auto n) { o.http.port = static_cast<unsigned short>(n); }},
      {"--threads", "that score; default: one a CPU that the process may use", 1, 1024, cpus,
       [](Options& o, auto n) { o.scoring.threads = static_cast<std::size_t>(n); }},
      {"--io-threads", "that read, encode and write; default: one for two CPUs", 1, 1024, (cpus + 1) / 2,
       [](Options& o, auto n) { o.io_threads = static_cast<std::size_t>(n); }},
      {"--max-body-bytes", "of a request", 1, std::int64_t{1} << 30, 1 << 20,
       [](Options& o, auto n) { o.limits.body_bytes = static_cast<std::uint64_t>(n); }},
      {"--max-rows", "of a request", 1, 1 << 20, 10'000, [](Options& o, auto n) { o.limits.rows = n; }},
      {"--max-queue-rows", "that wait; more are answered 503", 1, 1 << 30, 100'000,
       [](Options& o, auto n) { o.limits.queue_rows = o.scoring.queue_rows = n; }},
      {"--max-batch-rows", "of requests that are scored at once; a larger request is scored alone", 1, 1 << 20, 512,
       [](Options& o, auto n) { o.scoring.batch_rows = n; }},
      {"--max-connections", "for one more, the longest idle one ends, or the new one gets a 503", 1, 1 << 20, 1000,
       [](Options& o, auto n) { o.http.connections = static_cast<std::size_t>(n); }},
      {"--transfer-seconds", "for a request to arrive, and for its answer to be taken", 1, 86'400, 30,
       [](Options& o, auto n) { o.http.transfer = std::chrono::seconds(n); }},
      {"--idle-seconds", "that a connection may wait for its next request", 1, 86'400, 75,
       [](Options& o, auto n) { o.http.idle = std::chrono::seconds(n); }},
      {"--grace", "seconds for what is accepted, when the server stops", 0, 86'400, 10,
       [](Options& o, auto n) { o.grace = std::chrono::seconds(n); }},
  };
  return options;
}

std::int64_t number(const Option& option, const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < option.least || value > option.most)
    throw UsageError(std::string(option.name) + ": got '" + text + "', expected a whole number from " + std::to_string(option.least) +
                     " to " + std::to_string(option.most));
  return value;
}

Options parse_options(const std::vector<std::string>& arguments) {
  Options options;
  for (const Option& option : numbers()) option.set(options, option.value);
  for (auto argument = arguments.begin(); argument != arguments.end(); ++argument) {
    if (*argument == "--help") {
      options.help = true;
      return options;
    }
    const auto equals = argument->find('=');
    const std::string name = argument->substr(0, equals);
    const auto found = std::find_if(numbers().begin(), numbers().end(), [&](const Option& option) { return name == option.name; });
    if (found == numbers().end() && name != "--model" && name != "--host")
      throw UsageError("unknown option " + *argument + "; --help lists them all");
    if (equals == std::string::npos && argument + 1 == arguments.end()) throw UsageError(name + " needs a value");
    const std::string value = equals == std::string::npos ? *++argument : argument->substr(equals + 1);
    if (name == "--model")
      options.model = value;
    else if (name == "--host")
      options.http.host = value;
    else
      found->set(options, number(*found, value));
  }
  if (options.model.empty()) throw UsageError("--model is missing; give the file of `dcrnn-fast export --format aoti`");
  if (options.limits.queue_rows < options.limits.rows)
    throw UsageError("--max-queue-rows is " + std::to_string(options.limits.queue_rows) + ", expected at least --max-rows, " +
                     std::to_string(options.limits.rows) + ", so that each request has room");
  return options;
}

std::string usage() {
  std::string text =
      "dcrnn_fast_server --model shop.pt2 [options]\n"
      "Serves a file of `dcrnn-fast export --format aoti`. SIGHUP loads it anew, SIGTERM stops the server.\n\n"
      "  --host 127.0.0.1              where to listen\n";
  for (const Option& option : numbers()) {
    std::string line = "  " + std::string(option.name) + " " + std::to_string(option.value);
    line.resize(std::max<std::size_t>(line.size() + 1, 32), ' ');
    text += line + option.meaning + "\n";
  }
  return text;
}

// Loads the model anew, in a thread of its own. What is asked for before a load begins is one load.
class Reloads {
 public:
  Reloads(Models& models, Metrics& metrics) : models_(models), metrics_(metrics) {}

  void ask() {
    if (!asked_.exchange(true)) asio::post(loader_, [this] { load(); });
  }

 private:
  void load() {
    asked_ = false;
    try {
      models_.reload();
      metrics_.reloaded(true);
    } catch (const std::exception& error) {
      metrics_.reloaded(false);
      std::fprintf(stderr, "the earlier model stays: %s\n", error.what());
    }
  }

  Models& models_;
  Metrics& metrics_;
  std::atomic<bool> asked_{false};
  asio::thread_pool loader_{1};
};

// Calls `reload` at each SIGHUP, and `stop` at the first SIGTERM or SIGINT, after which signals do nothing.
template <typename Reload, typename Stop>
void await_signals(asio::signal_set& signals, Reload reload, Stop stop) {
  signals.async_wait([&signals, reload, stop](auto error, int number) {
    if (error) return;
    if (number != SIGHUP) return stop();
    reload();
    await_signals(signals, reload, stop);
  });
}

// How many connections the limit of open files, which is raised as far as it may be, leaves room for: at most `wanted`.
std::size_t allowed_connections(std::size_t wanted) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= wanted + kReserved) return wanted;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, wanted + kReserved);
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  const std::size_t allowed = std::clamp<std::size_t>(limit.rlim_cur - std::min<rlim_t>(kReserved, limit.rlim_cur / 2), 1, wanted);
  if (allowed < wanted)
    std::fprintf(stderr, "warning: --max-connections %zu: the limit of open files leaves room for %zu; raise it by `ulimit -n`\n", wanted,
                 allowed);
  return allowed;
}

void serve(Options options) {
  options.http.connections = allowed_connections(options.http.connections);
  // These two are never destroyed, so that no signal kills the process while it loads its model or ends.
  static auto& io = *new asio::io_context;
  const auto control = asio::make_strand(io);
  static auto& signals = *new asio::signal_set(control, SIGHUP, SIGTERM, SIGINT);
  Models models(options.model, options.scoring.threads);
  Metrics metrics;
  Batcher batcher(options.scoring, metrics);
  Service service(options.limits, models, batcher, metrics);
  Reloads reloads(models, metrics);
  HttpServer http(io, service, options.http);

  asio::steady_timer grace(control);
  const auto stop = [&] {
    service.stop();
    grace.expires_after(options.grace);
    grace.async_wait([&](auto error) {
      if (error) return;
      batcher.drop();
      grace.expires_after(kLastAnswers);
      grace.async_wait([&](auto error) {
        if (!error) http.abort();
      });
    });
    http.stop([&] { asio::post(control, [&] { grace.cancel(); }); });
  };
  await_signals(signals, [&] { reloads.ask(); }, stop);

  std::printf("listening on %s\n", http.url().c_str());
  std::fflush(stdout);
  std::vector<std::jthread> threads;
  for (std::size_t i = 1; i < options.io_threads; ++i) threads.emplace_back([&] { io.run(); });
  io.run();
}

}  // namespace
}  // namespace dcrnn_fast::server

int main(int argc, char** argv) {
  using namespace dcrnn_fast::server;
  std::signal(SIGPIPE, SIG_IGN);
  try {
    const Options options = parse_options({argv + 1, argv + argc});
    if (options.help)
      std::fputs(usage().c_str(), stdout);
    else
      serve(options);
    return 0;
  } catch (const UsageError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
