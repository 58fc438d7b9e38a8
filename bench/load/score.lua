-- wrk's script: posts the bodies of a file in turn, and prints one line of JSON at the end.
-- The argument behind "--": the file of bodies, one a line.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(arguments)
  bodies, turn, refused = {}, 0, 0
  for line in io.lines(arguments[1]) do
    table.insert(bodies, line)
  end
  wrk.method, wrk.headers["Content-Type"] = "POST", "application/json"
end

function request()
  turn = turn % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[turn])
end

function response(status)
  if status ~= 200 then
    refused = refused + 1
  end
end

function done(summary, latency)
  local failed = 0
  for _, thread in ipairs(threads) do
    failed = failed + thread:get("refused")
  end
  local errors = summary.errors
  failed = failed + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '{"requests": %d, "failed": %d, "seconds": %.6f, "p50, ms": %.4f, "p99, ms": %.4f, "p99.9, ms": %.4f}\n',
    summary.requests, failed, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency:percentile(99.9) / 1e3))
end
