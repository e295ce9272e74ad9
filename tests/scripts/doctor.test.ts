import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { findings } from '../../scripts/doctor.ts'

const SCRIPTS = new URL('../../scripts/', import.meta.url).pathname

/** A database on Vercel with everything connected. */
const DEPLOYED = {
  VERCEL: '1',
  VERCEL_ENV: 'production',
  POSTGRES_URL: 'postgres://app:db-password@db.example.com:5433/app?sslmode=require',
  KV_REST_API_URL: 'https://kv.example.com',
  KV_REST_API_TOKEN: 'kv-token-value',
  GEMINI_API_KEY: 'gemini-key-value',
  OPENAI_API_KEY: 'openai-key-value',
  ANTHROPIC_API_KEY: 'anthropic-key-value',
  STABILITY_API_KEY: 'stability-key-value',
  BLOB_READ_WRITE_TOKEN: 'vercel_blob_rw_Store_value',
  OUTGOING_WEBHOOK_URL: 'https://hooks.example.com/secret-path-value',
  OUTGOING_WEBHOOK_SECRET: `whsec_${Buffer.alloc(32, 7).toString('base64')}`,
  FORK__TOOLS__0__PROVIDERS: '["gemini","openai","anthropic","stability","sketch"]',
  AUTH_JWT_SECRET: 'jwt-secret-value-of-at-least-32-bytes',
  ADMIN_EMAIL: 'admin@example.com',
  ADMIN_PASSWORD: 'admin-password-value',
  POLAR_ACCESS_TOKEN: 'polar-token-value',
  POLAR_WEBHOOK_SECRET: 'polar-secret-value',
  RESEND_API_KEY: 'resend-key-value',
  MAIL_FROM: 'hello@example.com',
  ENCRYPTION_KEYS: `first:${Buffer.alloc(32).toString('base64')}`,
  CRON_SECRET: 'cron-secret-value',
}

let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'doctor-'))
})

afterAll(async () => {
  await rm(folder, { recursive: true })
})

/** A copy of the shipped configuration with one text replaced. */
async function configWith(found: string, replacement: string): Promise<string> {
  const shipped = await readFile('fork.config.json', 'utf8')
  expect(shipped).toContain(found)
  const path = join(folder, `${expect.getState().currentTestName?.replace(/\W+/g, '-')}.json`)
  await writeFile(path, shipped.replace(found, replacement))
  return path
}

function feature(variables: Record<string, string>, name: string) {
  return findings(variables).features.find((one) => one.name === name)
}

interface Run {
  code: number | string | null | undefined
  stdout: string
  stderr: string
}

function run(script: string, flags: string[], variables: Record<string, string> = {}): Promise<Run> {
  const { PATH = '' } = process.env
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [join(SCRIPTS, script), ...flags],
      { env: { PATH, ...variables } },
      (error, stdout, stderr) => {
        resolve({ code: error ? error.code : 0, stdout, stderr })
      },
    )
  })
}

