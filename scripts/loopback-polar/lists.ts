// Polar's lists: filters by query, sorting, pages of at most a hundred.
import { invalid } from './refusals.ts'

const LIMIT_MAX = 100

type Sortable = string | number | boolean | null | undefined

export interface ListRules<T> {
  /** Query parameters that may be repeated, and what they are compared with. */
  filters?: Record<string, (item: T) => unknown>
  /** Earliest and latest `created_at` that a query may ask for, by parameter. */
  after?: string
  before?: string
  metadata?: (item: T) => Record<string, unknown>
  sorting?: Record<string, (item: T) => Sortable>
  sortedBy?: string
}

/** One page of `items`, which are given oldest first, and the count of all that the query matches. */
export function listPage<T extends { created_at: string }>(
  items: Iterable<T>,
  query: URLSearchParams,
  rules: ListRules<T> = {},
) {
  const page = count(query, 'page', 1)
  const limit = count(query, 'limit', 10, LIMIT_MAX)
  const matching = sorted(
    [...items].filter((item) => matches(item, query, rules)),
    query,
    rules,
  )
  return {
    items: matching.slice((page - 1) * limit, page * limit),
    pagination: { total_count: matching.length, max_page: Math.max(1, Math.ceil(matching.length / limit)) },
  }
}

function matches<T extends { created_at: string }>(item: T, query: URLSearchParams, rules: ListRules<T>): boolean {
  const created = Date.parse(item.created_at)
  const [after, before] = [query.get(rules.after ?? ''), query.get(rules.before ?? '')]
  return (
    Object.entries(rules.filters ?? {}).every(([name, property]) => isAmong(query.getAll(name), property(item))) &&
    (after === null || created >= Date.parse(after)) &&
    (before === null || created <= Date.parse(before)) &&
    [...query].every(([name, value]) => {
      const key = /^metadata\[(.+)\]$/.exec(name)?.[1]
      return key === undefined || String(rules.metadata?.(item)[key]) === value
    })
  )
}

function isAmong(wanted: string[], value: unknown): boolean {
  return wanted.length === 0 || (value !== null && value !== undefined && wanted.includes(String(value)))
}

/** Objects of the same moment keep the order in which they were made. */
function sorted<T extends { created_at: string }>(items: T[], query: URLSearchParams, rules: ListRules<T>): T[] {
  const keys: ListRules<T>['sorting'] = { created_at: (item) => item.created_at, ...rules.sorting }
  const asked = query.getAll('sorting')
  const order = asked.length > 0 ? asked : [rules.sortedBy ?? '-created_at']
  for (const name of order) {
    if (!(name.replace(/^-/, '') in keys)) {
      throw invalid({ type: 'enum', loc: ['query', 'sorting'], msg: 'Input should be a known property', input: name })
    }
  }
  const numbered = items.map((item, index) => ({ item, index }))
  const isDescending = order[0]?.startsWith('-') ?? false
  numbered.sort((a, b) => {
    for (const name of order) {
      const property = keys[name.replace(/^-/, '')]
      const difference = compare(property?.(a.item), property?.(b.item))
      if (difference !== 0) return name.startsWith('-') ? -difference : difference
    }
    return isDescending ? b.index - a.index : a.index - b.index
  })
  return numbered.map(({ item }) => item)
}

function compare(a: Sortable, b: Sortable): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b
  return String(a ?? '') < String(b ?? '') ? -1 : String(a ?? '') > String(b ?? '') ? 1 : 0
}

function count(query: URLSearchParams, name: string, otherwise: number, max = Number.MAX_SAFE_INTEGER): number {
  const value = Number(query.get(name) ?? otherwise)
  const issue = { loc: ['query', name], input: query.get(name) }
  if (!Number.isInteger(value)) {
    throw invalid({ type: 'int_parsing', msg: 'Input should be a valid integer', ...issue })
  }
  if (value < 1) throw invalid({ type: 'greater_than', msg: 'Input should be greater than 0', ...issue })
  if (value > max) {
    throw invalid({ type: 'less_than_equal', msg: `Input should be less than or equal to ${max}`, ...issue })
  }
  return value
}
