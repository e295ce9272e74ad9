// How a circuit moves, as a step that nothing can come between: in Lua for Redis, and the same in JavaScript.
import type { KvScript } from '../kv.ts'

/** The rate of failures is that of so long; failures in a row count for as long as they are kept, or a quiet fork would hardly notice. */
export const WINDOW_MS = 60_000
/** Of a busy provider the latest calls speak; the number bounds what is kept. */
const CALLS_MAX = 50
const FAILURES_IN_ROW = 5
/** Half of the calls failing is enough, once there are this many. */
const CALLS_FOR_RATE = 10
const COOLDOWN_MS = 15_000
const COOLDOWN_MAX_MS = 300_000
/** Calls further back say nothing about now; what nobody calls for so long is forgotten, its latency too. */
const KEPT_MS = 900_000

/** How a call speaks of its provider; 'refused' are our credentials, and trying them again soon is of no use. */
export type Verdict = 'alive' | 'failed' | 'refused'

export interface Outcome {
  id: string
  atMs: number
  verdict: Verdict
  /** Of a successful answer; 0 measures nothing. */
  latencyMs: number
}

export interface Circuit {
  /** 0 while closed. */
  openUntilMs: number
  cooldownMs: number
  /** The call that finds out whether the provider is back; its lease ends, so that a crashed probe is followed by another. */
  probeId: string
  probeUntilMs: number
  /** The call that opened or closed the circuit last: whoever made it tells of the change. */
  changedBy: string
  /** Moving average; 0 before the first success. */
  latencyMs: number
  calls: { id: string; atMs: number; failed: boolean }[]
}

/** Reads what the scripts keep and answer; whatever else it finds is a closed circuit. */
export function parseCircuit(text: unknown): Circuit {
  const parts = /^(\d+)\|(\d+)\|(\w*)\|(\d+)\|(\w*)\|(\d+)\|(.*)$/.exec(typeof text === 'string' ? text : '') ?? []
  const [, openUntilMs = 0, cooldownMs = 0, probeId = '', probeUntilMs = 0, changedBy = '', latencyMs = 0, calls = ''] =
    parts
  return {
    openUntilMs: Number(openUntilMs),
    cooldownMs: Number(cooldownMs),
    probeId,
    probeUntilMs: Number(probeUntilMs),
    changedBy,
    latencyMs: Number(latencyMs),
    calls: [...calls.matchAll(/(\w+):(\d+):(\w)/g)].map(([, id = '', atMs, mark]) => {
      return { id, atMs: Number(atMs), failed: mark === 'f' }
    }),
  }
}

function format({ calls, ...circuit }: Circuit): string {
  const { openUntilMs, cooldownMs, probeId, probeUntilMs, changedBy, latencyMs } = circuit
  const told = calls.map(({ id, atMs, failed }) => `${id}:${atMs}:${failed ? 'f' : 'a'}`).join(',')
  return [openUntilMs, cooldownMs, probeId, probeUntilMs, changedBy, latencyMs, told].join('|')
}

const LUA_CIRCUIT = `
local function parse(text)
  local c = { calls = {} }
  local open, cooldown, probe, lease, by, latency, calls = string.match(text or '', '^(%d+)|(%d+)|(%w*)|(%d+)|(%w*)|(%d+)|(.*)$')
  c.open, c.cooldown, c.lease, c.latency = tonumber(open or 0), tonumber(cooldown or 0), tonumber(lease or 0), tonumber(latency or 0)
  c.probe, c.by = probe or '', by or ''
  for id, at, mark in string.gmatch(calls or '', '(%w+):(%d+):(%w)') do
    c.calls[#c.calls + 1] = { id = id, at = tonumber(at), mark = mark }
  end
  return c
end
local function format(c)
  local told = {}
  for i, call in ipairs(c.calls) do told[i] = call.id .. ':' .. string.format('%.0f', call.at) .. ':' .. call.mark end
  return string.format('%.0f|%.0f|%s|%.0f|%s|%.0f|%s', c.open, c.cooldown, c.probe, c.lease, c.by, c.latency, table.concat(told, ','))
end
local c = parse(redis.call('get', KEYS[1]))
local now = tonumber(ARGV[1])
`
const LUA_KEEP = `
local text = format(c)
redis.call('set', KEYS[1], text, 'PX', ${KEPT_MS})
return text
`

