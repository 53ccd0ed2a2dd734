"""Names in Lua: what Redis does in one step, so that concurrent edits of a name cannot mix.

KEYS are the four keys of `loragen.redis_names` and, where a script takes one, the task's. A reply
is the outcome in a word and, where it changed or could have changed a name, the history as JSON.
"""

from typing import Final

_HISTORY: Final = """
local NAMES, HISTORIES, ALIASES, EDITS, TASK = unpack(KEYS)

local function load(name)
  local text = redis.call('HGET', HISTORIES, name)
  return text and cjson.decode(text)
end

local function save(name, history)
  if #history.versions == 0 then return redis.call('HDEL', HISTORIES, name) end
  redis.call('HSET', HISTORIES, name, cjson.encode(history))
end

local function holds(history, task)
  for _, version in ipairs(history.versions) do
    if version.task_id == task then return true end
  end
end

local function set_alias(name, history, task)
  local text = redis.call('HGET', ALIASES, task)
  local kept = {}
  for _, each in ipairs(text and cjson.decode(text) or {}) do
    if each ~= name then table.insert(kept, each) end
  end
  if holds(history, task) then table.insert(kept, name) end
  if #kept == 0 then return redis.call('HDEL', ALIASES, task) end
  redis.call('HSET', ALIASES, task, cjson.encode(kept))
end

local function point(name, history, version)
  history.current = version.version
  redis.call('HSET', NAMES, name, version.task_id)
end

local function insert(name, history, version, keep)
  local place = #history.versions + 1
  while place > 1 and history.versions[place - 1].version > version.version do
    place = place - 1
  end
  table.insert(history.versions, place, version)
  history.last = math.max(history.last, version.version)
  set_alias(name, history, version.task_id)
  while #history.versions > keep do
    local oldest = history.versions[1].version == history.current and 2 or 1
    set_alias(name, history, table.remove(history.versions, oldest).task_id)
  end
end

local function append(name, history, task, created_at, keep)
  local version = {version = history.last + 1, task_id = task, created_at = created_at}
  point(name, history, version)
  insert(name, history, version, keep)
  save(name, history)
  return {'changed', cjson.encode(history)}
end

local function unchanged(name, history)
  save(name, history)
  return {'unchanged', cjson.encode(history)}
end

local EMPTY = {last = 0, edit = 0, current = 0, versions = {}}
"""
POINT: Final = (
    _HISTORY
    + """
local name, task, created_at, keep, edit, must_exist = unpack(ARGV)
if redis.call('EXISTS', TASK) == 0 then return {'no task'} end
local history = load(name)
if not history and must_exist == '1' then return {'superseded'} end
history = history or EMPTY
if tonumber(edit) < history.edit then return {'superseded'} end
history.edit = tonumber(edit)
if redis.call('HGET', NAMES, name) == task then return unchanged(name, history) end
return append(name, history, task, tonumber(created_at), tonumber(keep))
"""
)
CLAIM: Final = (
    _HISTORY
    + """
local name, task, created_at, keep = unpack(ARGV)
if redis.call('EXISTS', TASK) == 0 then return {'no task'} end
local holder = redis.call('HGET', NAMES, name)
if holder == task then return {'unchanged', redis.call('HGET', HISTORIES, name)} end
if holder then return {'taken', holder} end
local history = load(name) or EMPTY
history.edit = redis.call('INCR', EDITS)
return append(name, history, task, tonumber(created_at), tonumber(keep))
"""
)
ROLL_BACK: Final = (
    _HISTORY
    + """
local name, wanted, created_at, keep = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local history = load(name)
if not history then return {'no version'} end
local serving = redis.call('HGET', NAMES, name)
local target
for _, version in ipairs(history.versions) do
  if version.version == wanted then target = version end
  if wanted == 0 and version.task_id ~= serving then target = version end
end
if not target then return {'no version'} end
history.edit = redis.call('INCR', EDITS)
if target.task_id == serving then return unchanged(name, history) end
return append(name, history, target.task_id, tonumber(created_at), tonumber(keep))
"""
)
RESTORE: Final = (
    _HISTORY
    + """
local name, task, created_at, keep, number, is_current = unpack(ARGV)
if redis.call('EXISTS', TASK) == 0 then return {'no task'} end
local history = load(name) or EMPTY
local version = {
  version = tonumber(number), task_id = task, created_at = tonumber(created_at)
}
for _, known in ipairs(history.versions) do
  if known.version == version.version then
    if known.task_id ~= task then return {'taken', known.task_id} end
    return {'unchanged', cjson.encode(history)}
  end
end
if is_current == '1' and version.version > history.last then point(name, history, version) end
insert(name, history, version, tonumber(keep))
save(name, history)
return {'changed', cjson.encode(history)}
"""
)
DELETE: Final = (
    _HISTORY
    + """
local name = ARGV[1]
local history = load(name)
if not history then return 0 end
local versions = history.versions
history.versions = {}
save(name, history)
redis.call('HDEL', NAMES, name)
for _, version in ipairs(versions) do set_alias(name, history, version.task_id) end
return 1
"""
)
FORGET_TASK: Final = (
    _HISTORY
    + """
local task = ARGV[1]
local names = redis.call('HGET', ALIASES, task)
for _, name in ipairs(names and cjson.decode(names) or {}) do
  local history = load(name) or EMPTY
  local kept = {}
  for _, version in ipairs(history.versions) do
    if version.task_id ~= task then table.insert(kept, version) end
  end
  history.versions = kept
  if redis.call('HGET', NAMES, name) == task then
    redis.call('HDEL', NAMES, name)
    history.current = 0
  end
  save(name, history)
end
return redis.call('HDEL', ALIASES, task)
"""
)
