// Replaces each function of api/ by a two-line file over a bundle: imported cold, that is several times faster.
//
// It rewrites the working copy, so it runs only where that is thrown away: on Vercel, or in the copy that
// `npm run build:vercel` makes. There it has to come before Vercel traces which files a function needs.
import { globSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { dirname, join, relative, resolve } from 'node:path'
import { build, type Plugin } from 'esbuild'

/** As deep below the root as lib/ is, and no folder that Vercel gives a meaning to. */
const OUTPUT = 'bundled'

/** Packages that load a binary from their own folder, and those which such a package asks for if installed. */
const EXTERNAL = ['sharp', '@node-rs/bcrypt', '@electric-sql/pglite', 'jsonc-parser', 'pg-native', 'bufferutil']

/** CommonJS packages inside a bundle still ask for Node's own modules with `require`. */
const BANNER =
  "import { createRequire as makeRequire } from 'node:module'; const require = makeRequire(import.meta.url);"

async function bundle(root: string): Promise<void> {
  const functions = globSync('api/**/*.ts', { cwd: root }).filter((file) => !/[\\/][_.]|\.d\.ts$/.test(file))
  const workers = await filter(globSync('lib/**/*.ts', { cwd: root }), async (file) =>
    (await readFile(join(root, file), 'utf8')).includes('new URL(import.meta.url)'),
  )
  const result = await build({
    absWorkingDir: root,
    entryPoints: [...functions, ...workers].map((file) => ({ in: file, out: nameOf(file) })),
    outdir: OUTPUT,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    external: EXTERNAL,
    banner: { js: BANNER },
    plugins: [rebaseUrls(root), keepLazyPackages],
    metafile: true,
    logLevel: 'warning',
  })
  await Promise.all(functions.map((file) => writeFile(join(root, file), stub(file))))
  const kilobytes = Object.values(result.metafile.outputs).reduce((sum, { bytes }) => sum + bytes, 0) / 1000
  console.log(`${functions.length} functions bundled, ${Math.round(kilobytes)} kB.`)
}

/** Flat, so that `import.meta.url` is one level deep wherever the code lands. */
function nameOf(file: string): string {
  return file.replace(/\.ts$/, '').replaceAll(/[\\/]/g, '-')
}

function stub(file: string): string {
  const bundled = relative(dirname(file), join(OUTPUT, `${nameOf(file)}.js`)).replaceAll('\\', '/')
  return `// @ts-nocheck\nexport { default } from '${bundled}'\n`
}

/** Keeps `new URL('../data.json', import.meta.url)` pointing at the file it named from where it was written. */
function rebaseUrls(root: string): Plugin {
  const literal = /new URL\((['"])(\.{1,2}\/[^'"]+)\1, import\.meta\.url\)/g
  return {
    name: 'rebase-urls',
    setup({ onLoad }) {
      onLoad({ filter: /[\\/](api|lib|db)[\\/].*\.ts$/ }, async ({ path }) => {
        const text = await readFile(path, 'utf8')
        const contents = text.replaceAll(literal, (_, _quote, target: string) => {
          const moved = relative(join(root, OUTPUT), resolve(dirname(path), target)).replaceAll('\\', '/')
          return `new URL('${moved}', import.meta.url)`
        })
        return { contents, loader: 'ts' }
      })
    },
  }
}

/**
 * A package imported on first use stays in node_modules: behind `import()`, esbuild loses the names that a CommonJS
 * package exports.
 */
const keepLazyPackages: Plugin = {
  name: 'keep-lazy-packages',
  setup({ onResolve }) {
    onResolve({ filter: /^[^./]/ }, ({ path, kind }) => (kind === 'dynamic-import' ? { path, external: true } : undefined))
  },
}

async function filter<T>(values: T[], keep: (value: T) => Promise<boolean>): Promise<T[]> {
  const kept = await Promise.all(values.map(keep))
  return values.filter((_, index) => kept[index])
}

await bundle(process.cwd())
