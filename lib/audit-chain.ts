// The chain of the audit log, checked from outside the database: every row against its seal, the end against the head, and both
// against heads that were signed or noted elsewhere.
import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import type { Database } from '../db/schema.ts'
import { keyFor } from './auth/secret.ts'
import { AppError } from './http/errors.ts'
import { log } from './log.ts'

const BATCH_ROWS = 500
const PROBLEMS_MAX = 100
const START = '0'.repeat(64)

/** Where the chain ends, or ended once. */
export interface Head {
  seq: number
  hash: string
}

export type Problem =
  /** The row, or its place in the chain, is not what was sealed. */
  | { problem: 'changed'; seq: number; auditId: number }
  /** The chain has an entry whose row is gone. */
  | { problem: 'row_missing'; seq: number; auditId: number }
  /** Entries up to `seq` are gone. */
  | { problem: 'gap'; seq: number }
  /** A row that was never sealed. */
  | { problem: 'not_chained'; auditId: number }
  /** The chain ends before or after the head, or the head is gone or another: `seq` is where the chain ends. */
  | { problem: 'head_mismatch'; seq: number }
  /** A signed head that the chain does not go through. */
  | { problem: 'anchor_mismatch'; seq: number }
  /** A head that this deployment's secret did not sign. */
  | { problem: 'anchor_forged'; seq: number }
  /** The head that was noted elsewhere is not in the chain. */
  | { problem: 'noted_head_mismatch'; seq: number }

export interface Verification {
  ok: boolean
  /** Rows whose seal was checked. */
  rows: number
  head: Head
  /** The first 100. */
  problems: Problem[]
  problemsFound: number
}

/** `seq:hash`, as `npm run audit -- head` prints it; undefined when it is none. */
export function parseHead(text: string): Head | undefined {
  if (!/^\d{1,15}:[\da-f]{64}$/.test(text)) return undefined
  const [seq, hash = ''] = text.split(':')
  return { seq: Number(seq), hash }
}

/** The head as the database has it. Throws when it is gone. */
export async function auditHead(db: Kysely<Database>): Promise<Head> {
  const head = await readHead(db)
  if (!head) throw new Error('The head of the audit log is gone.')
  return head
}

/**
 * Signs the head with a key that the database does not have, and writes it to the log, where no one who can only reach the
 * database can change it. Without a secret to sign with, the log has it alone.
 */
export async function anchorAudit(db: Kysely<Database>): Promise<Head> {
  const head = await auditHead(db)
  if (head.seq === 0) return head
  const mac = signatureOf(head)
  if (mac !== undefined) {
    await db
      .insertInto('audit_anchors')
      .values({ ...head, mac })
      .onConflict((conflict) => conflict.doNothing())
      .execute()
  }
  log('info', 'audit_anchor', { ...head })
  return head
}

/**
 * Walks the whole chain in batches, while rows are appended, too. Every hash is worked out here, not by the database. `noted` is
 * a head from elsewhere, such as the log: the one thing that shows that log, chain, head and anchors were all cut together.
 */
export async function verifyAudit(db: Kysely<Database>, noted?: Head): Promise<Verification> {
  const found = new Findings()
  const [anchors, heads] = [await readAnchors(db, found), new Map([[0, START]])]
  const wanted = new Set(anchors.map(({ seq }) => seq))
  if (noted) wanted.add(noted.seq)
  const walk: Walk = { seq: 0, hash: START, rows: 0 }
  let head = await walkToEnd(db, walk, found, (at) => void (wanted.has(at.seq) && heads.set(at.seq, at.hash)))
  if (!head || head.seq !== walk.seq || head.hash !== walk.hash) {
    found.add({ problem: 'head_mismatch', seq: walk.seq })
    head ??= { seq: walk.seq, hash: walk.hash }
  }
  await findUnchained(db, found)
  for (const { seq, hash } of anchors) {
    if (heads.get(seq) !== hash) found.add({ problem: 'anchor_mismatch', seq })
  }
  if (noted && heads.get(noted.seq) !== noted.hash) found.add({ problem: 'noted_head_mismatch', seq: noted.seq })
  const { problems, count } = found
  return { ok: count === 0, rows: walk.rows, head, problems, problemsFound: count }
}

class Findings {
  readonly problems: Problem[] = []
  count = 0

  add(problem: Problem): void {
    this.count += 1
    if (this.problems.length < PROBLEMS_MAX) this.problems.push(problem)
  }
}

