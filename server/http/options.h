// What the user of the server chooses, with the defaults. main.cpp reads it; the service, the batcher and the connections heed it.
#pragma once

#include <cstdint>
#include <string>

namespace dcrnn_fast::server {

struct Options {
  std::string model, host = "127.0.0.1";
  std::int64_t port = 8000;               // 0: a free one
  std::int64_t threads = 1;               // that score
  std::int64_t io_threads = 1;            // that read, encode and write
  std::int64_t max_body_bytes = 1 << 20;  // of a request
  std::int64_t max_rows = 10'000;         // of a request
  std::int64_t max_queue_rows = 100'000;  // that wait
  std::int64_t max_batch_rows = 512;      // of requests that are scored at once
  std::int64_t max_connections = 1000;
  std::int64_t transfer_seconds = 30;  // for a request to arrive whole, and for an answer to be taken
  std::int64_t idle_seconds = 75;      // between requests
  std::int64_t grace = 10;             // seconds for what is accepted, when the server stops
};

}  // namespace dcrnn_fast::server
