// Checks a merged configuration: every unknown key, every bad value and every contradiction, each with its path.

import * as v from 'valibot'
import { CAPABILITIES } from './ai/capabilities.ts'
import { takesImage } from './ai/provider.ts'
import { ConfigFile, type ForkConfig } from './config-schema.ts'

export type Key = string | number

export interface Issue {
  path: Key[]
  message: string
  suggestion?: string
  /** 'key' when the name itself is the mistake, 'parent' when the value is missing, 'value' otherwise. */
  at: 'key' | 'parent' | 'value'
}

/** What can be seen of any valibot schema here: enough to walk it along a path. */
export interface SchemaNode {
  type: string
  /** Of an object. */
  entries?: Record<string, SchemaNode>
  /** Of a list. */
  item?: SchemaNode
  /** Of a record. */
  value?: SchemaNode
  /** Of an optional schema. */
  wrapped?: SchemaNode
  /** Of a picklist. */
  options?: readonly string[]
}

/** Names that every image tool's request has already. */
const RESERVED_OPTIONS = ['quality', 'format', 'provider', 'text']

/** Checks `merged`, a configuration file with one environment merged in. Returns what is wrong, and the settings when they have the right shape. */
export function check(merged: unknown): { issues: Issue[]; settings?: ForkConfig } {
  const unknown = unknownKeys(ConfigFile, merged, [])
  const result = v.safeParse(ConfigFile, merged, { message: sentence })
  const schemaIssues = (result.issues ?? [])
    .filter((issue) => issue.type !== 'strict_object' || issue.expected !== 'never')
    .map(toIssue)
    .filter((issue) => !unknown.some((other) => isMissingByMistake(issue, other)))
  const issues = [...unknown, ...schemaIssues]
  if (issues.length > 0 || !result.success) return { issues }
  const { $schema, environments, ...settings } = result.output
  return { issues: crossCheck(settings), settings }
}

/** The schema of `key` inside a value of schema `node`; undefined when there can be none. */
export function childNode(node: SchemaNode, key: Key): SchemaNode | undefined {
  const { entries, item, value } = bareNode(node)
  if (entries) return typeof key === 'string' && Object.hasOwn(entries, key) ? entries[key] : undefined
  return typeof key === 'number' ? item : value
}

export function bareNode(node: SchemaNode): SchemaNode {
  return node.wrapped ? bareNode(node.wrapped) : node
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * The candidate most like `word`: at most a third of its letters differ, and two always may. Else one that it shortens.
 * Undefined when nothing comes near.
 */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const differencesMax = Math.max(2, word.length / 3)
  const [best] = candidates
    .map((candidate) => ({ candidate, differences: levenshtein(word.toLowerCase(), candidate.toLowerCase()) }))
    .filter(({ candidate, differences }) => differences <= differencesMax && differences < candidate.length)
    .sort((one, other) => one.differences - other.differences)
  const startsLike = (candidate: string) => word.length > 2 && candidate.toLowerCase().startsWith(word.toLowerCase())
  return best?.candidate ?? candidates.find(startsLike)
}

function levenshtein(one: string, other: string): number {
  let above = Array.from({ length: other.length + 1 }, (_, column) => column)
  for (const [row, letter] of [...one].entries()) {
    const line = [row + 1]
    for (const [column, otherLetter] of [...other].entries()) {
      const replaced = (above[column] ?? 0) + (letter === otherLetter ? 0 : 1)
      line.push(Math.min(replaced, (above[column + 1] ?? 0) + 1, (line[column] ?? 0) + 1))
    }
    above = line
  }
  return above.at(-1) ?? 0
}

/** Every unknown key, where valibot stops at the first; and lists given for objects, which valibot takes for empty objects. */
function unknownKeys(node: SchemaNode, value: unknown, path: Key[]): Issue[] {
  const { type, entries } = bareNode(node)
  if (Array.isArray(value)) {
    if (entries || type === 'record') return [{ path, message: 'must be an object, not a list', at: 'value' }]
    return value.flatMap((item, index) => unknownBelow(node, item, [...path, index]))
  }
  if (!isObject(value)) return []
  return Object.entries(value).flatMap(([key, inner]): Issue[] => {
    const below = [...path, key]
    if (!entries || Object.hasOwn(entries, key)) return unknownBelow(node, inner, below)
    const suggestion = nearest(key, Object.keys(entries))
    return [{ path: below, message: 'unknown key', ...(suggestion && { suggestion }), at: 'key' }]
  })
}

