// The time a report is about: from an instant to another, which is not part of it.
import * as v from 'valibot'

const DAY_MS = 86_400_000
const DAYS_DEFAULT = 30
const DAYS_MAX = 366

export interface Period {
  from: Date
  to: Date
}

// A year that every driver and PostgreSQL write alike, and a zone: a time without one would be the server's.
const INSTANT = /^[12]\d{3}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d))?$/

export const Instant = v.pipe(
  v.string(),
  v.check(
    (value) => INSTANT.test(value) && !Number.isNaN(Date.parse(value)),
    'Not a date such as 2026-11-01, nor a time such as 2026-11-01T12:00:00Z.',
  ),
  v.transform((value) => new Date(value)),
)

/** `?from&to`: a date is its midnight in UTC. Without `to` until now, without `from` 30 days; at most 366. */
export const PeriodQuery = v.pipe(
  v.strictObject({ from: v.optional(Instant), to: v.optional(Instant) }),
  v.rawTransform(({ dataset: { value }, addIssue, NEVER }): Period => {
    const to = value.to ?? new Date()
    const from = value.from ?? new Date(to.getTime() - DAYS_DEFAULT * DAY_MS)
    const days = (to.getTime() - from.getTime()) / DAY_MS
    if (days > 0 && days <= DAYS_MAX) return { from, to }
    const message = days > 0 ? `At most ${DAYS_MAX} days at once.` : 'Must be before `to`.'
    addIssue({ message, path: [{ type: 'object', origin: 'value', input: value, key: 'from', value: value.from }] })
    return NEVER
  }),
)
