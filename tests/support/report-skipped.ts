// Says before the tests which suites this run leaves out, and how to run them.

export default function report(): void {
  if (process.env.TEST_POSTGRES_URL && process.env.TEST_REDIS_URL) return
  console.log('Skipped here: the suites on real PostgreSQL and Redis. Run them with:')
  console.log(
    '  TEST_POSTGRES_URL=postgres://user@host:5432/postgres TEST_REDIS_URL=redis://host:6379 npm run test:services',
  )
}
