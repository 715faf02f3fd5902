-- What wrk sends, and what it says at the end: one line of JSON on standard error.
--
-- Arguments: how the requests differ from one another, and with what.
--   same                          not at all (wrk formats them once)
--   heads                         a random traceparent and cookie in each
--   once                          not at all, but each is its connection's last
--   paths COUNT                   a random one of /d0/hello .. /d<COUNT-1>/hello
--   post BODY                     not at all, but each has a JSON body

local MANY = 10000

local function hex(digits)
  local text = {}
  for i = 1, digits do text[i] = string.format("%x", math.random(0, 15)) end
  return table.concat(text)
end

local function send_one_of(made)
  local count = #made
  local random = math.random
  request = function() return made[random(count)] end
end

function init(arguments)
  math.randomseed(os.time())
  local made = {}
  if arguments[1] == "heads" then
    for i = 1, MANY do
      wrk.headers["traceparent"] = "00-" .. hex(32) .. "-" .. hex(16) .. "-01"
      wrk.headers["Cookie"] = "visitor=" .. hex(24) .. "; theme=dark"
      made[i] = wrk.format()
    end
    send_one_of(made)
  elseif arguments[1] == "paths" then
    for i = 1, tonumber(arguments[2]) do made[i] = wrk.format(nil, "/d" .. (i - 1) .. "/hello") end
    send_one_of(made)
  elseif arguments[1] == "once" then
    wrk.headers["Connection"] = "close"
  elseif arguments[1] == "post" then
    wrk.method = "POST"
    wrk.body = arguments[2]
    wrk.headers["Content-Type"] = "application/json"
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  io.stderr:write(string.format(
    '{"requests":%d,"seconds":%.6f,"p50":%d,"p99":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
