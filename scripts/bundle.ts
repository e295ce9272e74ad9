// Puts each function of api/ into a bundle and leaves a stub in its place: a cold import is then about four times faster.
//
// It rewrites the working copy, so from `npm run build` it acts only where that copy is thrown away: on Vercel's build
// machine, or in the copy that `npm run build:vercel` makes. It has to come before Vercel traces a function's files.
import { globSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { dirname, join, relative, resolve } from 'node:path'
import { build, type Plugin } from 'esbuild'

/** One level below the root like lib/, and of no meaning to Vercel. */
const OUTPUT = 'bundled'

/** Pure JavaScript in hundreds of small files, which is what takes long. Every other package stays as it is. */
const INLINED = /^(kysely|valibot)(\/|$)/

/** Bundles all functions under `root`, rewriting api/ in place. Returns how many. */
export async function bundle(root: string): Promise<number> {
  const functions = globSync('api/**/*.ts', { cwd: root }).filter((file) => !/[\\/][_.]|\.d\.ts$/.test(file))
  const workers = await selfStartingModules(root)
  await build({
    absWorkingDir: root,
    entryPoints: [...functions, ...workers].map((file) => ({ in: file, out: bundleName(file) })),
    outdir: OUTPUT,
    bundle: true,
    // What functions share stays one module each, so that a worker starts with no more than it needs.
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    plugins: [keepPackages, rebaseUrls(root)],
    logLevel: 'warning',
  })
  await Promise.all(functions.map((file) => leaveStub(root, file)))
  return functions.length
}

/** Modules that start themselves as a worker thread by their own URL need a file of their own. */
async function selfStartingModules(root: string): Promise<string[]> {
  const found: string[] = []
  for (const file of globSync('lib/**/*.ts', { cwd: root })) {
    const text = await readFile(join(root, file), 'utf8')
    if (text.includes('new URL(import.meta.url)')) found.push(file)
  }
  return found
}

/** Flat, so that `import.meta.url` is one level deep wherever code lands. */
function bundleName(file: string): string {
  return file.replace(/\.ts$/, '').replaceAll(/[\\/]/g, '-')
}

async function leaveStub(root: string, file: string): Promise<void> {
  const text = await readFile(join(root, file), 'utf8')
  const bundled = relative(dirname(file), join(OUTPUT, `${bundleName(file)}.js`)).replaceAll('\\', '/')
  // Vercel reads a function's settings from the text of its file.
  const settings = /^export const config = \{[^}]*\}/m.exec(text)?.[0] ?? ''
  await writeFile(join(root, file), `// @ts-nocheck\nexport { default } from '${bundled}'\n${settings}\n`)
}

const keepPackages: Plugin = {
  name: 'keep-packages',
  setup({ onResolve }) {
    onResolve({ filter: /^[^./]/ }, ({ path, kind }) =>
      kind === 'entry-point' || INLINED.test(path) ? undefined : { path, external: true },
    )
  },
}

/** Keeps `new URL('../data.json', import.meta.url)` naming the file it names where it is written. */
function rebaseUrls(root: string): Plugin {
  const literal = /new URL\((['"])(\.{1,2}\/[^'"]+)\1, import\.meta\.url\)/g
  return {
    name: 'rebase-urls',
    setup({ onLoad }) {
      onLoad({ filter: /[\\/](api|lib|db)[\\/].*\.ts$/ }, async ({ path }) => {
        const text = await readFile(path, 'utf8')
        const contents = text.replaceAll(literal, (_, _quote, target: string) => {
          const rebased = relative(join(root, OUTPUT), resolve(dirname(path), target)).replaceAll('\\', '/')
          return `new URL('${rebased}', import.meta.url)`
        })
        return { contents, loader: 'ts' }
      })
    },
  }
}

if (import.meta.main) {
  // Set by Vercel's build machines and by nothing else: a `vercel build` in a checkout must leave its files alone.
  if (process.env.VERCEL_BUILD_IMAGE) console.log(`${await bundle(process.cwd())} functions bundled.`)
  else console.log('Functions are bundled on Vercel only.')
}