/** Takes the one probe of an open circuit whose cooldown is over. Arguments: now, the probe's id, how long its lease is. */
export const PROBE: KvScript = {
  lua: `${LUA_CIRCUIT}
local id, lease = ARGV[2], tonumber(ARGV[3])
if c.open == 0 or now < c.open or (c.probe ~= '' and c.probe ~= id and now < c.lease) then return format(c) end
c.probe, c.lease = id, now + lease
${LUA_KEEP}`,
  memory({ read, write }, [key = ''], args) {
    const before = read(key)
    const text = takeProbe(before, args)
    if (text !== before) write(key, text, KEPT_MS)
    return text
  },
}

export function takeProbe(text: string | null, [now, id = '', leaseMs]: (string | number)[]): string {
  const circuit = parseCircuit(text)
  const { openUntilMs, probeId, probeUntilMs } = circuit
  const nowMs = Number(now)
  const isTaken = probeId !== '' && probeId !== id && nowMs < probeUntilMs
  if (openUntilMs === 0 || nowMs < openUntilMs || isTaken) return format(circuit)
  return format({ ...circuit, probeId: String(id), probeUntilMs: nowMs + Number(leaseMs) })
}

/** Counts outcomes, each once however often it is told. Arguments: now, and what `outcomeArgs` makes of each. */
export const RECORD: KvScript = {
  lua: `${LUA_CIRCUIT}
local function known(id)
  for _, call in ipairs(c.calls) do if call.id == id then return true end end
  return false
end
local function measure(latency)
  if latency > 0 then c.latency = c.latency == 0 and latency or math.floor((c.latency * 7 + latency * 3) / 10 + 0.5) end
end
local function add(id, at, mark)
  if #c.calls == ${CALLS_MAX} and at < c.calls[1].at then return false end
  local place = #c.calls + 1
  while place > 1 and c.calls[place - 1].at > at do place = place - 1 end
  table.insert(c.calls, place, { id = id, at = at, mark = mark })
  if #c.calls > ${CALLS_MAX} then table.remove(c.calls, 1) end
  return true
end
local function tooManyFailures()
  local calls, failures, row = 0, 0, 0
  for _, call in ipairs(c.calls) do
    local failed = call.mark == 'f'
    row = failed and row + 1 or 0
    if call.at > now - ${WINDOW_MS} then
      calls = calls + 1
      if failed then failures = failures + 1 end
    end
  end
  return row >= ${FAILURES_IN_ROW} or (calls >= ${CALLS_FOR_RATE} and failures * 2 >= calls)
end
local kept = {}
for _, call in ipairs(c.calls) do if call.at > now - ${KEPT_MS} then kept[#kept + 1] = call end end
c.calls = kept
for i = 2, #ARGV, 4 do
  local id, at, verdict, latency = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], tonumber(ARGV[i + 3])
  local mark = verdict == 'alive' and 'a' or 'f'
  if known(id) then
  elseif c.open > 0 then
    if id == c.probe and mark == 'f' then
      c.cooldown = verdict == 'refused' and ${COOLDOWN_MAX_MS} or math.min(c.cooldown * 2, ${COOLDOWN_MAX_MS})
      c.open, c.probe, c.lease = now + c.cooldown, '', 0
    elseif id == c.probe then
      c.open, c.cooldown, c.probe, c.lease, c.by = 0, 0, '', 0, id
      c.calls = { { id = id, at = at, mark = mark } }
      measure(latency)
    end
  elseif add(id, at, mark) then
    measure(latency)
    if verdict == 'refused' or (mark == 'f' and tooManyFailures()) then
      c.cooldown = verdict == 'refused' and ${COOLDOWN_MAX_MS} or ${COOLDOWN_MS}
      c.open, c.by = now + c.cooldown, id
    end
  end
end
${LUA_KEEP}`,
  memory({ read, write }, [key = ''], args) {
    const text = countOutcomes(read(key), args)
    write(key, text, KEPT_MS)
    return text
  },
}

