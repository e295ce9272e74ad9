// The arithmetic of budgets in KV: what is spent and held in a window, changed by steps that nothing can come between.
import type { KvScript, MemoryEntries } from '../kv.ts'

/**
 * What KV keeps of one budget in one window. As text: `created seeded spent until=amount …`, the same from Lua and from
 * JavaScript. Holds are sums by the instant they end at, which callers round, so that a state stays small however many there are.
 */
export interface WindowState {
  createdMs: number
  /** When what the database knows was last counted in; 0 before the first time. */
  seededMs: number
  spentMicroUsd: number
  held: Map<number, number>
}

/** Reads a state; holds that have ended are left out. */
export function parseWindow(text: string, nowMs: number): WindowState {
  const [created, seeded, spent, ...slots] = text.split(' ')
  const held = new Map<number, number>()
  for (const slot of slots) {
    const [untilMs, amount] = slot.split('=').map(Number)
    if (untilMs !== undefined && amount !== undefined && untilMs > nowMs) held.set(untilMs, amount)
  }
  return { createdMs: Number(created), seededMs: Number(seeded), spentMicroUsd: Number(spent), held }
}

export function heldIn({ held }: WindowState): number {
  return [...held.values()].reduce((sum, amount) => sum + amount, 0)
}

function textOf({ createdMs, seededMs, spentMicroUsd, held }: WindowState): string {
  return [createdMs, seededMs, spentMicroUsd, ...[...held].map(([until, amount]) => `${until}=${amount}`)].join(' ')
}

function load(entries: MemoryEntries, key: string, nowMs: number): WindowState | undefined {
  const text = entries.read(key)
  return text === null ? undefined : parseWindow(text, nowMs)
}

const LUA_STATES = `
local function whole(number)
  return string.format('%.0f', number)
end
local function load(key, now)
  local text = redis.call('GET', key)
  if not text then return nil end
  local created, seeded, spent, rest = string.match(text, '^(%d+) (%d+) (%d+)(.*)$')
  local state = { created = tonumber(created), seeded = tonumber(seeded), spent = tonumber(spent), held = {} }
  for untilMs, amount in string.gmatch(rest, ' (%d+)=(%d+)') do
    if tonumber(untilMs) > now then table.insert(state.held, { tonumber(untilMs), tonumber(amount) }) end
  end
  return state
end
local function save(key, state, ttl)
  local parts = { whole(state.created), whole(state.seeded), whole(state.spent) }
  for _, slot in ipairs(state.held) do table.insert(parts, whole(slot[1]) .. '=' .. whole(slot[2])) end
  redis.call('SET', key, table.concat(parts, ' '), 'PX', ttl)
end
`

/**
 * Holds an amount in every window or in none. Keys: the hold's mark, then the windows. Arguments: now, the end of the hold, the
 * amount, the mark's time to live, the time before which a seed is too old; then for each window its limit, time to live and seed
 * ('' when the caller has none). Answers 'held', 'seed' when it needs the seeds, or 'refused <index of the window> <spent there>'.
 *
 * A seed is what the database knows to be spent. It is added to what was settled in a window without one, as those calls may not be in
 * the database yet; later the larger of both counts, so that a call in both is counted once and one that KV missed is made up for.
 */
