// npm run rotate-keys: seals every kept secret anew under the first key of ENCRYPTION_KEYS, beside a running server.
import { type Kysely, sql } from 'kysely'
import { closeDatabase, db } from '../db/client.ts'
import type { Database } from '../db/schema.ts'
import { isSealedAnew, open, type Place, seal, vaultOffReason } from '../lib/vault.ts'

const BATCH = 200

/** Where sealed secrets are kept. `key` is the column whose value names the row, as the secret is bound to it. */
const PLACES: readonly { table: string; column: string; key: string }[] = [
  { table: 'mfa_factors', column: 'secret', key: 'user_id' },
]

export interface Rotation {
  table: string
  column: string
  /** Sealed anew. */
  rotated: number
  /** Under the first key already. */
  current: number
  /** Changed or removed by somebody else meanwhile, who sealed it under the first key. */
  overtaken: number
  /** Rows that no key opens; they stay as they are. */
  unreadable: string[]
}

/** Goes through every place in batches. A second run finds nothing to do; one that was cut short is finished by the next. */
export async function rotateKeys(database: Kysely<Database>): Promise<Rotation[]> {
  const rotations: Rotation[] = []
  for (const place of PLACES) rotations.push(await rotatePlace(database, place))
  return rotations
}

async function rotatePlace(database: Kysely<Database>, { table, column, key }: (typeof PLACES)[number]) {
  const rotation: Rotation = { table, column, rotated: 0, current: 0, overtaken: 0, unreadable: [] }
  const [from, what, id] = [sql.table(table), sql.ref(column), sql.ref(key)]
  for (let last = ''; ; ) {
    const { rows } = await sql<{ row: string; secret: string }>`
      select ${id}::text as row, ${what} as secret from ${from}
        where ${what} is not null and ${id}::text > ${last} order by ${id}::text limit ${BATCH}
    `.execute(database)
    for (const { row, secret } of rows) {
      const sealed = isSealedAnew(secret) ? secret : resealed(secret, { table, row, column })
      if (sealed === undefined) rotation.unreadable.push(row)
      else if (sealed === secret) rotation.current += 1
      else {
        const { numAffectedRows = 0n } = await sql`
          update ${from} set ${what} = ${sealed} where ${id}::text = ${row} and ${what} = ${secret}
        `.execute(database)
        rotation[numAffectedRows > 0n ? 'rotated' : 'overtaken'] += 1
      }
    }
    if (rows.length < BATCH) return rotation
    last = rows.at(-1)?.row ?? ''
  }
}

function resealed(secret: string, place: Place): string | undefined {
  try {
    return seal(open(secret, place), place)
  } catch {
    return undefined
  }
}

async function main(): Promise<void> {
  const reason = vaultOffReason()
  if (reason) {
    console.error(reason)
    process.exitCode = 1
    return
  }
  for (const { table, column, rotated, current, overtaken, unreadable } of await rotateKeys(db())) {
    console.log(`${table}.${column}  ${rotated} sealed anew, ${current} current, ${overtaken} changed meanwhile`)
    for (const row of unreadable) console.error(`${table}.${column} of ${row} cannot be opened with these keys`)
    if (unreadable.length > 0) process.exitCode = 1
  }
}

if (import.meta.main) {
  try {
    await main()
  } finally {
    await closeDatabase()
  }
}
