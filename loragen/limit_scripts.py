"""Limit scripts: counting that Redis does in one step and by its own clock, for `redis_limiter`.

A window is a hash from a second to what was taken in it. Cells of the last `span` seconds count,
and the one before them, which reaches into them.
"""

from typing import Final

_WINDOW: Final = """
local clock = redis.call('TIME')
local second, fraction = tonumber(clock[1]), tonumber(clock[2]) / 1e6

local function read(key, span)
  local window = {key = key, span = span, used = 0, cells = {}}
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local at, amount = tonumber(flat[i]), tonumber(flat[i + 1])
    if at < second - span then
      redis.call('HDEL', key, flat[i])
    else
      window.used = window.used + amount
      table.insert(window.cells, {at = at, amount = amount})
    end
  end
  table.sort(window.cells, function(a, b) return a.at < b.at end)
  return window
end

local function left(window, cell)
  return cell.at + window.span + 1 - second - fraction
end

local function retry(window, limit, amount)
  local over = window.used + amount - limit
  for _, cell in ipairs(window.cells) do
    over = over - cell.amount
    if over <= 0 then return left(window, cell) end
  end
  return window.span
end

local function add(window, amount)
  window.used = window.used + amount
  redis.call('HINCRBY', window.key, second, amount)
  redis.call('EXPIRE', window.key, window.span + 2)
  local last = window.cells[#window.cells]
  if not last or last.at ~= second then table.insert(window.cells, {at = second}) end
end

local function level(window, limit)
  local last = window.cells[#window.cells]
  local reset = last and left(window, last) or 0
  return math.max(0, limit - window.used), string.format('%.3f', reset)
end
"""
TAKE: Final = (
    _WINDOW
    + """
local limit, amount, span = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local window = read(KEYS[1], span)
if window.used + amount > limit then
  local wait = string.format('%.3f', retry(window, limit, amount))
  local remaining, reset = level(window, limit)
  return {remaining, reset, '', wait}
end
add(window, amount)
local remaining, reset = level(window, limit)
return {remaining, reset, tostring(second), '0'}
"""
)
SETTLE: Final = """
local cell, change = ARGV[1], tonumber(ARGV[2])
if redis.call('HEXISTS', KEYS[1], cell) == 0 then return 0 end
if redis.call('HINCRBY', KEYS[1], cell, change) <= 0 then redis.call('HDEL', KEYS[1], cell) end
return 1
"""
ADMIT: Final = (
    _WINDOW
    + """
local lease, lease_seconds, span = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local requests, tokens, running = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local refused, wait = '', 0
local asked = requests and read(KEYS[1], span)
if asked and asked.used + 1 > requests then
  refused, wait = 'requests', retry(asked, requests, 1)
end
if running then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', second + fraction)
  if refused == '' and redis.call('ZCARD', KEYS[3]) >= running then
    refused, wait = 'concurrency', 1
  end
end
if refused == '' and asked then add(asked, 1) end
if refused == '' and running then
  redis.call('ZADD', KEYS[3], second + fraction + lease_seconds, lease)
  redis.call('EXPIRE', KEYS[3], math.ceil(lease_seconds) + 1)
end
local reply = {refused, string.format('%.3f', wait), '', '', '', ''}
if asked then reply[3], reply[4] = level(asked, requests) end
if tokens then reply[5], reply[6] = level(read(KEYS[2], span), tokens) end
return reply
"""
)
RENEW: Final = """
local clock = redis.call('TIME')
local until_time = tonumber(clock[1]) + tonumber(clock[2]) / 1e6 + tonumber(ARGV[1])
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', until_time, ARGV[i]) end
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[1])) + 1)
"""
