// Polar's timestamps: text with microseconds, and a later one for every change of an object.

/** Time as Polar writes it, such as 2026-11-20T12:00:00.123000Z. */
export function timestamp(ms: number, micros = 0): string {
  const text = new Date(ms).toISOString()
  return `${text.slice(0, -1)}${String(micros).padStart(3, '0')}Z`
}

/** The timestamp for now, or one microsecond past `earlier` when the clock has not moved on since. */
export function timestampAfter(earlier: string, nowMs: number): string {
  if (timestamp(nowMs) > earlier) return timestamp(nowMs)
  const micros = Number(earlier.slice(-4, -1)) + 1
  return timestamp(Date.parse(earlier) + Math.floor(micros / 1000), micros % 1000)
}

/** One billing period on. A 31st becomes the last day of a shorter month, as on Polar. */
export function addInterval(from: string, interval: 'day' | 'week' | 'month' | 'year', count: number): string {
  const date = new Date(from)
  if (interval === 'day' || interval === 'week') {
    date.setUTCDate(date.getUTCDate() + count * (interval === 'week' ? 7 : 1))
    return timestamp(date.getTime())
  }
  const day = date.getUTCDate()
  date.setUTCDate(1)
  date.setUTCMonth(date.getUTCMonth() + count * (interval === 'year' ? 12 : 1))
  const lastDay = new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 0)).getUTCDate()
  date.setUTCDate(Math.min(day, lastDay))
  return timestamp(date.getTime())
}
