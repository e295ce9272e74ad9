// Pages of lists that are ordered by time and id: where the next one begins, to the microsecond.
import { type Expression, type SqlBool, sql } from 'kysely'
import * as v from 'valibot'

/** The last row of a page. Microseconds since 1970 keep what a Date would cut off. */
export interface Position {
  micros: number
  id: string
}

const POSITION = /^(\d{1,15}|[1-8]\d{15}) ([!-~]{1,120})$/

/** A cursor that we gave out; whatever else is sent is an issue of the field. */
export const Cursor = v.pipe(
  v.string(),
  v.maxLength(250, 'Not a cursor of ours.'),
  v.rawTransform(({ dataset, addIssue, NEVER }): Position => {
    const [, micros, id] = POSITION.exec(Buffer.from(dataset.value, 'base64url').toString()) ?? []
    if (micros !== undefined && id !== undefined) return { micros: Number(micros), id }
    addIssue({ message: 'Not a cursor of ours.' })
    return NEVER
  }),
)

export const PageLimit = v.optional(v.pipe(v.string(), v.toNumber(), v.integer(), v.minValue(1), v.maxValue(100)), '20')

export interface Page<T> {
  data: T[]
  page: { nextCursor: string | null; hasMore: boolean }
}

/** The page of rows that were asked for as one more than `limit`, to know whether there are more. */
export function pageOf<Row, T>(
  rows: Row[],
  limit: number,
  { position, show }: { position: (row: Row) => Position; show: (row: Row) => T },
): Page<T> {
  const shown = rows.slice(0, limit)
  const last = shown.at(-1)
  const hasMore = rows.length > limit
  return { data: shown.map(show), page: { nextCursor: hasMore && last ? cursorOf(position(last)) : null, hasMore } }
}

/** The time of a row, to be selected as `micros`. */
export function microsOf(time: Expression<unknown>) {
  return sql<number>`(extract(epoch from ${time}) * 1000000)::bigint`
}

export function positionOf({ micros, id }: Position): Position {
  return { micros, id }
}

/** Whether a row comes after the position in a list that goes from the newest to the oldest. */
export function isAfter(position: Position, time: Expression<unknown>, id: Expression<unknown>) {
  return sql<SqlBool>`(${time}, ${id}) < (${timeOf(position)}, ${position.id})`
}

/** The position's time as PostgreSQL keeps it; exact until the year 2255. */
function timeOf({ micros }: Position) {
  return sql<Date>`(timestamptz 'epoch' + ${micros}::bigint * interval '1 microsecond')`
}

function cursorOf({ micros, id }: Position): string {
  return Buffer.from(`${micros} ${id}`).toString('base64url')
}
