// Results kept to be given again: the same picture, tool, options and prompt get the same answer, and no provider is paid for it.
import { createHash } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { type Made, type Result, usedFallback } from '../ai/router.ts'
import { config } from '../config.ts'
import { MIME_TYPE } from '../image.ts'
import { describeError, log } from '../log.ts'
import { type Order, promptOf } from './order.ts'

/** Raised when what is made of the same order changes with this version of the code. */
const GENERATION = 1
const TEXT_TYPE = 'text/plain'
const ENTRY_BYTES_MAX = 8_000_000
const FORMATS = ['png', 'jpeg', 'webp'] as const

/**
 * What was made of the same order before, while it is kept; undefined where `ai.cacheSeconds` is 0. An order that names its
 * provider gets only what that one made. Never throws.
 */
export async function keptResult(order: Order, userId: string): Promise<Made | undefined> {
  const { cacheSeconds } = config().ai
  if (cacheSeconds === 0) return undefined
  try {
    const makers = order.provider === undefined ? order.tool.providers : [order.provider]
    const base = baseOf(order, userId)
    const row = await db()
      .selectFrom('result_cache')
      .select(['result', 'result_type', 'width', 'height', 'provider', 'model'])
      .where(
        'key',
        'in',
        makers.map((provider) => keyOf(base, provider)),
      )
      .where('expires_at', '>', sql<Date>`now()`)
      // A shorter time that was configured since is in force at once.
      .where('made_at', '>', sql<Date>`now() - make_interval(secs => ${cacheSeconds})`)
      .orderBy('made_at', 'desc')
      .limit(1)
      .executeTakeFirst()
    const result = row && resultOf(row)
    return result && { result, provider: row.provider, model: row.model, costMicroUsd: 0, failed: [], calls: [] }
  } catch (error) {
    log('warn', 'result_cache_unread', { error: describeError(error) })
    return undefined
  }
}

/**
 * Keeps what was made, unless another provider stood in for the first one: the next try may get the better result. Never throws:
 * a caller who was charged gets the answer all the same.
 */
export async function keepResult(order: Order, userId: string, made: Made): Promise<void> {
  const { cacheSeconds, cacheSharedBetweenUsers } = config().ai
  if (cacheSeconds === 0 || usedFallback(made)) return
  const { result, provider, model } = made
  const bytes = 'text' in result ? Buffer.from(result.text) : result.bytes
  if (bytes.length > ENTRY_BYTES_MAX) return
  try {
    const entry = {
      user_id: cacheSharedBetweenUsers ? null : userId,
      result: bytes,
      result_type: 'text' in result ? TEXT_TYPE : MIME_TYPE[result.format],
      width: 'text' in result ? null : result.width,
      height: 'text' in result ? null : result.height,
      provider,
      model,
      made_at: sql<Date>`now()`,
      expires_at: sql<Date>`now() + make_interval(secs => ${cacheSeconds})`,
    }
    await db()
      .insertInto('result_cache')
      .values({ key: keyOf(baseOf(order, userId), provider), ...entry })
      .onConflict((conflict) => conflict.column('key').doUpdateSet(entry))
      .execute()
  } catch (error) {
    log('warn', 'result_not_kept', { error: describeError(error) })
  }
}

/** Drops results whose time is over, up to `limit`. */
export async function sweepResults(database: Kysely<Database>, limit: number): Promise<number> {
  const { numDeletedRows } = await database
    .deleteFrom('result_cache')
    .where('key', 'in', (of) =>
      of.selectFrom('result_cache').select('key').where('expires_at', '<=', sql<Date>`now()`).limit(limit),
    )
    .executeTakeFirst()
  return Number(numDeletedRows)
}

/**
 * Everything that decides what is made, but for who makes it. The picture counts by its bytes without metadata, upright: the
 * pixels would find more equals, but decoding costs more than most hits save.
 */
function baseOf(order: Order, userId: string): string {
  const { tool, image, options } = order
  const { routing, providers, cacheSharedBetweenUsers } = config().ai
  const facts = {
    generation: GENERATION,
    userId: cacheSharedBetweenUsers ? null : userId,
    tool: tool.name,
    does: tool.does,
    prompt: promptOf(order),
    options: Object.entries(options).sort(([one], [other]) => (one < other ? -1 : 1)),
    routing,
    providers: tool.providers.map((id) => {
      if (id === 'sketch') return [id]
      const { model, successors, ...more } = providers[id]
      return [id, model, successors, 'textModel' in more ? more.textModel : null]
    }),
  }
  const hash = createHash('sha256').update(JSON.stringify(facts))
  return (image ? hash.update('\0').update(image.bytes) : hash).digest('hex')
}

/** One row per maker, so that an order for one of them never meets what another made. */
function keyOf(base: string, provider: string): string {
  return createHash('sha256').update(`${base} ${provider}`).digest('hex')
}

function resultOf(row: {
  result: Uint8Array
  result_type: string
  width: number | null
  height: number | null
}): Result | undefined {
  const bytes = Buffer.from(row.result.buffer, row.result.byteOffset, row.result.byteLength)
  if (row.result_type === TEXT_TYPE) return { text: bytes.toString() }
  const format = FORMATS.find((name) => MIME_TYPE[name] === row.result_type)
  if (format === undefined || row.width === null || row.height === null) return undefined
  return { bytes, format, width: row.width, height: row.height }
}
