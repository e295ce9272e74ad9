// Says before the tests which suites this run leaves out, and how to run them.

import { chromiumPath } from './chromium.ts'

export default function report(): void {
  if (!chromiumPath) console.log('Skipped here: the pages in a real browser. Install Chromium, or set CHROMIUM_PATH.')
  if (process.env.TEST_POSTGRES_URL && process.env.TEST_REDIS_URL) return
  console.log('Skipped here: the suites on real PostgreSQL and Redis. Run them with:')
  console.log(
    '  TEST_POSTGRES_URL=postgres://user@host:5432/postgres TEST_REDIS_URL=redis://host:6379 npm run test:services',
  )
}
