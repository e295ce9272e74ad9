// What every benchmark ends with: a table on the screen, and the same figures as JSON in bench/results/.
import { mkdirSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg } from 'node:os'
import { parseArgs } from 'node:util'

export type Row = Record<string, string | number>

/** Whether --quick was given: everything is run, for too short a time to mean anything. */
export const { quick = false } = parseArgs({ options: { quick: { type: 'boolean' } } }).values

/** Prints a title, rows aligned under their keys, and notes. */
export function printTable(title: string, rows: Row[], notes: string[] = []): void {
  const names = Object.keys(rows[0] ?? {})
  const lines = [names, ...rows.map((row) => names.map((name) => String(row[name] ?? '')))]
  const widths = names.map((_, column) => Math.max(...lines.map((cells) => cells[column]?.length ?? 0)))
  const isText = names.map((name) => typeof rows[0]?.[name] === 'string')
  console.log(`\n${title}\n`)
  for (const cells of lines) {
    const padded = cells.map((cell, column) =>
      isText[column] ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
    )
    console.log(`  ${padded.join('  ')}`)
  }
  console.log('')
  for (const note of notes) console.log(`  ${note}`)
}

/** Writes bench/results/<name>.json, with what is needed to judge the figures later. */
export function saveResults(name: string, results: Record<string, unknown>): void {
  const folder = new URL('results/', import.meta.url)
  mkdirSync(folder, { recursive: true })
  const machine = {
    node: process.version,
    cores: availableParallelism(),
    cpu: cpus()[0]?.model,
    loadAverage: loadavg()[0],
  }
  const record = { benchmark: name, finishedAt: new Date().toISOString(), quick, machine, ...results }
  writeFileSync(new URL(`${name}.json`, folder), `${JSON.stringify(record, null, 2)}\n`)
}

/** The value below which the share `part` of all values lies; NaN of none. */
export function quantile(values: number[], part: number): number {
  const sorted = values.toSorted((one, other) => one - other)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN
}

export const median = (values: number[]) => quantile(values, 0.5)

export function rounded(value: number, digits = 1): number {
  return Number(value.toFixed(digits))
}