export function outcomeArgs({ id, atMs, verdict, latencyMs }: Outcome): (string | number)[] {
  return [id, atMs, verdict, latencyMs]
}

export function countOutcomes(text: string | null, [now, ...args]: (string | number)[]): string {
  const before = parseCircuit(text)
  let circuit = { ...before, calls: before.calls.filter(({ atMs }) => atMs > Number(now) - KEPT_MS) }
  for (let index = 0; index < args.length; index += 4) {
    const [id = '', atMs, verdict, latencyMs] = args.slice(index, index + 4)
    const failed = verdict !== 'alive'
    const call = { id: String(id), atMs: Number(atMs), failed }
    circuit = count(circuit, call, { nowMs: Number(now), refused: verdict === 'refused', latencyMs: Number(latencyMs) })
  }
  return format(circuit)
}

type CountedCall = Circuit['calls'][number]

function count(
  circuit: Circuit,
  call: CountedCall,
  { nowMs, refused, latencyMs }: { nowMs: number; refused: boolean; latencyMs: number },
): Circuit {
  if (circuit.calls.some(({ id }) => id === call.id)) return circuit
  const measured = latencyMs > 0 ? smooth(circuit.latencyMs, latencyMs) : circuit.latencyMs
  if (circuit.openUntilMs > 0) {
    // Calls that began before it opened change nothing any more.
    if (call.id !== circuit.probeId) return circuit
    const over = { probeId: '', probeUntilMs: 0 }
    if (!call.failed) {
      const closed = { openUntilMs: 0, cooldownMs: 0, changedBy: call.id, latencyMs: measured, calls: [call] }
      return { ...over, ...closed }
    }
    const cooldownMs = refused ? COOLDOWN_MAX_MS : Math.min(circuit.cooldownMs * 2, COOLDOWN_MAX_MS)
    return { ...circuit, ...over, cooldownMs, openUntilMs: nowMs + cooldownMs }
  }
  const [oldest] = circuit.calls
  if (circuit.calls.length === CALLS_MAX && oldest && call.atMs < oldest.atMs) return circuit
  // What another instance tells late belongs where it happened: an old success does not interrupt new failures.
  const place = circuit.calls.findLastIndex(({ atMs }) => atMs <= call.atMs) + 1
  const calls = circuit.calls.toSpliced(place, 0, call).slice(-CALLS_MAX)
  const next = { ...circuit, latencyMs: measured, calls }
  if (!refused && !(call.failed && tooManyFailures(calls, nowMs))) return next
  const cooldownMs = refused ? COOLDOWN_MAX_MS : COOLDOWN_MS
  return { ...next, cooldownMs, openUntilMs: nowMs + cooldownMs, changedBy: call.id }
}

function smooth(beforeMs: number, latencyMs: number): number {
  return beforeMs === 0 ? latencyMs : Math.floor((beforeMs * 7 + latencyMs * 3) / 10 + 0.5)
}

function tooManyFailures(calls: CountedCall[], nowMs: number): boolean {
  const inRow = calls.length - 1 - calls.findLastIndex(({ failed }) => !failed)
  const recent = calls.filter(({ atMs }) => atMs > nowMs - WINDOW_MS)
  const failures = recent.filter(({ failed }) => failed).length
  return inRow >= FAILURES_IN_ROW || (recent.length >= CALLS_FOR_RATE && failures * 2 >= recent.length)
}
