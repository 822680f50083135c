-- wrk's script for bench.serving: bodies in turn out of a file, one a line; what was seen as one line of JSON.

local requests, n_sent = {}, 0

function init(args)
  local headers = { ["Content-Type"] = "application/json" }
  for body in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  n_sent = n_sent % #requests + 1
  return requests[n_sent]
end

function done(summary, latency)
  local errors = summary.errors
  local n_lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '{"n_requests": %d, "seconds": %f, "n_refused": %d, "n_lost": %d, "p50": %f, "p90": %f, "p99": %f, "max": %f}\n',
    summary.requests, summary.duration / 1e6, errors.status, n_lost, latency:percentile(50) / 1e3,
    latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