interface Walk extends Head {
  rows: number
}

interface Entry {
  seq: number
  audit_id: number
  hash: string
  content: string | null
}

/** Walks until the chain ends where the head says, or ends. Returns the head, which is read after what it is compared with. */
async function walkToEnd(
  db: Kysely<Database>,
  walk: Walk,
  found: Findings,
  pass: (at: Head) => void,
): Promise<Head | undefined> {
  let head: Head | undefined
  for (;;) {
    for (let batch = await readEntries(db, walk.seq); batch.length > 0; batch = await readEntries(db, walk.seq)) {
      for (const entry of batch) {
        step(walk, entry, found)
        pass(walk)
      }
    }
    if (head && head.seq > walk.seq) return head
    head = await readHead(db)
    // Rows that were appended since the last batch are walked as well.
    if (!head || head.seq <= walk.seq) return head
  }
}

/** After a problem the walk goes on from what the chain says, so that one change is one finding. */
function step(walk: Walk, { seq, audit_id: auditId, hash, content }: Entry, found: Findings): void {
  const isNext = seq === walk.seq + 1
  if (!isNext) found.add({ problem: 'gap', seq: seq - 1 })
  if (content === null) found.add({ problem: 'row_missing', seq, auditId })
  else if (isNext && sealOf(walk.hash, content) !== hash) found.add({ problem: 'changed', seq, auditId })
  walk.seq = seq
  walk.hash = hash
  walk.rows += 1
}

function sealOf(previous: string, content: string): string {
  return createHash('sha256')
    .update(previous + content)
    .digest('hex')
}

/** `content` is every column of the row in the form that the migration of the chain seals. */
async function readEntries(db: Kysely<Database>, after: number): Promise<Entry[]> {
  const { rows } = await sql<Entry>`
    select c.seq, c.audit_id, c.hash, case when l.id is not null then jsonb_build_array(
        l.id, (extract(epoch from l.at) * 1000000)::bigint, l.actor_type, l.actor_id, l.impersonator,
        l.action, l.target_type, l.target_id, l.reason, l.details, l.before, l.after, l.ip,
        l.user_agent, l.request_id)::text end as content
      from audit_chain c left join audit_log l on l.id = c.audit_id
      where c.seq > ${after} order by c.seq limit ${BATCH_ROWS}
  `.execute(db)
  return rows
}

async function readHead(db: Kysely<Database>): Promise<Head | undefined> {
  return await db.selectFrom('audit_head').select(['seq', 'hash']).executeTakeFirst()
}

/** A row and its entry are committed together, so that a row without one was put there. */
async function findUnchained(db: Kysely<Database>, found: Findings): Promise<void> {
  let after = Number.MIN_SAFE_INTEGER
  for (;;) {
    const batch = await db
      .selectFrom('audit_log as row')
      .leftJoin('audit_chain as chain', 'chain.audit_id', 'row.id')
      .select(['row.id', 'chain.seq'])
      .where('row.id', '>', after)
      .orderBy('row.id')
      .limit(BATCH_ROWS * 10)
      .execute()
    for (const { id, seq } of batch) if (seq === null || seq < 1) found.add({ problem: 'not_chained', auditId: id })
    const last = batch.at(-1)
    if (!last) return
    after = last.id
  }
}

/** The anchors that are genuine. One a day: there are never many. */
async function readAnchors(db: Kysely<Database>, found: Findings): Promise<Head[]> {
  const anchors = await db.selectFrom('audit_anchors').select(['seq', 'hash', 'mac']).orderBy('seq').execute()
  return anchors.filter(({ seq, hash, mac }) => {
    const genuine = isSignature(mac, signatureOf({ seq, hash }))
    if (!genuine) found.add({ problem: 'anchor_forged', seq })
    return genuine
  })
}

function isSignature(mac: string, signature: string | undefined): boolean {
  return (
    signature !== undefined &&
    mac.length === signature.length &&
    timingSafeEqual(Buffer.from(mac), Buffer.from(signature))
  )
}

/** Undefined where there is no secret to sign with. */
function signatureOf({ seq, hash }: Head): string | undefined {
  try {
    return createHmac('sha256', keyFor('audit-anchor')).update(`${seq}:${hash}`).digest('base64url')
  } catch (error) {
    if (error instanceof AppError && error.code === 'FEATURE_DISABLED') return undefined
    throw error
  }
}
