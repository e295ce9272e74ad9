// What a user's runs of tools amount to, read from real PostgreSQL: page by page, summed up, and of nobody else.
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { listUsage, summariseUsage, type UsageFilter } from '../../lib/ledger/history.ts'
import { startApp } from '../support/app.ts'
import { givenUsage } from '../support/billing-rows.ts'
import { makeClock } from '../support/clock.ts'
import { givenAccount } from '../support/ledger-account.ts'
import { OPENED } from '../support/paid-plans.ts'

let userId: string
let all: UsageFilter
/** The user's runs, the oldest first. */
let ids: string[]

beforeAll(async () => {
  await startApp()
  await makeClock(db())
})

beforeEach(async () => {
  userId = (await givenAccount(OPENED)).userId
  all = { userId, from: undefined, to: undefined, tool: undefined }
  ids = await givenUsage(userId, [
    { at: '2026-01-01T23:59:59Z', tokens: 100 },
    { at: '2026-01-02T00:00:00Z', tokens: 0, status: 'error', provider: null },
    { at: '2026-01-02T12:00:00Z', tokens: 0, trial: true },
    { at: '2026-01-02T13:00:00Z', tokens: 200 },
  ])
  await givenUsage((await givenAccount(OPENED)).userId, [{ at: '2026-01-02T00:00:00Z', tokens: 7 }])
})

describe('the list of runs', () => {
  const listed = async (filter: Partial<Parameters<typeof listUsage>[1]> = {}) => {
    const rows = await listUsage(db(), { ...all, limit: 10, after: undefined, ...filter })
    return rows.map(({ id }) => ids.indexOf(id))
  }

  test('begins with the newest, and shows each as it was', async () => {
    expect(await listed()).toEqual([3, 2, 1, 0])
    const [row] = await listUsage(db(), { ...all, limit: 1, after: undefined })
    expect(row).toEqual({
      id: ids[3],
      timestamp: new Date('2026-01-02T13:00:00Z'),
      tool: 'coloring-page',
      tokens_used: 200,
      trial: false,
      response_status: 'success',
      duration_ms: null,
      provider: 'sketch',
      model: null,
      error_code: null,
      request_id: expect.any(String),
      api_key_id: null,
    })
  })

  test('gives one more than was asked for where there are more, and goes on after a run', async () => {
    expect(await listed({ limit: 2 })).toEqual([3, 2, 1])
    expect(await listed({ limit: 2, after: ids[2] ?? '' })).toEqual([1, 0])
    const [strange = ''] = await givenUsage((await givenAccount(OPENED)).userId, [
      { at: '2026-01-03T00:00:00Z', tokens: 7 },
    ])
    expect(await listed({ after: strange }), "after another user's run").toEqual([])
  })

  test('goes on within one moment without leaving out or repeating a run', async () => {
    const at = '2026-01-05T00:00:00Z'
    const twins = await givenUsage(userId, [
      { at, tokens: 1 },
      { at, tokens: 2 },
      { at, tokens: 3 },
    ])
    const seen: string[] = []
    for (let after: string | undefined; seen.length < 3; after = seen.at(-1)) {
      const [row] = await listUsage(db(), { ...all, limit: 1, after })
      seen.push(row?.id ?? 'none')
    }
    expect(seen.toSorted()).toEqual(twins.toSorted())
    expect(seen).toEqual(seen.toSorted().reverse())
  })

  test('keeps to a time, its beginning included, and to a tool', async () => {
    expect(await listed({ from: new Date('2026-01-02T00:00:00Z') })).toEqual([3, 2, 1])
    expect(await listed({ to: new Date('2026-01-02T12:00:00Z') })).toEqual([1, 0])
    expect(await listed({ tool: 'coloring-page' })).toEqual([3, 2, 1, 0])
    expect(await listed({ tool: 'another' })).toEqual([])
  })
})

describe('the sums of runs', () => {
  test('are told of all and of each day by UTC, the newest first', async () => {
    expect(await summariseUsage(db(), all)).toEqual({
      total: { calls: 4, succeeded: 3, trials: 1, tokens: 300 },
      days: [
        { day: '2026-01-02', calls: 3, succeeded: 2, trials: 1, tokens: 200 },
        { day: '2026-01-01', calls: 1, succeeded: 1, trials: 0, tokens: 100 },
      ],
    })
  })

  test('of none are nothing', async () => {
    expect(await summariseUsage(db(), { ...all, tool: 'another' })).toEqual({
      total: { calls: 0, succeeded: 0, trials: 0, tokens: 0 },
      days: [],
    })
  })

  test('are of all runs, and of the last 366 days that have any', async () => {
    const runs = Array.from({ length: 366 }, (_, day) => ({
      at: new Date(Date.UTC(2024, 0, 1 + day)).toISOString(),
      tokens: 1,
    }))
    await givenUsage(userId, runs)
    const { total, days } = await summariseUsage(db(), all)
    expect(total).toMatchObject({ calls: 370, tokens: 666 })
    expect(days).toHaveLength(366)
    expect(days.at(-1)?.day).toBe('2024-01-03')
  })
})
