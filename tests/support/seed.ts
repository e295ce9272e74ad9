// The seed of this run's random choices. It stands in the titles of the tests that use it; TEST_SEED repeats a run.

export const seed = Number(process.env.TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31))
