#include "options.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <thread>

namespace dcrnn_fast::server {
namespace {

struct Option {
  const char* name;
  const char* meaning;
  std::int64_t least, most, value;
  std::function<void(Options&, std::int64_t)> set;
};

const std::vector<Option>& numbers() {
  static const auto cores = static_cast<std::int64_t>(std::max(1U, std::thread::hardware_concurrency()));
  static const std::vector<Option> options{
      {"--port", "0: a free one, which the first line of the output tells", 0, 65535, 8000,
       [](Options& o, auto n) { o.http.port = static_cast<unsigned short>(n); }},
      {"--threads", "that score; default: one a core", 1, 1024, cores,
       [](Options& o, auto n) { o.scoring.threads = static_cast<std::size_t>(n); }},
      {"--io-threads", "that read, encode and write; default: one for two cores", 1, 1024, (cores + 1) / 2,
       [](Options& o, auto n) { o.io_threads = static_cast<std::size_t>(n); }},
      {"--max-body-bytes", "of a request", 1, std::int64_t{1} << 30, 1 << 20,
       [](Options& o, auto n) { o.limits.body_bytes = static_cast<std::uint64_t>(n); }},
      {"--max-rows", "of a request", 1, 1 << 20, 10'000, [](Options& o, auto n) { o.limits.rows = n; }},
      {"--max-queue-rows", "that wait; more are answered 503", 1, 1 << 30, 100'000,
       [](Options& o, auto n) { o.limits.queue_rows = o.scoring.queue_rows = n; }},
      {"--max-batch-rows", "of requests that are scored at once; a larger request is scored alone", 1, 1 << 20, 512,
       [](Options& o, auto n) { o.scoring.batch_rows = n; }},
      {"--max-connections", "one more is answered 503 and closed", 1, 1 << 20, 1000,
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

}  // namespace

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

}  // namespace dcrnn_fast::server
