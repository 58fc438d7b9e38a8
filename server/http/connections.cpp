#include "connections.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <cstdio>
#include <exception>

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;

namespace dcrnn_fast::server {
namespace {

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr std::uint32_t kHeaderBytes = 16 << 10;
constexpr std::size_t kBufferBytes = 64 << 10;
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
constexpr std::chrono::seconds kLinger{2};
constexpr std::size_t kRefused = 64;             // clients that are told at once that they are too many
constexpr std::chrono::milliseconds kLast{500};  // that an idle connection stays once the server stops
constexpr std::size_t kLingerBytes = 16 << 20;

using Parser = http::request_parser<http::string_body>;

// The request but for its body, of which no trailer changes anything.
Request request_of(const Parser& parser, Clock::time_point arrived) {
  const auto& message = parser.get();
  const std::string_view target = message.target();
  const auto deadline = message.find("X-Deadline-Ms");
  Request request{.method = message.method_string(),
                  .path = target.substr(0, target.find('?')),
                  .content_type = message[http::field::content_type],
                  .content_encoding = message[http::field::content_encoding],
                  .arrived = arrived};
  if (deadline != message.end()) request.deadline = deadline->value();
  return request;
}

// Why a request is refused by its head, which another reader might understand otherwise; 200 and nothing if it is not.
Answer refused_head(const Parser& parser, const Request& request) {
  const auto& head = parser.get();
  const auto coding = head.find(http::field::transfer_encoding);
  const auto hosts = head.count(http::field::host);
  if (coding != head.end() &&
      (head.count(http::field::transfer_encoding) > 1 || !beast::iequals(coding->value(), "chunked") || head.version() == 10))
    return error_answer(400, "Transfer-Encoding is not chunked alone, or in HTTP/1.0");
  if (hosts > 1 || (head.version() == 11 && hosts == 0)) return error_answer(400, "the request has not one Host");
  if (!asks_for_scores(request)) return {};
  for (const auto field : {http::field::content_type, http::field::content_encoding})
    if (head.count(field) > 1) return error_answer(415, std::string(http::to_string(field)) + " is there twice");
  if (head.count("X-Deadline-Ms") > 1) return error_answer(400, "X-Deadline-Ms is there twice, expected one whole number");
  return {};
}

// Tells what ended a coroutine that should have ended by itself, such as a lack of memory.
auto report(const char* coroutine) {
  return [coroutine](std::exception_ptr problem) {
    try {
      if (problem) std::rethrow_exception(problem);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s ended: %s\n", coroutine, error.what());
    }
  };
}

}  // namespace

// One connection. Everything that touches it runs on the strand of its socket.
class HttpServer::Session : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, HttpServer& server) : stream_(std::move(socket)), server_(server) {
    const std::lock_guard lock(server_.mutex_);
    server_.sessions_.insert(this);
  }
  ~Session() {
    const std::lock_guard lock(server_.mutex_);
    leave();
    server_.idle_.erase(wait_);
    server_.sessions_.erase(this);
    if (server_.done_ && server_.sessions_.empty()) server_.done_();
  }

  asio::awaitable<void> run() {
    beast::error_code ignored;
    stream_.socket().set_option(tcp::no_delay(true), ignored);
    bool open = co_await admitted();
    if (!open && few_are_refused()) {
      const Answer answer = server_.service_.refused(Refusal::overload, "the server has too many connections; try again");
      const Request none{.arrived = Clock::now()};
      const bool sent = co_await send(answer, none, 11, false);
      if (sent) co_await linger();
    }
    while (open) {
      open = co_await request_begins();
      if (open) open = co_await exchange();
    }
    stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
  }

  // Ends the connection at once.
  void end() {
    if (auto self = weak_from_this().lock()) asio::post(stream_.get_executor(), [self = std::move(self)] { self->stream_.close(); });
  }

  // Ends the connection in a moment, unless a request has begun then.
  void end_if_idle() {
    if (auto self = weak_from_this().lock()) {
      const auto timer = std::make_shared<asio::steady_timer>(stream_.get_executor(), kLast);
      timer->async_wait([self = std::move(self), timer](const beast::error_code&) {
        if (self->is_idle_ && self->nothing_came()) self->stream_.cancel();
      });
    }
  }

  auto executor() { return stream_.get_executor(); }

 private:
  // Takes a place among the connections, or that of the one which is idle for the longest time. False if there is none.
  asio::awaitable<bool> admitted() {
    for (;;) {
      std::shared_ptr<Session> oldest;
      {
        const std::lock_guard lock(server_.mutex_);
        is_admitted_ = server_.admitted_ < server_.options_.max_connections;
        if (is_admitted_) {
          ++server_.admitted_;
        } else if (!server_.idle_.empty()) {
          oldest = server_.idle_.begin()->second->weak_from_this().lock();
          server_.idle_.erase(server_.idle_.begin());
        }
      }
      if (oldest == nullptr) co_return is_admitted_;
      co_await asio::co_spawn(oldest->executor(), oldest->make_room(), asio::use_awaitable);
    }
  }

  // Ends the connection and gives its place away, if it still waits for a request.
  asio::awaitable<void> make_room() {
    if (!is_idle_ || !nothing_came()) co_return;
    stream_.cancel();
    const std::lock_guard lock(server_.mutex_);
    leave();
  }

  // The caller holds the lock.
  void leave() {
    if (is_admitted_) --server_.admitted_;
    is_admitted_ = false;
  }

  bool few_are_refused() const {
    const std::lock_guard lock(server_.mutex_);
    return server_.sessions_.size() <= server_.options_.max_connections + kRefused;
  }

  // Waits for the first bytes of a request.
  asio::awaitable<bool> request_begins() {
    if (buffer_.size() > 0) co_return true;  // it came with the one before
    set_idle(true);
    if (server_.service_.stopping()) end_if_idle();
    stream_.expires_after(std::chrono::seconds(server_.options_.idle_seconds));
    const auto [error, size] = co_await stream_.async_read_some(buffer_.prepare(4096), kAwait);
    set_idle(false);
    buffer_.commit(size);
    co_return !error;
  }

  void set_idle(bool is_idle) {
    const std::lock_guard lock(server_.mutex_);
    is_idle_ = is_idle;
    if (is_idle)
      server_.idle_.emplace(wait_ = ++server_.last_wait_, this);
    else
      server_.idle_.erase(wait_);
  }

  bool nothing_came() const {
    beast::error_code broken;
    return stream_.socket().available(broken) == 0;
  }

  // Reads a request and answers it. False if no other one can follow.
  asio::awaitable<bool> exchange() {
    Parser parser;
    parser.header_limit(kHeaderBytes);
    parser.body_limit(server_.options_.max_body_bytes);
    stream_.expires_after(std::chrono::seconds(server_.options_.transfer_seconds));
    auto [error, size] = co_await http::async_read_header(stream_, buffer_, parser, kAwait);
    const auto arrived = Clock::now();
    // Named objects, here and in Service::answer: GCC 12 ends the lives of temporaries in co_await and co_return twice.
    Request request = request_of(parser, arrived);
    const bool stays = !error && parser.keep_alive();
    Answer answer = error ? Answer{} : refused_head(parser, request);
    const bool read = !error && answer.status == 200;  // else the body is not read
    const bool waits = parser.get().version() == 11 && beast::iequals(parser.get()[http::field::expect], "100-continue");
    if (read && waits) std::tie(error, size) = co_await asio::async_write(stream_, asio::buffer(kContinue), kAwait);
    if (read && !error) std::tie(error, size) = co_await http::async_read(stream_, buffer_, parser, kAwait);
    request.body = parser.get().body();
    if (error) answer = problem(error);
    if (error && answer.status == 200) co_return false;
    const bool whole = read && !error;
    stream_.expires_never();
    if (whole) answer = co_await server_.service_.answer(request);
    const bool keep_alive = whole && stays && !server_.service_.stopping();
    const bool sent = co_await send(answer, request, error ? 11 : parser.get().version(), keep_alive);
    if (sent && !whole) co_await linger();
    co_return sent&& keep_alive;
  }

  // The answer to what is not a request, or none if the connection broke.
  Answer problem(const beast::error_code& error) const {
    if (error == http::error::body_limit)
      return error_answer(413, "the body has more than " + std::to_string(server_.options_.max_body_bytes) +
                                   " bytes; divide the request, or start the server with a larger --max-body-bytes");
    if (error == http::error::header_limit || error == http::error::buffer_overflow)
      return error_answer(400, "the headers have more than " + std::to_string(kHeaderBytes) + " bytes");
    const bool broken = error == http::error::end_of_stream || error == http::error::partial_message;
    if (broken || error.category() != make_error_code(http::error::end_of_stream).category()) return {};
    return error_answer(400, "the request is not HTTP/1.1: " + error.message());
  }

  asio::awaitable<bool> send(const Answer& answer, const Request& request, unsigned version, bool keep_alive) {
    server_.service_.count(request, answer);
    http::response<http::string_body> response{static_cast<http::status>(answer.status), version};
    response.set(http::field::content_type, answer.content_type);
    if (!answer.allow.empty()) response.set(http::field::allow, answer.allow);
    if (answer.status == 503) response.set(http::field::retry_after, "1");
    response.keep_alive(keep_alive);
    response.content_length(answer.body.size());
    if (request.method != "HEAD") response.body() = answer.body;
    stream_.expires_after(std::chrono::seconds(server_.options_.transfer_seconds));
    const auto [error, size] = co_await http::async_write(stream_, response, kAwait);
    co_return !error;
  }

  // Reads on for a while: a socket that is closed with unread bytes takes the answer back.
  asio::awaitable<void> linger() {
    beast::error_code error;
    stream_.socket().shutdown(tcp::socket::shutdown_send, error);
    stream_.expires_after(kLinger);
    for (std::size_t total = 0, size = 0; !error && total < kLingerBytes; total += size) {
      buffer_.clear();
      std::tie(error, size) = co_await stream_.async_read_some(buffer_.prepare(kBufferBytes), kAwait);
    }
  }

  beast::tcp_stream stream_;
  HttpServer& server_;
  beast::flat_buffer buffer_{kBufferBytes};
  bool is_admitted_ = false, is_idle_ = false;
  std::uint64_t wait_ = 0;  // the key of its place among the idle
};

