// Finds in the output of `vercel build` what Vercel would refuse, or would deploy although it is dead.
import { execFile } from 'node:child_process'
import { globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'

/** Vercel's Hobby plan deploys no more. */
const FUNCTIONS_MAX = 12

const IMPORT_TIMEOUT_MS = 30_000

/** Imports a module and then packages as if from it, allowing no file from outside its function. */
const IMPORT_ALONE = `
  import { registerHooks } from 'node:module'
  const [home, handler, ...packages] = process.argv.slice(1)
  registerHooks({
    resolve(specifier, context, nextResolve) {
      const parentURL = context.parentURL?.startsWith(home) ? context.parentURL : handler
      const found = nextResolve(specifier, { ...context, parentURL })
      if (!found.url.startsWith('file:') || found.url.startsWith(home)) return found
      throw Object.assign(new Error(specifier + ' is not in the function.'), { code: 'MODULE_NOT_FOUND' })
    },
  })
  const { default: endpoint } = await import(handler)
  if (typeof endpoint?.fetch !== 'function') throw new Error('It has no default export with a fetch function.')
  for (const name of packages) await import(name)
  process.exit()
`

/** One sentence for each problem of an output folder; `publicFolder` holds what may be served as it is. */
export async function problemsOf(output: string, publicFolder: string): Promise<string[]> {
  const functions = globSync('**/*.func', { cwd: join(output, 'functions') }).sort()
  const published = new Set(filesIn(publicFolder))
  const leaked = filesIn(join(output, 'static')).filter((file) => !published.has(file))
  const problems = leaked.map((file) => `${file} would be served to anyone: it is not from public/.`)
  if (functions.length === 0) problems.push('There is no function.')
  if (functions.length > FUNCTIONS_MAX) {
    problems.push(`There are ${functions.length} functions; Vercel's Hobby plan takes ${FUNCTIONS_MAX}.`)
  }
  for (const name of functions) {
    const problem = await importProblem(join(output, 'functions', name))
    if (problem) problems.push(`${name} cannot be imported: ${problem}`)
  }
  return problems
}

function filesIn(folder: string): string[] {
  const entries = globSync('**/*', { cwd: folder, withFileTypes: true }).filter((entry) => entry.isFile())
  return entries.map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
}

/** Imports a function in a process of its own, as a cold start does. */
async function importProblem(home: string): Promise<string | undefined> {
  const { handler }: { handler: string } = JSON.parse(readFileSync(join(home, '.vc-config.json'), 'utf8'))
  const urls = [`${pathToFileURL(home).href}/`, pathToFileURL(join(home, handler)).href]
  const script = ['--input-type=module', '--eval', IMPORT_ALONE, '--', ...urls, ...lazyPackages(home)]
  try {
    await promisify(execFile)(process.execPath, script, { cwd: dirname(home), timeout: IMPORT_TIMEOUT_MS })
    return undefined
  } catch (error) {
    const stderr = error instanceof Error && 'stderr' in error ? String(error.stderr) : String(error)
    return /^\w*Error.*$/m.exec(stderr)?.[0] ?? stderr
  }
}

/** The packages that a function's own code imports only when it needs them. */
function lazyPackages(home: string): string[] {
  const files = globSync('**/*.js', { cwd: home, exclude: ['node_modules/**'] })
  const calls = files.flatMap((file) => [
    ...readFileSync(join(home, file), 'utf8').matchAll(/\b(?:import|require)\w*\((['"])([^'"./][^'"]*)\1\)/g),
  ])
  return [...new Set(calls.map(([, , name = '']) => name))]
}
