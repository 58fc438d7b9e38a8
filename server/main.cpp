// Serves a model that `dcrnn-fast export --format aoti` wrote: docs/guide/server.md.
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <csignal>
#include <cstdio>

#include "http/connections.h"
#include "options.h"

namespace asio = boost::asio;

namespace dcrnn_fast::server {
namespace {

constexpr rlim_t kReserved = 256;                // descriptors that are no connection's: files, threads, clients too many
constexpr std::chrono::seconds kLastAnswers{1};  // to say to those who wait in vain that the server stops

// Loads the model anew, in a thread of its own. What is asked for before a load begins is one load.
class Reloads {
 public:
  Reloads(Models& models, Metrics& metrics) : models_(models), metrics_(metrics) {}
  ~Reloads() { loader_.join(); }

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
