// Test projects: unit needs nothing; the API suite runs on three lanes; services and built need PostgreSQL and Redis.
import { defineConfig } from 'vitest/config'

const timeouts = { testTimeout: 60_000, hookTimeout: 120_000 }
const api = { include: ['tests/api/**/*.test.ts'], setupFiles: ['tests/support/console.ts'], ...timeouts }

export default defineConfig({
  test: {
    maxWorkers: 2,
    deps: { interopDefault: false },
    silent: 'passed-only',
    diff: { truncateThreshold: 20, truncateAnnotation: '…' },
    globalSetup: ['tests/support/report-skipped.ts'],
    coverage: {
      provider: 'v8',
      include: ['lib/**/*.ts', 'api/**/*.ts'],
      reporter: ['text-summary', 'json-summary'],
      thresholds: { lines: 90 },
    },
    projects: [
      {
        test: {
          name: 'unit',
          include: ['tests/{lib,db,scripts}/**/*.test.ts', 'tests/architecture.test.ts'],
          ...timeouts,
        },
      },
      {
        test: {
          name: 'embedded',
          globalSetup: ['tests/support/setup-embedded.ts'],
          ...api,
          include: [...api.include, 'tests/docs/**/*.test.ts'],
        },
      },
      { test: { name: 'pages', include: ['tests/pages/**/*.test.ts'], ...timeouts } },
      {
        test: {
          name: 'services',
          globalSetup: ['tests/support/setup-services.ts'],
          ...api,
          include: [
            ...api.include,
            'tests/services/**/*.test.ts',
            'tests/db/**/*.test.ts',
            'tests/lib/{kv,rate-limit}.test.ts',
          ],
        },
      },
      {
        test: {
          name: 'built',
          globalSetup: ['tests/support/setup-services.ts'],
          ...api,
          include: [...api.include, 'tests/build/**/*.test.ts'],
        },
      },
    ],
  },
})
