// npm run doctor -- --fix: makes at Polar what payments need, and says what to put where.
import { PolarError } from '@polar-sh/sdk'
import { connectPolar, WEBHOOK_PATH } from '../lib/billing/polar.ts'
import type { ForkConfig } from '../lib/config.ts'
import type { Env } from '../lib/env.ts'
import { ensurePolarSetup, type PolarSetup } from './polar-setup.ts'

/** Why nothing can be made; undefined when all that is needed is there. */
export function fixBlocker({ payments }: ForkConfig, { polar }: Env): string | undefined {
  if (payments.provider === 'none') return 'payments.provider is "none": there is nothing to make at Polar.'
  if (!polar) return 'POLAR_ACCESS_TOKEN is not set: --fix needs it to reach Polar.'
  return undefined
}

/** Where Polar is to report to: below the address that was given, else below the one Vercel names. */
export function webhookUrl(
  given: string | undefined,
  { VERCEL_PROJECT_PRODUCTION_URL: host }: Record<string, string | undefined>,
): string | undefined {
  const base = given ?? (host ? `https://${host}` : undefined)
  return base && new URL(WEBHOOK_PATH, base).href
}

/** Sets up the account that the environment names. What Polar or the way to it refuses is returned, not thrown. */
export async function fix(
  config: ForkConfig,
  polar: NonNullable<Env['polar']>,
  url: string | undefined,
): Promise<{ setup: PolarSetup } | { error: string }> {
  try {
    const client = await connectPolar(polar)
    return { setup: await ensurePolarSetup({ client, config, webhookUrl: url }) }
  } catch (error) {
    if (!(error instanceof PolarError)) throw error
    const isUnknown = 'statusCode' in error && (error.statusCode === 401 || error.statusCode === 403)
    const hint = `Is POLAR_ACCESS_TOKEN right for the ${polar.environment} environment, and may it write products and webhooks?`
    return { error: isUnknown ? `${error.message} ${hint}` : error.message }
  }
}

/** The set-up for a terminal. `knownSecret` is what the environment has. */
export function setupLines(setup: PolarSetup, knownSecret: string | undefined): string[] {
  const { products, webhook, config, warnings } = setup
  return [
    ...products.map(({ place, id, name, created }) => `${created ? 'made ' : 'found'}  ${place}  ${id}  ${name}`),
    webhook
      ? `${{ created: 'made ', updated: 'mended', unchanged: 'found' }[webhook.state]}  webhook  ${webhook.url}`
      : 'The webhook is not set up: name the address of the site with --url https://my.app.',
    ...warnings,
    '',
    'For fork.config.json (or one of its environments):',
    ...JSON.stringify(config, null, 2).split('\n'),
    ...(webhook && webhook.secret !== knownSecret
      ? ['', 'For the environment:', `POLAR_WEBHOOK_SECRET=${webhook.secret}`]
      : []),
  ]
}