describe('npm run doctor', () => {
  test('finds nothing wrong with a fresh clone, and exits 0', async () => {
    const { code, stdout } = await run('doctor.ts', [])
    expect(stdout).toMatch(/on {3}database +embedded PGlite in \.data/)
    expect(stdout).toMatch(/off {2}gemini +GEMINI_API_KEY is not set/)
    expect(stdout).toContain('The configuration and the environment are fine.')
    expect(code).toBe(0)
  })

  test('lists mistakes of file and environment together, and exits 1', async () => {
    const path = await configWith('"trial"', '"trail"')
    const { code, stdout } = await run('doctor.ts', [], {
      FORK_CONFIG: path,
      KV_REST_API_URL: 'https://kv.example.com',
    })
    expect(stdout).toContain('environment  KV_REST_API_URL is set but KV_REST_API_TOKEN is not.')
    expect(stdout).toMatch(/doctor-.*\.json:\d+:3 {2}trail {2}unknown key, did you mean "trial"\?/)
    expect(stdout).toContain('2 to put right.')
    expect(code).toBe(1)
  })

  test('says how to come by the webhook secret that a lone Polar token lacks', () => {
    const { ok, errors } = findings({ POLAR_ACCESS_TOKEN: 'polar-token-value' })
    expect(ok).toBe(false)
    expect(errors.map(({ message }) => message)).toEqual([
      'POLAR_ACCESS_TOKEN is set but POLAR_WEBHOOK_SECRET is not. npm run doctor -- --fix --url https://my.app makes it.',
    ])
  })

  test('--json prints the same as one object', async () => {
    const good = await run('doctor.ts', ['--json'])
    expect(JSON.parse(good.stdout)).toEqual(JSON.parse(JSON.stringify(findings({}))))
    expect(good.code).toBe(0)
    const bad = await run('doctor.ts', ['--json'], { FORK__LIMTS: '{}' })
    expect(JSON.parse(bad.stdout)).toMatchObject({
      ok: false,
      errors: [{ source: 'FORK__LIMTS', message: 'no such setting', suggestion: 'FORK__LIMITS' }],
    })
    expect(bad.code).toBe(1)
  })

  test('refuses flags that it does not know', async () => {
    const { code, stdout, stderr } = await run('doctor.ts', ['--jsno'])
    expect(stderr).toContain('Unknown: --jsno\nUsage: npm run doctor')
    expect(stdout).toBe('')
    expect(code).toBe(2)
  })
})

describe('npm run schema -- --check', () => {
  test('exits 0 while fork.schema.json is current', async () => {
    expect(await run('schema.ts', ['--check'])).toEqual({ code: 0, stdout: '', stderr: '' })
  })

  test('refuses flags that it does not know', async () => {
    expect(await run('schema.ts', ['--chek'])).toMatchObject({ code: 2, stderr: expect.stringContaining('Usage') })
  })
})

