// What the start page may load where Clerk checks identities: the content policy of all pages, and beside it what Clerk asks for.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { loadConfig } from '../lib/config.ts'
import { type ForkConfig, frontendApiOf, STAGES } from '../lib/config-schema.ts'

export interface HeaderRule {
  source: string
  headers: { key: string; value: string }[]
}

type Settings = Parameters<typeof loadConfig>[0]

/** Beside package.json, where npm runs scripts. */
const VERCEL_JSON = 'vercel.json'
/** The only page that signs anyone in. */
const PAGE = '/'
const KEY = 'content-security-policy'
/** Clerk's defence against abuse; it answers on ports of its own, which a source without one would not allow. */
const PROTECT = 'https://*.protect.clerk.com'
const BOT_CHECK = 'https://challenges.cloudflare.com'

/**
 * The policy that lets Clerk's scripts run beside our own. Its sources are those of https://clerk.com/docs/guides/secure/best-practices/csp-headers
 * (2026-11). 'unsafe-inline' is for styles alone, which Clerk's dialogs write at run time; a static header cannot carry a nonce.
 * The other headers stay as they are: who signs in with Google or the like leaves the page and comes back, in no window of its own,
 * so cross-origin-opener-policy may be same-origin.
 */
export function policyWithClerk(general: string, frontendApis: readonly string[]): string {
  const hosts = frontendApis.map((host) => `https://${host}`)
  const added: Record<string, string[]> = {
    'script-src': [...hosts, BOT_CHECK, PROTECT],
    'style-src': ["'unsafe-inline'"],
    'img-src': ['https://img.clerk.com'],
    'connect-src': [...hosts, `${PROTECT}:*`],
    'worker-src': ["'self'", 'blob:'],
    'frame-src': [BOT_CHECK, PROTECT],
  }
  const policy = directives(general)
  for (const [name, sources] of Object.entries(added)) {
    const known = (policy.get(name) ?? []).filter((source) => source !== "'none'")
    policy.set(name, [...new Set([...known, ...sources])])
  }
  return [...policy].map(([name, sources]) => [name, ...sources].join(' ')).join('; ')
}

/** `rules` with a policy of its own for the start page where Clerk is used, behind all others so that it counts; else without one. */
export function headerRules(rules: readonly HeaderRule[], frontendApis: readonly string[]): HeaderRule[] {
  const others = rules
    .map((rule) => (isPage(rule) ? { ...rule, headers: rule.headers.filter(({ key }) => !isPolicy(key)) } : rule))
    .filter(({ headers }) => headers.length > 0)
  const general = policyOf(others)
  if (frontendApis.length === 0 || general === undefined) return others
  return [...others, { source: PAGE, headers: [{ key: KEY, value: policyWithClerk(general, frontendApis) }] }]
}

/** The host of Clerk that this configuration signs in with; undefined where Clerk is not used. */
export function clerkHost({ auth }: ForkConfig): string | undefined {
  return auth.provider === 'clerk' ? frontendApiOf(auth.clerk.publishableKey) : undefined
}

/** What is wrong with the start page's policy in vercel.json, which is deployed as it stands. */
export function policyWarnings(settings: Settings, path = VERCEL_JSON): string[] {
  const file = readRules(path)
  if (!file) return []
  const hosts = clerkHosts(settings)
  const { now, wanted } = compare(file.headers, hosts)
  if (now === wanted) return []
  if (hosts.length === 0) {
    return [`vercel.json: its policy for "${PAGE}" allows what only Clerk needs; npm run doctor -- --fix removes it.`]
  }
  const missing = [...sourcesOf(wanted)].filter((source) => !sourcesOf(now).has(source))
  const kept = hosts.filter((host) => missing.includes(`script-src https://${host}`))
  const why =
    kept.length > 0
      ? `keeps the scripts of ${kept.join(', ')} out, so that nobody can sign in there`
      : missing.length > 0
        ? `lacks ${missing.join(', ')}`
        : 'has needless sources'
  return [`vercel.json: its policy for "${PAGE}" ${why}; npm run doctor -- --fix writes what Clerk needs.`]
}

/** Brings the start page's policy in vercel.json into line, and returns what was done; undefined when there was nothing to do. */
export function fixPolicy(settings: Settings, path = VERCEL_JSON): string | undefined {
  const file = readRules(path)
  const hosts = clerkHosts(settings)
  if (!file) return undefined
  const { now, wanted } = compare(file.headers, hosts)
  if (now === wanted) return undefined
  writeFileSync(path, `${JSON.stringify({ ...file, headers: headerRules(file.headers, hosts) }, null, 2)}\n`)
  return hosts.length > 0
    ? `wrote  vercel.json  its policy for "${PAGE}" allows Clerk at ${hosts.join(', ')}`
    : `wrote  vercel.json  its policy for "${PAGE}" is that of all pages again`
}

/** The hosts of Clerk that any stage of this configuration signs in with: one vercel.json is deployed to all of them. */
export function clerkHosts(settings: Settings): string[] {
  const stages = STAGES.map((stage) =>
    loadConfig({ ...settings, stage, forkOverrides: stage === settings.stage ? settings.forkOverrides : {} }),
  )
  return [...new Set(stages.flatMap((config) => clerkHost(config) ?? []))]
}

function readRules(path: string): { headers: HeaderRule[] } | undefined {
  if (!existsSync(path)) return undefined
  const file = JSON.parse(readFileSync(path, 'utf8'))
  return { ...file, headers: file.headers ?? [] }
}

function compare(rules: readonly HeaderRule[], frontendApis: readonly string[]) {
  return { now: policyOf(rules) ?? '', wanted: policyOf(headerRules(rules, frontendApis)) ?? '' }
}

function directives(policy: string): Map<string, string[]> {
  const parts = policy.split(';').map((part) => part.trim().split(/\s+/))
  return new Map(parts.flatMap(([name, ...sources]) => (name ? [[name, sources]] : [])))
}

function sourcesOf(policy: string): Set<string> {
  return new Set([...directives(policy)].flatMap(([name, sources]) => sources.map((source) => `${name} ${source}`)))
}

/** The policy that counts for the start page: the last rule wins. */
function policyOf(rules: readonly HeaderRule[]): string | undefined {
  const matching = rules.filter(({ source }) => new URLPattern({ pathname: source }).test({ pathname: PAGE }))
  return matching.flatMap(({ headers }) => headers).findLast(({ key }) => isPolicy(key))?.value
}

function isPage({ source }: HeaderRule): boolean {
  return source === PAGE
}

function isPolicy(key: string): boolean {
  return key.toLowerCase() === KEY
}
