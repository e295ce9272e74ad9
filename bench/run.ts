// npm run bench [-- NAME…] [--quick]: runs the benchmarks one after the other, each in a process of its own.
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const BENCHMARKS = [
  'process-image',
  'fallback',
  'concurrency',
  'ledger',
  'billing',
  'round-trips',
  'cold-import',
  'sketch',
]

const { values, positionals } = parseArgs({ options: { quick: { type: 'boolean' } }, allowPositionals: true })
const unknown = positionals.filter((name) => !BENCHMARKS.includes(name))
if (unknown.length > 0) {
  console.error(`No such benchmark: ${unknown.join(', ')}. There are: ${BENCHMARKS.join(', ')}.`)
  process.exit(1)
}
const failed = (positionals.length > 0 ? positionals : BENCHMARKS).filter((name) => {
  const file = fileURLToPath(new URL(`${name}.ts`, import.meta.url))
  const { status } = spawnSync(process.execPath, [file, ...(values.quick ? ['--quick'] : [])], { stdio: 'inherit' })
  return status !== 0
})
if (failed.length > 0) {
  console.error(`Failed: ${failed.join(', ')}.`)
  process.exit(1)
}
