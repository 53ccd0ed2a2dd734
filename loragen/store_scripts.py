"""Store scripts: the changes of tasks that Redis makes in one step, for `redis_store`."""

from typing import Final

CREATE: Final = """
local id, record, prompt, created_at, tools, implicit_ttl = unpack(ARGV, 1, 6)
local refined, probes, most, spare_refined = unpack(ARGV, 7)
local ttl = redis.call('TTL', KEYS[1])
local is_implicit, has_implicit = implicit_ttl ~= '', ttl >= 0
if ttl ~= -2 and (is_implicit or not has_implicit) then return 0 end
if ttl == -2 then
  if redis.call('HEXISTS', KEYS[3], id) == 1 then return 0 end
  for i = 4, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
  end
end
if most ~= '' and not is_implicit and redis.call('ZCARD', KEYS[2]) >= tonumber(most) then
  return -1
end
redis.call('HSET', KEYS[1], 'record', record, 'prompt', prompt)
if tools ~= '' then redis.call('HSET', KEYS[1], 'tools', tools) end
if refined ~= '' then redis.call('HSET', KEYS[1], 'refined', refined) end
if spare_refined ~= '' then redis.call('HSET', KEYS[1], 'spare_refined', spare_refined) end
if probes ~= '' then redis.call('HSET', KEYS[1], 'probes', probes) end
if is_implicit then
  redis.call('EXPIRE', KEYS[1], implicit_ttl)
else
  redis.call('PERSIST', KEYS[1])
  redis.call('ZADD', KEYS[2], created_at, id)
end
return 1
"""

UPDATE: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[1])
for i, field in ipairs({'refined', 'spare_refined'}) do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[1], field)
  else
    redis.call('HSET', KEYS[1], field, ARGV[i + 1])
  end
end
return 1
"""

DELETE: Final = """
local id = ARGV[1]
local created_at = redis.call('ZSCORE', KEYS[2], id)
if created_at then redis.call('SET', KEYS[3], created_at, 'EX', ARGV[2]) end
redis.call('ZREM', KEYS[2], id)
local link = redis.call('HGET', KEYS[1], 'link')
if link then redis.call('HDEL', KEYS[4], link) end
local record = redis.call('HGET', KEYS[1], 'record')
if redis.call('DEL', KEYS[1]) == 0 then return false end
return record or ''
"""

LINK: Final = """
local id, other = unpack(ARGV)
if redis.call('TTL', KEYS[1]) ~= -1 then return 0 end
local before = redis.call('HGET', KEYS[1], 'link')
if before then redis.call('HDEL', KEYS[2], before) end
redis.call('HSET', KEYS[1], 'link', other)
redis.call('HSET', KEYS[2], other, id)
return 1
"""

PAGE: Final = """
local after, limit, newest_first = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local start = 0
if after ~= '' then
  local at = redis.call('ZSCORE', KEYS[1], after) or redis.call('GET', KEYS[2])
  if not at then return false end
  if newest_first then
    start = redis.call('ZCOUNT', KEYS[1], '(' .. at, '+inf')
  else
    start = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. at)
  end
  for _, id in ipairs(redis.call('ZRANGE', KEYS[1], at, at, 'BYSCORE')) do
    if id == after or (id > after) == newest_first then start = start + 1 end
  end
end
if newest_first then
  return redis.call('ZRANGE', KEYS[1], start, start + limit - 1, 'REV')
end
return redis.call('ZRANGE', KEYS[1], start, start + limit - 1)
"""
