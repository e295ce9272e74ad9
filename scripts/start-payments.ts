// npm run start:payments: npm start with a pretend Polar beside it, to try every purchase with play money.
import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'
import { connectPolar, WEBHOOK_PATH } from '../lib/billing/polar.ts'
import { type ForkConfig, loadConfig } from '../lib/config.ts'
import { ConfigError } from '../lib/config-errors.ts'
import { EnvError, parseEnv } from '../lib/env.ts'
import { startLoopbackPolar } from './loopback-polar/server.ts'
import { ensurePolarSetup, type PolarSetup } from './polar-setup.ts'

try {
  await preparePayments()
} catch (error) {
  const isSetup = error instanceof ConfigError || error instanceof EnvError
  console.error(isSetup ? error.message : error)
  process.exit(1)
}
// It reads the environment as it loads, which is ready only now.
await import('./dev.ts')

/** Starts the pretend Polar and makes this process's environment the one of a fork that sells through it. */
async function preparePayments(): Promise<void> {
  // Keys of a real account have no business here, not even half of them.
  const { POLAR_ACCESS_TOKEN: _, POLAR_WEBHOOK_SECRET: __, POLAR_BASE_URL: ___, ...variables } = process.env
  const settings = parseEnv(variables)
  const config = loadConfig(settings)
  const port = settings.port === 0 ? await freePort(0) : settings.port
  const webhookUrl = `http://localhost:${port}${WEBHOOK_PATH}`
  const polar = await startLoopbackPolar({ port: await freePort(port + 1), stableProductIds: true })
  const { accessToken, baseUrl } = polar
  const client = await connectPolar({ accessToken, environment: 'sandbox', baseUrl })
  const setup = await ensurePolarSetup({ client, config: withoutIds(config), webhookUrl })
  const cronSecret = settings.cronSecret ?? randomBytes(24).toString('base64url')
  // The written file has them in it already; applied again, they could undo what it adds.
  for (const name of Object.keys(settings.forkOverrides)) delete process.env[name]
  Object.assign(process.env, {
    PORT: String(port),
    FORK_CONFIG: writeConfig(settings.dataDir, config, setup),
    POLAR_ACCESS_TOKEN: accessToken,
    POLAR_WEBHOOK_SECRET: setup.webhook?.secret,
    POLAR_ENVIRONMENT: 'sandbox',
    POLAR_BASE_URL: baseUrl,
    CRON_SECRET: cronSecret,
  })
  console.log(`\nThis is play money: no card is charged. The pretend Polar is at ${baseUrl}`)
  console.log(`The sweep: curl -H 'Authorization: Bearer ${cronSecret}' http://localhost:${port}/api/jobs/sweep`)
}

/** The configuration without the products of a real account. */
function withoutIds(config: ForkConfig): ForkConfig {
  const { plans, payments } = config
  return {
    ...config,
    plans: {
      ...plans,
      pro: { ...plans.pro, polarProductId: '' },
      enterprise: { ...plans.enterprise, polarProductId: '' },
    },
    payments: {
      ...payments,
      polarProductId: '',
      packs: payments.packs.map((pack) => ({ ...pack, polarProductId: '' })),
    },
  }
}

/** Writes the configuration with the pretend products; returns where. */
function writeConfig(dataDir: string, config: ForkConfig, { config: ids }: PolarSetup): string {
  const { plans, payments } = config
  const merged = {
    ...config,
    plans: {
      ...plans,
      pro: { ...plans.pro, ...ids.plans.pro },
      enterprise: { ...plans.enterprise, ...ids.plans.enterprise },
    },
    payments: { ...payments, provider: 'polar', ...ids.payments },
    features: { ...config.features, payments: true },
  }
  const file = resolve(join(dataDir, 'fork.payments.json'))
  mkdirSync(dataDir, { recursive: true })
  writeFileSync(file, `${JSON.stringify(merged, null, 2)}\n`)
  return file
}

/** `preferred` when it is free, else any port that is. */
async function freePort(preferred: number): Promise<number> {
  const { promise, resolve: settle, reject } = Promise.withResolvers<number>()
  const server = createServer()
  server.once('error', (error) => (preferred === 0 ? reject(error) : settle(freePort(0))))
  server.listen(preferred, () => {
    const address = server.address()
    server.close(() => settle(typeof address === 'object' && address ? address.port : preferred))
  })
  return await promise
}
