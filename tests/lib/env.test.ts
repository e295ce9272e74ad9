// The environment: everything optional, nothing half-set, and every mistake named without showing a secret.
import { describe, expect, test } from 'vitest'
import { EnvError, parseEnv } from '../../lib/env.ts'

const SECRET = 'a secret that is long enough for anybody'
const KEY = Buffer.alloc(32, 1).toString('base64')
const OLD_KEY = Buffer.alloc(32, 2).toString('base64')

function problemsOf(variables: Record<string, string>): string[] {
  try {
    parseEnv(variables)
  } catch (error) {
    if (error instanceof EnvError) return error.problems
    throw error
  }
  return []
}

describe('an environment', () => {
  test('that is empty is the embedded profile', () => {
    expect(parseEnv({})).toEqual({
      databaseUrl: undefined,
      databaseUrlUnpooled: undefined,
      kv: undefined,
      gemini: { apiKey: undefined, baseUrl: undefined },
      openai: { apiKey: undefined, baseUrl: undefined },
      anthropic: { apiKey: undefined, baseUrl: undefined },
      stability: { apiKey: undefined, baseUrl: undefined },
      blob: undefined,
      outgoingWebhook: undefined,
      authJwtSecret: undefined,
      admin: undefined,
      polar: undefined,
      clerk: {
        secretKey: undefined,
        jwtKey: undefined,
        webhookSigningSecret: undefined,
        apiUrl: undefined,
        issuer: undefined,
      },
      resend: undefined,
      appOrigin: undefined,
      encryptionKeys: undefined,
      cronSecret: undefined,
      dataDir: '.data',
      forkConfig: undefined,
      port: 3000,
      onVercel: false,
      stage: 'development',
      commit: undefined,
      forkOverrides: {},
    })
  })

  test('of variables that are there but empty is the same, as a copied .env.example has them', () => {
    const names = [
      'POSTGRES_URL',
      'DATABASE_URL',
      'POSTGRES_URL_NON_POOLING',
      'DATABASE_URL_UNPOOLED',
      'KV_REST_API_URL',
      'KV_REST_API_TOKEN',
      'GEMINI_API_KEY',
      'GEMINI_BASE_URL',
      'OPENAI_API_KEY',
      'OPENAI_BASE_URL',
      'ANTHROPIC_API_KEY',
      'ANTHROPIC_BASE_URL',
      'STABILITY_API_KEY',
      'STABILITY_BASE_URL',
      'BLOB_READ_WRITE_TOKEN',
      'BLOB_BASE_URL',
      'OUTGOING_WEBHOOK_URL',
      'OUTGOING_WEBHOOK_SECRET',
      'AUTH_JWT_SECRET',
      'ADMIN_EMAIL',
      'ADMIN_PASSWORD',
      'POLAR_ACCESS_TOKEN',
      'POLAR_WEBHOOK_SECRET',
      'POLAR_ENVIRONMENT',
      'POLAR_BASE_URL',
      'CLERK_SECRET_KEY',
      'CLERK_JWT_KEY',
      'CLERK_WEBHOOK_SIGNING_SECRET',
      'CLERK_API_URL',
      'CLERK_ISSUER',
      'RESEND_API_KEY',
      'RESEND_BASE_URL',
      'MAIL_FROM',
      'APP_URL',
      'ENCRYPTION_KEYS',
      'CRON_SECRET',
      'DATA_DIR',
      'FORK_CONFIG',
      'PORT',
      'VERCEL',
      'VERCEL_ENV',
      'VERCEL_GIT_COMMIT_SHA',
    ]
    expect(parseEnv(Object.fromEntries(names.map((name) => [name, ''])))).toEqual(parseEnv({}))
  })

  test('that is full is read whole, spaces around values apart', () => {
    const settings = parseEnv({
      POSTGRES_URL: ' postgres://u:p@host/db ',
      POSTGRES_URL_NON_POOLING: 'postgres://u:p@direct/db',
      KV_REST_API_URL: ' https://kv.example.com ',
      KV_REST_API_TOKEN: ' kv-token ',
      GEMINI_API_KEY: ' gemini-key\n',
      GEMINI_BASE_URL: 'http://127.0.0.1:4010',
      BLOB_READ_WRITE_TOKEN: ' vercel_blob_rw_Store_secret ',
      BLOB_BASE_URL: 'HTTPS://Store.example.com:443//',
      AUTH_JWT_SECRET: SECRET,
      ADMIN_EMAIL: ' Root@Example.COM ',
      ADMIN_PASSWORD: 'a password for the admin',
      POLAR_ACCESS_TOKEN: ' polar-token ',
      POLAR_WEBHOOK_SECRET: 'whsec_c2VjcmV0\n',
      POLAR_ENVIRONMENT: 'sandbox',
      POLAR_BASE_URL: 'http://127.0.0.1:4020//',
      CLERK_SECRET_KEY: ' sk_test_x ',
      CLERK_JWT_KEY: '-----BEGIN PUBLIC KEY-----\\nMIIB\\n-----END PUBLIC KEY-----',
      CLERK_WEBHOOK_SIGNING_SECRET: 'whsec_Y2xlcms=',
      CLERK_API_URL: 'http://127.0.0.1:4030/',
      CLERK_ISSUER: 'https://clerk.example.com/',
      RESEND_API_KEY: ' re_key ',
      RESEND_BASE_URL: 'http://127.0.0.1:4040//',
      MAIL_FROM: 'Ink & Co <hello@example.com>',
      ENCRYPTION_KEYS: ` new:${KEY} , old:${OLD_KEY}`,
      CRON_SECRET: 'cron',
      DATA_DIR: '/data',
      PORT: '0',
      VERCEL: '1',
      VERCEL_ENV: 'production',
      VERCEL_GIT_COMMIT_SHA: 'abc123',
      FORK__BRAND__NAME: 'Ink & Co',
      FORKED: 'not ours',
    })
    expect(settings).toMatchObject({
      databaseUrl: 'postgres://u:p@host/db',
      databaseUrlUnpooled: 'postgres://u:p@direct/db',
      kv: { url: 'https://kv.example.com', token: 'kv-token' },
      gemini: { apiKey: 'gemini-key', baseUrl: 'http://127.0.0.1:4010' },
      blob: { token: 'vercel_blob_rw_Store_secret', baseUrl: 'https://store.example.com' },
      authJwtSecret: SECRET,
      admin: { email: 'root@example.com', password: 'a password for the admin' },
      polar: {
        accessToken: 'polar-token',
        webhookSecret: 'whsec_c2VjcmV0',
        environment: 'sandbox',
        baseUrl: 'http://127.0.0.1:4020',
      },
      clerk: {
        secretKey: 'sk_test_x',
        jwtKey: '-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----',
        webhookSigningSecret: 'whsec_Y2xlcms=',
        apiUrl: 'http://127.0.0.1:4030',
        issuer: 'https://clerk.example.com',
      },
      resend: { apiKey: 're_key', from: 'Ink & Co <hello@example.com>', baseUrl: 'http://127.0.0.1:4040' },
      encryptionKeys: [
        { id: 'new', key: Buffer.alloc(32, 1) },
        { id: 'old', key: Buffer.alloc(32, 2) },
      ],
      cronSecret: 'cron',
      dataDir: '/data',
      port: 0,
      onVercel: true,
      stage: 'production',
      commit: 'abc123',
      forkOverrides: { FORK__BRAND__NAME: 'Ink & Co' },
    })
  })

  test.each([
    { variables: { DATABASE_URL: 'd' }, pooled: 'd', unpooled: 'd' },
    { variables: { POSTGRES_URL: 'p', DATABASE_URL: 'd' }, pooled: 'p', unpooled: 'p' },
    { variables: { DATABASE_URL: 'd', DATABASE_URL_UNPOOLED: 'u' }, pooled: 'd', unpooled: 'u' },
    {
      variables: { POSTGRES_URL: 'p', POSTGRES_URL_NON_POOLING: 'n', DATABASE_URL_UNPOOLED: 'u' },
      pooled: 'p',
      unpooled: 'n',
    },
  ])('with $variables migrates through $unpooled', ({ variables, pooled, unpooled }) => {
    expect(parseEnv(variables)).toMatchObject({ databaseUrl: pooled, databaseUrlUnpooled: unpooled })
  })

  test('keeps its data where it can be written on Vercel', () => {
    expect(parseEnv({ VERCEL: '1' }).dataDir).toBe('/tmp/data')
    expect(parseEnv({ VERCEL: '1', DATA_DIR: 'elsewhere' }).dataDir).toBe('elsewhere')
  })

  test.each([
    {
      why: 'a KV address without its token',
      variables: { KV_REST_API_URL: 'https://kv.example.com' },
      names: ['KV_REST_API_URL', 'KV_REST_API_TOKEN'],
    },
    {
      why: 'a KV token without its address',
      variables: { KV_REST_API_TOKEN: 'token' },
      names: ['KV_REST_API_TOKEN', 'KV_REST_API_URL'],
    },
    {
      why: 'an admin without a password',
      variables: { ADMIN_EMAIL: 'root@example.com' },
      names: ['ADMIN_EMAIL', 'ADMIN_PASSWORD'],
    },
    {
      why: 'a password without an admin',
      variables: { ADMIN_PASSWORD: 'password' },
      names: ['ADMIN_PASSWORD', 'ADMIN_EMAIL'],
    },
    {
      why: 'a Polar token without a webhook secret',
      variables: { POLAR_ACCESS_TOKEN: 'token' },
      names: ['POLAR_ACCESS_TOKEN', 'POLAR_WEBHOOK_SECRET'],
    },
    {
      why: 'a Polar webhook secret without a token',
      variables: { POLAR_WEBHOOK_SECRET: 'secret' },
      names: ['POLAR_WEBHOOK_SECRET', 'POLAR_ACCESS_TOKEN'],
    },
    {
      why: 'a KV token that is only spaces',
      variables: { KV_REST_API_URL: 'https://kv.example.com', KV_REST_API_TOKEN: '  ' },
      names: ['KV_REST_API_URL', 'KV_REST_API_TOKEN'],
    },
    {
      why: 'a mailer without a sender',
      variables: { RESEND_API_KEY: 're_key' },
      names: ['RESEND_API_KEY', 'MAIL_FROM'],
    },
    {
      why: 'a sender without a mailer',
      variables: { MAIL_FROM: 'hello@example.com' },
      names: ['MAIL_FROM', 'RESEND_API_KEY'],
    },
    { why: 'a mailer that is no address', variables: { RESEND_BASE_URL: 'resend.com' }, names: ['RESEND_BASE_URL'] },
    { why: 'an issuer that is no address', variables: { CLERK_ISSUER: 'clerk' }, names: ['CLERK_ISSUER'] },
    { why: 'a Clerk that is no address', variables: { CLERK_API_URL: 'clerk' }, names: ['CLERK_API_URL'] },
    { why: 'an encryption key without an id', variables: { ENCRYPTION_KEYS: KEY }, names: ['ENCRYPTION_KEYS', 'kid'] },
    {
      why: 'an encryption key of 31 bytes',
      variables: { ENCRYPTION_KEYS: `a:${KEY},b:${Buffer.alloc(31).toString('base64')}` },
      names: ['ENCRYPTION_KEYS', '32 bytes'],
    },
    {
      why: 'an id of an encryption key that is there twice',
      variables: { ENCRYPTION_KEYS: `a:${KEY},a:${OLD_KEY}` },
      names: ['ENCRYPTION_KEYS', 'once'],
    },
    {
      why: 'an id of an encryption key with a dot, which its secrets could not name',
      variables: { ENCRYPTION_KEYS: `a.b:${KEY}` },
      names: ['ENCRYPTION_KEYS'],
    },
    { why: 'a secret of 31 bytes', variables: { AUTH_JWT_SECRET: 'x'.repeat(31) }, names: ['AUTH_JWT_SECRET'] },
    {
      why: 'an address that is none',
      variables: { KV_REST_API_URL: 'kv.example.com', KV_REST_API_TOKEN: 'token' },
      names: ['KV_REST_API_URL'],
    },
    {
      why: 'an admin who is no address',
      variables: { ADMIN_EMAIL: 'root', ADMIN_PASSWORD: 'password' },
      names: ['ADMIN_EMAIL'],
    },
    {
      why: 'a Polar environment that is none',
      variables: { POLAR_ENVIRONMENT: 'staging' },
      names: ['POLAR_ENVIRONMENT'],
    },
    { why: 'a Polar address that is none', variables: { POLAR_BASE_URL: 'polar.sh' }, names: ['POLAR_BASE_URL'] },
    ...['abc', 'vercel_blob_rw_', 'vercel_blob_rw_store', 'vercel_blob_client_Store_secret'].map((token) => ({
      why: `"${token}" for the token of a store`,
      variables: { BLOB_READ_WRITE_TOKEN: token },
      names: ['BLOB_READ_WRITE_TOKEN', 'vercel_blob_rw_'],
    })),
    { why: 'a port that is no number', variables: { PORT: 'http' }, names: ['PORT'] },
    { why: 'a port out of range', variables: { PORT: '70000' }, names: ['PORT'] },
    { why: 'a stage that is none', variables: { VERCEL_ENV: 'staging' }, names: ['VERCEL_ENV'] },
  ])('with $why is refused by name', ({ variables, names }) => {
    const problems = problemsOf(variables)
    expect(problems).toHaveLength(1)
    for (const name of names) expect(problems[0]).toContain(name)
  })

  test('has all its mistakes told at once', () => {
    const problems = problemsOf({ AUTH_JWT_SECRET: 'short', PORT: 'http', VERCEL_ENV: 'staging' })
    expect(problems.map((problem) => problem.split(':')[0]).sort()).toEqual(['AUTH_JWT_SECRET', 'PORT', 'VERCEL_ENV'])
  })

  test('shows no secret when it is refused', () => {
    const variables = {
      AUTH_JWT_SECRET: 'too short to be one',
      ADMIN_PASSWORD: 'hunter2',
      KV_REST_API_TOKEN: 'kv-token',
      GEMINI_API_KEY: 'gemini-key',
      GEMINI_BASE_URL: 'nonsense',
      CRON_SECRET: 'cron-secret',
      BLOB_READ_WRITE_TOKEN: 'blob-token',
      POLAR_ACCESS_TOKEN: 'polar-token',
      RESEND_API_KEY: 're_resend-key',
      ENCRYPTION_KEYS: 'kid:c2hvcnQ=',
      CLERK_SECRET_KEY: 'sk_clerk-key',
      POSTGRES_URL: 'postgres://u:p4ss@host/db',
    }
    const text =
      problemsOf(variables).join() +
      problemsOf({
        ...variables,
        AUTH_JWT_SECRET: SECRET,
        GEMINI_BASE_URL: '',
        BLOB_READ_WRITE_TOKEN: '',
        ENCRYPTION_KEYS: '',
      }).join()
    expect(text).toContain('AUTH_JWT_SECRET')
    expect(text).toContain('ADMIN_PASSWORD')
    expect(text).toContain('POLAR_WEBHOOK_SECRET')
    const { ADMIN_PASSWORD, AUTH_JWT_SECRET, KV_REST_API_TOKEN, GEMINI_API_KEY, CRON_SECRET, POLAR_ACCESS_TOKEN } =
      variables
    const secrets = [
      ADMIN_PASSWORD,
      AUTH_JWT_SECRET,
      KV_REST_API_TOKEN,
      GEMINI_API_KEY,
      CRON_SECRET,
      POLAR_ACCESS_TOKEN,
    ]
    for (const secret of [...secrets, SECRET, 'p4ss', 're_resend-key', 'blob-token', 'c2hvcnQ=', 'sk_clerk-key']) {
      expect(text).not.toContain(secret)
    }
  })
})
