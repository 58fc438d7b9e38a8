// HTTP/1.1 on a socket: connections, their limits and their end.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "service.h"

namespace dcrnn_fast::server {

struct HttpOptions {
  std::string host = "127.0.0.1";
  unsigned short port;  // 0: a free one
  std::size_t connections;
  std::chrono::seconds transfer;  // for a request to arrive whole, and for an answer to be taken
  std::chrono::seconds idle;      // between requests
};

class HttpServer {
 public:
  // Listens. Throws std::runtime_error that names host and port if it cannot.
  HttpServer(boost::asio::io_context& io, Service& service, const HttpOptions& options);

  // Such as http://127.0.0.1:8000.
  std::string url() const;

  // Takes no new connections and ends those that wait for a request. Calls `done` when the last connection has ended.
  void stop(std::function<void()> done);

  // Ends all connections. A request that is being scored stays until it is.
  void abort();

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace dcrnn_fast::server
