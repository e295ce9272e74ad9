// What mutants of the code of money and identity are tried against: the tests that call it directly, on real PostgreSQL.
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    name: 'mutation',
    include: [
      'tests/services/{billing-*,ledger-accounts,ledger-operations,ledger-usage,plans}.test.ts',
      'tests/services/{sessions,caller,sign-in,sign-in-races,accounts,throttle,trial,trial-verified,mfa,email-tokens}.test.ts',
      'tests/services/{mail-off,profile,rotate-keys,api-keys,clerk-sync,clerk-users,clerk-outbox,clerk-tokens}.test.ts',
      'tests/services/{lifecycle,purge,export-document,audit,audit-chain,audit-unsigned}.test.ts',
      'tests/api/api-keys{,-off}.test.ts',
      'tests/lib/{billing,billing-edges,access-token,passwords,secret,api-keys,vault,mail,account-mail,totp,preferences,clerk-events}.test.ts',
    ],
    exclude: ['tests/services/billing-chaos.test.ts'],
    globalSetup: ['tests/support/setup-services.ts'],
    setupFiles: ['tests/support/console.ts'],
    testTimeout: 10_000,
    hookTimeout: 30_000,
    deps: { interopDefault: false },
  },
})