HttpServer::HttpServer(asio::io_context& io, Service& service, const Options& options)
    : io_(io), service_(service), options_(options), acceptor_(asio::make_strand(io)) {
  try {
    const auto found = tcp::resolver(io).resolve(options.host, std::to_string(options.port), tcp::resolver::passive);
    const tcp::endpoint endpoint = *found.begin();
    acceptor_.open(endpoint.protocol());
    acceptor_.set_option(tcp::acceptor::reuse_address(true));
    acceptor_.bind(endpoint);
    acceptor_.listen();
  } catch (const boost::system::system_error& error) {
    throw std::runtime_error("cannot listen on --host " + options.host + " --port " + std::to_string(options.port) + ": " +
                             error.code().message());
  }
  asio::co_spawn(acceptor_.get_executor(), accept(), report("accepting"));
}

asio::awaitable<void> HttpServer::accept() {
  asio::steady_timer pause(acceptor_.get_executor());
  while (acceptor_.is_open()) {
    auto [error, socket] = co_await acceptor_.async_accept(asio::make_strand(io_), kAwait);
    if (!error && acceptor_.is_open()) {  // else it came as the server stopped
      try {
        const auto session = std::make_shared<Session>(std::move(socket), *this);
        asio::co_spawn(session->executor(), [session] { return session->run(); }, report("a connection"));
      } catch (const std::exception&) {
        report("a connection")(std::current_exception());
      }
    } else if (acceptor_.is_open()) {  // such as too many open files
      pause.expires_after(std::chrono::milliseconds(100));
      co_await pause.async_wait(kAwait);
    }
  }
}

void HttpServer::stop(std::function<void()> done) {
  asio::post(acceptor_.get_executor(), [this, done = std::move(done)] {
    acceptor_.close();  // so no session begins behind what follows
    const std::lock_guard lock(mutex_);
    done_ = done;
    for (Session* const session : sessions_) session->end_if_idle();
    if (sessions_.empty()) done_();
  });
}

void HttpServer::abort() {
  const std::lock_guard lock(mutex_);
  for (Session* const session : sessions_) session->end();
}

}  // namespace dcrnn_fast::server
