// What an operator stopped by hand: making images at all, or one provider. In force on every instance within seconds.
import { setTimeout as pause } from 'node:timers/promises'
import { sql } from 'kysely'
import { db } from '../db/client.ts'
import { PROVIDER_IDS } from './ai/capabilities.ts'
import { type Actor, recordAudit } from './audit.ts'
import { describeError, log } from './log.ts'

/** Everything that has a switch. */
export const SWITCHES = ['generate', ...PROVIDER_IDS] as const
export type SwitchName = (typeof SWITCHES)[number]

/** How long an instance believes what it read. */
const BELIEVED_MS = 10_000
const READ_TIMEOUT_MS = 2_000

/** Name → reason, of what is off. Kept while the database cannot be read: a stop stays a stop, and nothing else fails over it. */
let off = new Map<string, string>()
let believedUntilMs = 0
let reading: Promise<void> | undefined

/** Why `name` is switched off, or undefined while it is on. Never throws. */
export async function switchedOff(name: string): Promise<string | undefined> {
  if (believedUntilMs <= Date.now()) {
    reading ??= read().finally(() => {
      reading = undefined
    })
    await reading
  }
  return off.get(name)
}

async function read(): Promise<void> {
  const rows = db().selectFrom('switches').select(['name', 'reason']).where('off', '=', true).execute()
  try {
    const found = await Promise.race([rows, pause(READ_TIMEOUT_MS, undefined, { ref: false })])
    if (!found) throw new Error(`No answer within ${READ_TIMEOUT_MS} ms.`)
    off = new Map(found.map(({ name, reason }) => [name, reason]))
  } catch (error) {
    log('warn', 'switches_unreadable', { error: describeError(error) })
  }
  believedUntilMs = Date.now() + BELIEVED_MS
}

/** Turns something off or on again, for all instances within seconds and for this one at once. */
export async function setSwitch(name: SwitchName, to: { off: boolean; reason: string }, by: Actor): Promise<void> {
  await db()
    .transaction()
    .execute(async (trx) => {
      const before = await trx
        .selectFrom('switches')
        .select(['off', 'reason'])
        .where('name', '=', name)
        .forUpdate()
        .executeTakeFirst()
      const values = { ...to, changed_by: by.actor.id ?? null, changed_at: sql<Date>`now()` }
      await trx
        .insertInto('switches')
        .values({ name, ...values })
        .onConflict((conflict) => conflict.column('name').doUpdateSet(values))
        .execute()
      await recordAudit(trx, {
        ...by,
        action: to.off ? 'switch.off' : 'switch.on',
        target: { type: 'switch', id: name },
        before: { off: before?.off ?? false },
        after: { off: to.off },
      })
    })
  await reading // It may have begun before the change.
  believedUntilMs = 0
}