function unknownBelow(node: SchemaNode, value: unknown, path: Key[]): Issue[] {
  const child = childNode(node, path.at(-1) ?? '')
  return child ? unknownKeys(child, value, path) : []
}

/** Whether something is missing only because its key is misspelt, or because its object is a list. */
function isMissingByMistake({ path, at }: Issue, mistake: Issue): boolean {
  const explained = mistake.at === 'key' ? [...mistake.path.slice(0, -1), mistake.suggestion ?? ''] : mistake.path
  return at === 'parent' && explained.every((key, depth) => key === path[depth])
}

function toIssue(issue: v.BaseIssue<unknown>): Issue {
  const path = (issue.path ?? []).map(({ key }) => (typeof key === 'number' ? key : String(key)))
  if (isMissing(issue)) return { path, message: issue.message, at: 'parent' }
  const at = issue.path?.at(-1)?.origin === 'key' ? 'key' : 'value'
  const options = path.reduce<SchemaNode | undefined>((node, key) => node && childNode(node, key), ConfigFile)
  const choices = options && bareNode(options).options
  const suggestion = typeof issue.input === 'string' && choices ? nearest(issue.input, choices) : undefined
  return { path, message: issue.message, ...(suggestion && { suggestion }), at }
}

function isMissing(issue: v.BaseIssue<unknown>): boolean {
  return issue.type === 'strict_object' && issue.path?.at(-1)?.origin === 'key'
}

/** What is wrong, for issues whose schema brings no sentence of its own. */
function sentence(issue: v.BaseIssue<unknown>): string {
  if (isMissing(issue)) return 'is missing'
  switch (issue.type) {
    case 'string':
      return `must be text, not ${issue.received}`
    case 'number':
      return `must be a number, not ${issue.received}`
    case 'integer':
      return `must be a whole number, not ${issue.received}`
    case 'boolean':
      return `must be true or false, not ${issue.received}`
    case 'array':
      return `must be a list, not ${issue.received}`
    case 'strict_object':
    case 'record':
      return `must be an object, not ${issue.received}`
    case 'picklist':
    case 'literal':
      return `must be ${issue.expected?.replace(/^\(|\)$/g, '').replaceAll(' | ', ' or ')}, not ${issue.received}`
    case 'min_value':
      return `${issue.input} is below the minimum of ${issue.requirement}`
    case 'max_value':
      return `${issue.input} is above the maximum of ${issue.requirement}`
    case 'non_empty':
    case 'min_length':
      return 'must not be empty'
    case 'max_length':
      return `is longer than ${issue.requirement} characters`
    case 'email':
      return `${issue.received} is not an e-mail address`
    default:
      return issue.message
  }
}

/** What no single value shows: doubles, and values that contradict each other. */
function crossCheck({ tools, ai, plans, payments, preferences = {} }: ForkConfig): Issue[] {
  const issues = [
    ...doubles(tools.map(({ name }, index) => ({ value: name, path: ['tools', index, 'name'] }))),
    ...doubles(payments.packs.map(({ id }, index) => ({ value: id, path: ['payments', 'packs', index, 'id'] }))),
    ...doubles(polarProducts(plans, payments)),
    ...tools.flatMap((tool, index) => checkTool(tool, ['tools', index])),
    ...Object.entries(preferences).flatMap(([name, preference]) => checkPreference(preference, ['preferences', name])),
  ]
  const value = (path: Key[], message: string) => issues.push({ path, message, at: 'value' })
  for (const [index, { priceCents }] of payments.packs.entries()) {
    if (priceCents >= payments.minimumDepositCents) continue
    value(
      ['payments', 'packs', index, 'priceCents'],
      `${priceCents} is below payments.minimumDepositCents (${payments.minimumDepositCents})`,
    )
  }
  const { deadlineMs, providerTimeoutMs, budgets } = ai
  if (deadlineMs < providerTimeoutMs) {
    value(['ai', 'deadlineMs'], `${deadlineMs} is below ai.providerTimeoutMs (${providerTimeoutMs})`)
  }
  if (budgets.dailyUsd > budgets.monthlyUsd) {
    value(['ai', 'budgets', 'dailyUsd'], `${budgets.dailyUsd} is above ai.budgets.monthlyUsd (${budgets.monthlyUsd})`)
  }
  if (budgets.freeTierDailyUsd > budgets.dailyUsd) {
    value(
      ['ai', 'budgets', 'freeTierDailyUsd'],
      `${budgets.freeTierDailyUsd} is above ai.budgets.dailyUsd (${budgets.dailyUsd})`,
    )
  }
  return issues
}

