// npm run build:vercel: runs `vercel build` without an account or a network, and checks what comes out.
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { problemsOf } from './check-output.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const CLI = join(ROOT, 'scripts', 'vercel-cli')
const OUTPUT = join(ROOT, '.vercel', 'output')

/** Left behind when the sources are copied: made by tools, or secret. */
const NOT_SOURCE = /^(\.git|\.vercel|\.data|\.env.*|coverage|bench\/results|scripts\/vercel-cli)$/

/** What Vercel's own machines would tell the CLI, and what keeps it from going to the network. */
const CLI_ENVIRONMENT = {
  VERCEL_BUILD_IMAGE: 'local-copy',
  VERCEL_INSTALL_COMPLETED: '1',
  VERCEL_TELEMETRY_DISABLED: '1',
  NO_UPDATE_NOTIFIER: '1',
  // Without it neither a type error nor a syntax error fails the build.
  EXPERIMENTAL_NODE_TYPESCRIPT_ERRORS: '1',
}

installCli()
const copy = mkdtempSync(join(tmpdir(), 'vercel-build-'))
try {
  copySources(copy)
  vercelBuild(copy)
} finally {
  rmSync(copy, { recursive: true })
}
const problems = await problemsOf(OUTPUT, join(ROOT, 'public'))
for (const problem of problems) console.error(problem)
if (problems.length > 0) process.exit(1)
console.log(`Built and checked: ${relative(process.cwd(), OUTPUT)}`)

/** The CLI is large and needed by nobody who only runs the product, so it has an installation of its own. */
function installCli(): void {
  const lock = join(CLI, 'package-lock.json')
  const installed = join(CLI, 'node_modules', '.package-lock.json')
  if (existsSync(installed) && statSync(installed).mtimeMs > statSync(lock).mtimeMs) return
  console.log('Installing the Vercel CLI …')
  execFileSync('npm', ['ci', '--ignore-scripts', '--prefix', CLI], { stdio: 'inherit' })
}

/** A copy, because bundling rewrites api/; with node_modules, because the CLI follows no file out of its folder. */
function copySources(copy: string): void {
  const filter = (path: string) => !NOT_SOURCE.test(relative(ROOT, path).replaceAll('\\', '/'))
  cpSync(ROOT, copy, { recursive: true, verbatimSymlinks: true, filter })
  mkdirSync(join(copy, '.vercel'))
  const settings = { framework: null, nodeVersion: '24.x' }
  const project = { projectId: 'prj_local', orgId: 'team_local', settings }
  writeFileSync(join(copy, '.vercel', 'project.json'), JSON.stringify(project))
}

function vercelBuild(copy: string): void {
  const bin = join(CLI, 'node_modules', '.bin', 'vercel')
  const config = join(copy, '.vercel', basename(CLI))
  execFileSync(process.execPath, [bin, 'build', '--yes', '--output', OUTPUT, '--global-config', config], {
    cwd: copy,
    env: { ...process.env, ...CLI_ENVIRONMENT },
    stdio: 'inherit',
  })
}
