// How long a fresh process takes to import each function, beside one that does nothing.
import { execFileSync } from 'node:child_process'
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { median, printTable, quick, rounded, saveResults } from './report.ts'

const ROUNDS = quick ? 1 : 9
const OUTPUT = '.vercel/output/functions'
const MEASURE = `
const startedAt = performance.now()
await import(process.argv[1])
const wallMs = performance.now() - startedAt
const { user, system } = process.cpuUsage()
process.stdout.write(JSON.stringify({ wallMs, cpuMs: (user + system) / 1000 }))
process.exit()
`

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'bench-'))
const empty = join(folder, 'empty.mjs')
writeFileSync(empty, 'export default { fetch() {} }\n')

try {
  const isBuilt = existsSync(join(root, OUTPUT))
  const functions = [{ name: '(empty)', file: empty }, ...(isBuilt ? builtFunctions() : sourceFunctions())]
  const imports = functions.map((fn) => ({ ...fn, rounds: [] as Import[] }))
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const { file, rounds } of imports) rounds.push(importOnce(file))
  }
  const medianOf = (what: keyof Import, rounds: Import[]) => rounded(median(rounds.map((each) => each[what])))
  const [nothing] = imports
  const rows = imports.map(({ name, rounds }) => ({
    function: name,
    importMs: medianOf('wallMs', rounds),
    processCpuMs: medianOf('cpuMs', rounds),
    'CPU over empty': rounded(medianOf('cpuMs', rounds) - medianOf('cpuMs', nothing?.rounds ?? [])),
  }))
  const what = isBuilt
    ? `built functions in ${OUTPUT}`
    : 'source files of api/ (nothing is built: npm run build:vercel)'
  printTable(`cold-import: ${what}, medians of ${ROUNDS} fresh processes in turn`, rows)
  saveResults('cold-import', { measured: isBuilt ? 'built' : 'source', rows })
} finally {
  rmSync(folder, { recursive: true })
}

type Import = Record<'wallMs' | 'cpuMs', number>

function importOnce(file: string): Import {
  const parameters = ['--input-type=module', '--eval', MEASURE, pathToFileURL(file).href]
  return JSON.parse(execFileSync(process.execPath, parameters, { cwd: root, encoding: 'utf8' }))
}

function builtFunctions() {
  return globSync('**/*.func/.vc-config.json', { cwd: join(root, OUTPUT) })
    .toSorted()
    .map((configFile) => {
      const path = join(root, OUTPUT, configFile)
      const { handler }: { handler: string } = JSON.parse(readFileSync(path, 'utf8'))
      return { name: dirname(configFile).replace(/\.func$/, ''), file: join(dirname(path), handler) }
    })
}

function sourceFunctions() {
  return globSync('api/**/*.ts', { cwd: root })
    .toSorted()
    .map((file) => ({ name: file.replace(/\.ts$/, ''), file: join(root, file) }))
}
