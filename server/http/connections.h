// HTTP/1.1 on a socket: connections, their limits and their end.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <unordered_set>

#include "service.h"

namespace dcrnn_fast::server {

// Outlives its connections: they end before `io` has nothing to run.
class HttpServer {
 public:
  // Listens. Throws std::runtime_error that names host and port if it cannot.
  HttpServer(boost::asio::io_context& io, Service& service, const Options& options);

  boost::asio::ip::tcp::endpoint endpoint() const { return acceptor_.local_endpoint(); }

  // Takes no new connections and ends those that wait for a request. Calls `done` when the last connection has ended.
  void stop(std::function<void()> done);

  // Ends all connections. A request that is being scored stays until it is.
  void abort();

 private:
  class Session;
  boost::asio::awaitable<void> accept();

  boost::asio::io_context& io_;
  Service& service_;
  const Options& options_;
  boost::asio::ip::tcp::acceptor acceptor_;
  std::mutex mutex_;  // of what follows
  std::unordered_set<Session*> sessions_;
  std::map<std::uint64_t, Session*> idle_;  // those that wait for a request, in the order in which they began to
  std::uint64_t last_wait_ = 0;
  std::int64_t admitted_ = 0;   // of the sessions, those that are neither one too many nor ending to make room
  std::function<void()> done_;  // once it is stopped
};

}  // namespace dcrnn_fast::server