export const HOLD: KvScript = {
  lua: `${LUA_STATES}
local now, untilMs, amount, markTtl, staleBefore = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
if redis.call('EXISTS', KEYS[1]) == 1 then return 'held' end
local states = {}
for i = 2, #KEYS do
  local state, seed = load(KEYS[i], now), ARGV[3 * i + 2]
  if not state or state.seeded < staleBefore then
    if seed == '' then return 'seed' end
    if not state then state = { created = now, seeded = 0, spent = 0, held = {} } end
    if state.seeded == 0 then state.spent = state.spent + tonumber(seed)
    else state.spent = math.max(state.spent, tonumber(seed)) end
    state.seeded = now
  end
  states[i] = state
end
local refused
for i = 2, #KEYS do
  local sum = states[i].spent + amount
  for _, slot in ipairs(states[i].held) do sum = sum + slot[2] end
  if not refused and sum > tonumber(ARGV[3 * i]) then refused = i end
end
for i = 2, #KEYS do
  if not refused then
    local found = false
    for _, slot in ipairs(states[i].held) do
      if slot[1] == tonumber(untilMs) then slot[2] = slot[2] + amount; found = true end
    end
    if not found then table.insert(states[i].held, { tonumber(untilMs), amount }) end
  end
  save(KEYS[i], states[i], ARGV[3 * i + 1])
end
if refused then return 'refused ' .. (refused - 2) .. ' ' .. whole(states[refused].spent) end
redis.call('SET', KEYS[1], whole(now) .. ' ' .. untilMs .. ' ' .. whole(amount), 'PX', markTtl)
return 'held'
`,
  memory(entries, [mark = '', ...keys], args) {
    const [nowMs = 0, untilMs = 0, amount = 0, markTtlMs = 0, staleBeforeMs = 0] = args.map(Number)
    if (entries.read(mark) !== null) return 'held'
    const windows: { key: string; state: WindowState; limit: number; ttlMs: number }[] = []
    for (const [index, key] of keys.entries()) {
      const [limit = '', ttl = '', seed = ''] = args.slice(5 + 3 * index)
      const known = load(entries, key, nowMs)
      const state = known ?? { createdMs: nowMs, seededMs: 0, spentMicroUsd: 0, held: new Map() }
      if (!known || known.seededMs < staleBeforeMs) {
        if (seed === '') return 'seed'
        const { seededMs, spentMicroUsd } = state
        state.spentMicroUsd = seededMs === 0 ? spentMicroUsd + Number(seed) : Math.max(spentMicroUsd, Number(seed))
        state.seededMs = nowMs
      }
      windows.push({ key, state, limit: Number(limit), ttlMs: Number(ttl) })
    }
    const refused = windows.findIndex(({ state, limit }) => state.spentMicroUsd + heldIn(state) + amount > limit)
    for (const { key, state, ttlMs } of windows) {
      if (refused < 0) state.held.set(untilMs, (state.held.get(untilMs) ?? 0) + amount)
      entries.write(key, textOf(state), ttlMs)
    }
    if (refused >= 0) return `refused ${refused} ${windows[refused]?.state.spentMicroUsd}`
    entries.write(mark, `${nowMs} ${untilMs} ${amount}`, markTtlMs)
    return 'held'
  },
}

/**
 * Turns a hold into what was spent, once. Keys: the hold's mark, then the windows it was made in. Arguments: now, the cost, the mark's
 * time to live, then each window's. Answers what is spent in each window now, in their order.
 *
 * A hold whose lease has ended, or that was lost, takes nothing out of what is held, and its cost counts all the same.
 */
export const SETTLE: KvScript = {
  lua: `${LUA_STATES}
local now, cost, markTtl = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local mark = redis.call('GET', KEYS[1])
local heldAt, untilMs, amount = string.match(mark or '', '^(%d+) (%d+) (%d+)$')
local spent = {}
for i = 2, #KEYS do
  local state = load(KEYS[i], now) or { created = now, seeded = 0, spent = 0, held = {} }
  if mark ~= 'settled' then
    if heldAt and state.created <= tonumber(heldAt) then
      for index, slot in ipairs(state.held) do
        if slot[1] == tonumber(untilMs) then
          slot[2] = math.max(0, slot[2] - tonumber(amount))
          if slot[2] == 0 then table.remove(state.held, index) end
          break
        end
      end
    end
    state.spent = state.spent + cost
    save(KEYS[i], state, ARGV[i + 2])
  end
  table.insert(spent, whole(state.spent))
end
redis.call('SET', KEYS[1], 'settled', 'PX', markTtl)
return table.concat(spent, ' ')
`,
  memory(entries, [markKey = '', ...keys], args) {
    const [nowMs = 0, cost = 0, markTtlMs = 0, ...ttls] = args.map(Number)
    const mark = entries.read(markKey)
    const [heldAtMs, untilMs = 0, amount = 0] = mark === null || mark === 'settled' ? [] : mark.split(' ').map(Number)
    const spent = keys.map((key, index) => {
      const empty: WindowState = { createdMs: nowMs, seededMs: 0, spentMicroUsd: 0, held: new Map() }
      const state = load(entries, key, nowMs) ?? empty
      if (mark === 'settled') return state.spentMicroUsd
      const slot = state.held.get(untilMs)
      if (heldAtMs !== undefined && slot !== undefined && state.createdMs <= heldAtMs) {
        if (slot > amount) state.held.set(untilMs, slot - amount)
        else state.held.delete(untilMs)
      }
      state.spentMicroUsd += cost
      entries.write(key, textOf(state), ttls[index] ?? 0)
      return state.spentMicroUsd
    })
    entries.write(markKey, 'settled', markTtlMs)
    return spent.join(' ')
  },
}
