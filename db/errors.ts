// What PostgreSQL's refusals mean, by their SQLSTATE.

/** Whether a row of this key is there already. */
export function isUniqueViolation(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === '23505'
}