describe('features', () => {
  test('are all on where everything is connected', () => {
    const states = findings(DEPLOYED).features.map(({ name, on }) => [name, on])
    expect(Object.fromEntries(states)).toEqual({
      database: true,
      kv: true,
      'sign-in': true,
      admin: true,
      generate: true,
      gemini: true,
      openai: true,
      anthropic: true,
      stability: true,
      sketch: true,
      blob: true,
      'outgoing webhooks': true,
      payments: true,
      mail: true,
      encryption: true,
      sweep: true,
    })
  })

  test('name hosts, and never a secret', () => {
    expect(feature(DEPLOYED, 'database')?.reason).toBe('PostgreSQL at db.example.com:5433')
    expect(feature(DEPLOYED, 'kv')?.reason).toBe('Vercel KV at kv.example.com')
    expect(JSON.stringify(findings(DEPLOYED))).not.toMatch(/password|-value|sslmode|whsec/)
  })

  test('sign-in needs its secret as soon as instances share a database', () => {
    const { AUTH_JWT_SECRET, ...without } = DEPLOYED
    expect(feature(without, 'sign-in')).toEqual({
      name: 'sign-in',
      on: false,
      reason: 'AUTH_JWT_SECRET is not set (32 bytes or more).',
    })
    expect(feature({}, 'sign-in')?.on).toBe(true)
    expect(feature({ POSTGRES_URL: DEPLOYED.POSTGRES_URL }, 'sign-in')?.on).toBe(true)
    expect(feature({ VERCEL: '1' }, 'sign-in')).toMatchObject({
      on: true,
      reason: expect.stringContaining('/tmp/data'),
    })
  })

  test('mail goes through Resend, is printed in development, and is off elsewhere', () => {
    const mail = (variables: Record<string, string>) => feature(variables, 'mail')
    expect(mail(DEPLOYED)).toEqual({ name: 'mail', on: true, reason: 'Resend' })
    expect(mail({ ...DEPLOYED, RESEND_BASE_URL: 'http://user:pass@127.0.0.1:4040' })?.reason).toBe(
      'Resend at 127.0.0.1:4040',
    )
    expect(mail({})).toMatchObject({ on: true, reason: expect.stringContaining('printed here') })
    const off = { name: 'mail', on: false, reason: 'RESEND_API_KEY and MAIL_FROM are not set.' }
    expect(mail({ VERCEL: '1', VERCEL_ENV: 'production' })).toEqual(off)
  })

  test('encryption needs keys as soon as a database is shared', () => {
    const encryption = (variables: Record<string, string>) => feature(variables, 'encryption')
    expect(encryption(DEPLOYED)).toMatchObject({ on: true, reason: expect.stringContaining('"first"') })
    expect(encryption({})).toMatchObject({ on: true, reason: expect.stringContaining('.data') })
    const { ENCRYPTION_KEYS: _, ...without } = DEPLOYED
    expect(encryption(without)).toEqual({ name: 'encryption', on: false, reason: 'ENCRYPTION_KEYS is not set.' })
  })

  test('are off when the configuration says so', () => {
    const variables = { FORK__FEATURES__GENERATE: 'false', FORK__TOOLS__0__PROVIDERS: '["openai"]' }
    expect(feature(variables, 'generate')).toMatchObject({ on: false, reason: 'features.generate is false' })
    expect(feature(variables, 'gemini')).toMatchObject({ on: false, reason: 'no tool lists it' })
    expect(feature(variables, 'sketch')).toMatchObject({ on: false, reason: 'no tool lists it' })
  })

  test('of a provider name what keeps it from being asked: the setting before the key', () => {
    expect(feature({}, 'openai')).toMatchObject({ on: false, reason: 'OPENAI_API_KEY is not set' })
    const disabled = { ...DEPLOYED, FORK__AI__PROVIDERS__STABILITY__ENABLED: 'false' }
    expect(feature(disabled, 'stability')).toEqual({
      name: 'stability',
      on: false,
      reason: 'ai.providers.stability.enabled is false',
    })
  })

  test('payments are on with both keys, and say which Polar takes the money', () => {
    const { POLAR_ACCESS_TOKEN, POLAR_WEBHOOK_SECRET } = DEPLOYED
    const keys = { POLAR_ACCESS_TOKEN, POLAR_WEBHOOK_SECRET }
    const payments = (variables: Record<string, string>) => feature({ ...keys, ...variables }, 'payments')
    expect(payments({})).toEqual({ name: 'payments', on: true, reason: 'Polar, production' })
    expect(payments({ POLAR_ENVIRONMENT: 'sandbox' })).toMatchObject({ on: true, reason: 'Polar, sandbox' })
    const stub = { POLAR_ENVIRONMENT: 'sandbox', POLAR_BASE_URL: 'http://user:pass@127.0.0.1:4020/?token=x' }
    expect(payments(stub)).toMatchObject({ on: true, reason: 'Polar, sandbox at 127.0.0.1:4020' })
  })

  test.each([
    ['POLAR_ACCESS_TOKEN and POLAR_WEBHOOK_SECRET', {}],
    ['payments.provider', { ...DEPLOYED, FORK__PAYMENTS__PROVIDER: 'none' }],
    ['features.payments', { ...DEPLOYED, FORK__FEATURES__PAYMENTS: 'false' }],
    ['database', { ...DEPLOYED, POSTGRES_URL: '' }],
  ])('payments that are off name %s', (reason, variables) => {
    expect(feature(variables, 'payments')).toMatchObject({ on: false, reason: expect.stringContaining(reason) })
  })
})