function checkPreference(preference: NonNullable<ForkConfig['preferences']>[string], path: Key[]): Issue[] {
  const { type, enum: values = [] } = preference
  if (values.length > 0 && type !== 'string') {
    return [
      { path: [...path, 'enum'], message: 'only a preference of type "string" has a list of values', at: 'value' },
    ]
  }
  return doubles(values.map((value, index) => ({ value, path: [...path, 'enum', index] })))
}

/** Each product id with its place: an order for a product has to mean one thing. */
function polarProducts(plans: ForkConfig['plans'], payments: ForkConfig['payments']): { value: string; path: Key[] }[] {
  const sold = [
    { value: payments.polarProductId, path: ['payments', 'polarProductId'] },
    ...payments.packs.map((pack, index) => ({
      value: pack.polarProductId,
      path: ['payments', 'packs', index, 'polarProductId'],
    })),
    { value: plans.pro.polarProductId, path: ['plans', 'pro', 'polarProductId'] },
    { value: plans.enterprise.polarProductId, path: ['plans', 'enterprise', 'polarProductId'] },
  ]
  return sold.filter(({ value }) => value !== '')
}

function checkTool(tool: ForkConfig['tools'][number], path: Key[]): Issue[] {
  const names = Object.keys(tool.options)
  const takesText = !takesImage(tool.does)
  const fillable = takesText ? [...names, 'text'] : names
  const unheard: Issue[] =
    takesText && !placeholders(tool.prompt).includes('text')
      ? [{ path: [...path, 'prompt'], message: '{{text}}, what the user wrote, stands nowhere in it', at: 'value' }]
      : []
  const undeclared = placeholders(tool.prompt)
    .filter((name) => !fillable.includes(name))
    .map((name) => choiceIssue([...path, 'prompt'], `{{${name}}} is not an option of this tool`, name, fillable))
  const reserved = names
    .filter((name) => RESERVED_OPTIONS.includes(name))
    .map(
      (name): Issue => ({ path: [...path, 'options', name], message: 'this name is taken by every tool', at: 'key' }),
    )
  const options = Object.entries(tool.options).flatMap(([name, option]) =>
    checkOption(option, [...path, 'options', name]),
  )
  const providers = tool.providers.map((value, index) => ({ value, path: [...path, 'providers', index] }))
  const unable = providers
    .filter(({ value }) => CAPABILITIES[value][tool.does] === undefined)
    .map(({ value, path }): Issue => ({ path, message: `"${value}" cannot do ${tool.does}`, at: 'value' }))
  return [...unheard, ...undeclared, ...reserved, ...options, ...unable, ...doubles(providers)]
}

function checkOption(option: ForkConfig['tools'][number]['options'][string], path: Key[]): Issue[] {
  const issues = doubles(option.enum.map((value, index) => ({ value, path: [...path, 'enum', index] })))
  if (!option.enum.includes(option.default)) {
    issues.push(choiceIssue([...path, 'default'], `"${option.default}" is not in enum`, option.default, option.enum))
  }
  for (const field of ['labels', 'phrases'] as const) {
    for (const value of Object.keys(option[field] ?? {})) {
      if (option.enum.includes(value)) continue
      issues.push({ ...choiceIssue([...path, field, value], 'not a value of enum', value, option.enum), at: 'key' })
    }
  }
  return issues
}

/** The option names that a prompt template uses, each once. */
export function placeholders(prompt: string): string[] {
  return [...new Set(Array.from(prompt.matchAll(/\{\{\s*([^{}]*?)\s*\}\}/g), ([, name]) => name ?? ''))]
}

function choiceIssue(path: Key[], message: string, word: string, candidates: readonly string[]): Issue {
  const suggestion = nearest(word, candidates)
  return { path, message, ...(suggestion && { suggestion }), at: 'value' }
}

function doubles(entries: { value: string; path: Key[] }[]): Issue[] {
  return entries
    .filter(({ value }, index) => entries.findIndex((entry) => entry.value === value) < index)
    .map(({ value, path }) => ({ path, message: `"${value}" is there twice`, at: 'value' }))
}
