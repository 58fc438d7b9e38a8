// Serves a model that `dcrnn-fast export --format aoti` wrote: docs/guide/server.md.
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>

#include "http/connections.h"

namespace asio = boost::asio;

namespace dcrnn_fast::server {
namespace {

constexpr rlim_t kReserved = 256;                // descriptors that are not a connection's: files, threads, clients too many
constexpr std::chrono::seconds kLastAnswers{1};  // to say to those who wait in vain that the server stops

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Option {
  const char* name;
  const char* meaning;
  std::int64_t least, most;
  std::int64_t Options::* value;
};

constexpr Option kNumbers[] = {
    {"--port", "0: a free one, which the first line of the output tells", 0, 65535, &Options::port},
    {"--threads", "that score; default: one a CPU that the process may use", 1, 1024, &Options::threads},
    {"--io-threads", "that read, encode and write; default: one for two CPUs", 1, 1024, &Options::io_threads},
    {"--max-body-bytes", "of a request", 1, 1 << 30, &Options::max_body_bytes},
    {"--max-rows", "of a request", 1, 1 << 20, &Options::max_rows},
    {"--max-queue-rows", "that wait; more are answered 503", 1, 1 << 30, &Options::max_queue_rows},
    {"--max-batch-rows", "of requests that are scored at once; a larger request is scored alone", 1, 1 << 20, &Options::max_batch_rows},
    {"--max-connections", "for one more, the longest idle one ends, or the new one gets a 503", 1, 1 << 20, &Options::max_connections},
    {"--transfer-seconds", "for a request to arrive, and for its answer to be taken", 1, 86'400, &Options::transfer_seconds},
    {"--idle-seconds", "that a connection may wait for its next request", 1, 86'400, &Options::idle_seconds},
    {"--grace", "seconds for what is accepted, when the server stops", 0, 86'400, &Options::grace},
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

Options defaults() {
  Options options;
  options.threads = granted_cpus();
  options.io_threads = (options.threads + 1) / 2;
  return options;
}

std::string usage() {
  const Options options = defaults();
  std::string text =
      "dcrnn_fast_server --model shop.pt2 [options]\n"
      "Serves a file of `dcrnn-fast export --format aoti`. SIGHUP loads it anew, SIGTERM stops the server.\n\n"
      "  --host 127.0.0.1              where to listen\n";
  for (const Option& option : kNumbers) {
    std::string line = "  " + std::string(option.name) + " " + std::to_string(options.*option.value);
    line.resize(std::max<std::size_t>(line.size() + 1, 32), ' ');
    text += line + option.meaning + "\n";
  }
  return text;
}

std::int64_t number(const Option& option, const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < option.least || value > option.most)
    throw UsageError(std::string(option.name) + ": got '" + text + "', expected a whole number from " + std::to_string(option.least) +
                     " to " + std::to_string(option.most));
  return value;
}

// The options of a command line; --help prints them all and ends the program. Throws UsageError.
Options parse_options(const std::vector<std::string>& arguments) {
  Options options = defaults();
  for (auto argument = arguments.begin(); argument != arguments.end(); ++argument) {
    if (*argument == "--help") {
      std::fputs(usage().c_str(), stdout);
      std::exit(0);
    }
    const auto equals = argument->find('=');
    const std::string name = argument->substr(0, equals);
    const auto found = std::ranges::find(kNumbers, name, &Option::name);
    if (found == std::end(kNumbers) && name != "--model" && name != "--host")
      throw UsageError("unknown option " + *argument + "; --help lists them all");
    if (equals == std::string::npos && argument + 1 == arguments.end()) throw UsageError(name + " needs a value");
    const std::string value = equals == std::string::npos ? *++argument : argument->substr(equals + 1);
    if (name == "--model")
      options.model = value;
    else if (name == "--host")
      options.host = value;
    else
      options.*found->value = number(*found, value);
  }
  if (options.model.empty()) throw UsageError("--model is missing; give the file of `dcrnn-fast export --format aoti`");
  if (options.max_queue_rows < options.max_rows)
    throw UsageError("--max-queue-rows is " + std::to_string(options.max_queue_rows) + ", expected at least --max-rows, " +
                     std::to_string(options.max_rows) + ", so that each request has room");
  return options;
}

// How many connections the limit of open files, which is raised as far as it may be, leaves room for: at most `wanted`.
rlim_t allowed_connections(rlim_t wanted) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= wanted + kReserved) return wanted;
  limit.rlim_cur = std::min(limit.rlim_max, wanted + kReserved);
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t allowed = std::clamp<rlim_t>(limit.rlim_cur - std::min(kReserved, limit.rlim_cur / 2), 1, wanted);
  if (allowed < wanted)
    std::cerr << "warning: --max-connections " << wanted << ": the limit of open files leaves room for " << allowed
              << "; raise it by `ulimit -n`" << std::endl;
  return allowed;
}

void serve(Options options) {
  options.max_connections = static_cast<std::int64_t>(allowed_connections(static_cast<rlim_t>(options.max_connections)));
  // These two are never destroyed, so that no signal kills the process while it loads its model or ends.
  static auto& io = *new asio::io_context;
  const auto control = asio::make_strand(io);
  static auto& signals = *new asio::signal_set(control, SIGHUP, SIGTERM, SIGINT);
  Service service(options);
  HttpServer http(io, service, options);

  std::atomic<bool> asked{false};
  asio::thread_pool loader(1);
  const auto reload = [&] {
    asked = false;
    service.reload();
  };
  asio::steady_timer timer(control);
  // Waits; false if the wait was cancelled.
  const auto passed = [&](std::chrono::seconds time) -> asio::awaitable<bool> {
    timer.expires_after(time);
    const auto [error] = co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
    co_return !error;
  };
  // Loads at each SIGHUP, in a thread of its own: what is asked for before a load begins is one load. Stops at the first SIGTERM or SIGINT,
  // after which signals do nothing.
  const auto obey = [&]() -> asio::awaitable<void> {
    while (co_await signals.async_wait(asio::use_awaitable) == SIGHUP)
      if (!asked.exchange(true)) asio::post(loader, reload);
    service.stop();
    http.stop([&] { asio::post(control, [&] { timer.cancel(); }); });
    if (!co_await passed(std::chrono::seconds(options.grace))) co_return;
    service.drop();
    if (co_await passed(kLastAnswers)) http.abort();
  };
  asio::co_spawn(control, obey, [](std::exception_ptr problem) {
    if (problem) std::rethrow_exception(problem);
  });

  std::cout << "listening on http://" << http.endpoint() << std::endl;
  std::vector<std::jthread> threads;
  for (std::int64_t i = 1; i < options.io_threads; ++i) threads.emplace_back([&] { io.run(); });
  io.run();
}

}  // namespace
}  // namespace dcrnn_fast::server

int main(int argc, char** argv) {
  using namespace dcrnn_fast::server;
  std::signal(SIGPIPE, SIG_IGN);
  try {
    serve(parse_options({argv + 1, argv + argc}));
    return 0;
  } catch (const UsageError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