describe('warnings', () => {
  const warnings = (variables: Record<string, string>) => findings(variables).warnings

  test('say that a deployment without database or KV is a demo', () => {
    expect(warnings({ VERCEL: '1' })).toEqual(
      expect.arrayContaining([
        expect.stringContaining('No database is connected'),
        expect.stringContaining('No KV is connected'),
      ]),
    )
    expect(warnings(DEPLOYED).join()).not.toContain('is connected')
    expect(warnings({}).join()).not.toContain('is connected')
  })

  test('mention a minimum that loses more than a sixth to fees', () => {
    const minimum = (cents: string) =>
      warnings({ FORK__PAYMENTS__MINIMUM_DEPOSIT_CENTS: cents, FORK__PAYMENTS__PACKS: '[]' }).join()
    // 5 % of 200 and 50 is 60; 6.5 % and 50 is 63.
    expect(minimum('200')).toContain('of a purchase of 200 cents, 30 to 32 % are fees; 500 or more is better.')
    expect(minimum('499')).toContain('payments.minimumDepositCents')
    expect(minimum('500')).not.toContain('payments.minimumDepositCents')
  })

  test('name what has no product at Polar, once payments are on', () => {
    const { POLAR_ACCESS_TOKEN, POLAR_WEBHOOK_SECRET } = DEPLOYED
    const keys = { POLAR_ACCESS_TOKEN, POLAR_WEBHOOK_SECRET, FORK__PLANS__PRO__POLAR_PRODUCT_ID: 'one' }
    expect(warnings(keys)).toContain(
      'polarProductId is missing in payments, payments.packs[0], payments.packs[1], plans.enterprise: ' +
        'npm run doctor -- --fix makes the products at Polar.',
    )
    const rest = {
      FORK__PLANS__ENTERPRISE__POLAR_PRODUCT_ID: 'two',
      FORK__PAYMENTS__POLAR_PRODUCT_ID: 'three',
      FORK__PAYMENTS__PACKS__0__POLAR_PRODUCT_ID: 'four',
      FORK__PAYMENTS__PACKS__1__POLAR_PRODUCT_ID: 'five',
    }
    expect(warnings({ ...keys, ...rest }).join()).not.toContain('polarProductId')
    expect(warnings({}).join()).not.toContain('polarProductId')
  })

  test('mention a short ADMIN_PASSWORD, an idle option and a missing logo', async () => {
    expect(warnings({ ADMIN_EMAIL: 'a@example.com', ADMIN_PASSWORD: 'elevenchars' })).toContain(
      'ADMIN_PASSWORD is shorter than auth.passwordLengthMin (12).',
    )
    expect(warnings({ FORK__TOOLS__0__PROMPT: 'Draw.' })).toContain(
      'The prompt of tool "coloring-page" does not use its option "detail".',
    )
    expect(warnings({ FORK__BRAND__LOGO: '/brand/none.svg' })).toContain(
      'brand.logo: public/brand/none.svg does not exist.',
    )
  })
})

describe('settings that are not in force', () => {
  test('are listed with what that means', () => {
    const paths = (variables: Record<string, string>) => findings(variables).notInForce.map(({ path }) => path)
    expect(paths({})).toEqual([])
    const admins = { FORK__AUTH__ADMINS: '["me@example.com"]' }
    expect(paths(admins), 'where no address can be verified').toContain('auth.admins')
    const { RESEND_API_KEY, MAIL_FROM } = DEPLOYED
    expect(paths({ ...admins, RESEND_API_KEY, MAIL_FROM })).not.toContain('auth.admins')
    expect(paths({ ...admins, FORK__AUTH__PROVIDER: 'clerk' })).not.toContain('auth.admins')
  })
})

describe('findings', () => {
  test('take another file, whatever the environment is like', async () => {
    const path = await configWith('"ColoringBook AI"', '""')
    expect(findings({ PORT: 'x' }, path).errors).toEqual([
      { source: 'environment', path: '', message: expect.stringContaining('PORT') },
      { source: path, path: 'brand.name', line: 5, column: 13, message: 'must not be empty' },
    ])
  })

  test('report FORK_CONFIG on Vercel', () => {
    expect(findings({ VERCEL: '1', FORK_CONFIG: 'other.json' }).errors).toEqual([
      { source: 'FORK_CONFIG', path: '', message: expect.stringContaining('cannot be set on Vercel') },
    ])
  })
})
