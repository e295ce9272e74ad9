// What mutants of the money code are tried against: the tests that call it directly, on real PostgreSQL.
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    name: 'mutation',
    include: [
      'tests/services/{billing-*,ledger-accounts,ledger-operations,ledger-usage,plans}.test.ts',
      'tests/lib/billing{,-edges}.test.ts',
    ],
    exclude: ['tests/services/billing-chaos.test.ts'],
    globalSetup: ['tests/support/setup-services.ts'],
    setupFiles: ['tests/support/console.ts'],
    testTimeout: 10_000,
    hookTimeout: 30_000,
    deps: { interopDefault: false },
  },
})
