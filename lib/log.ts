// One JSON line per event on standard output, with secrets and e-mail addresses taken out.

const SECRET_NAME = /authorization|cookie|password|secret|token$|api[-_]?key/i
// Each look-behind lets a run of characters be tried once only: strangers choose what stands in an address.
const SECRET_VALUE =
  /(?<![\w-])eyJ[\w-]+\.[\w-]+\.[\w-]+|\brt_[\w-]{20,}|\b[a-z][a-z0-9]{1,9}_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}\b|\b(?:sk_(?:test|live)|whsec)_[\w+/=-]+|\bBearer\s+\S+|(?<![\w.+-])[\w.+-]+(?:@|%40)[\w-]+\.[\w.-]+/g

export type LogLevel = 'info' | 'warn' | 'error'

/** Writes one event. Values under secret names, tokens and e-mail addresses inside strings never reach the output. */
export function log(level: LogLevel, event: string, fields: Record<string, unknown> = {}): void {
  const line = JSON.stringify({ time: new Date().toISOString(), level, event, ...fields }, redact)
  if (level === 'error') console.error(line)
  else console.log(line)
}

/** An error as the log shows it: its chain of causes with the stack of the innermost, never sent to a client. */
export function describeError(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return { message: String(error) }
  const described = { name: error.name, message: error.message }
  return error.cause === undefined
    ? { ...described, stack: error.stack }
    : { ...described, cause: describeError(error.cause) }
}

function redact(name: string, value: unknown): unknown {
  if (SECRET_NAME.test(name)) return '[redacted]'
  return typeof value === 'string' ? value.replace(SECRET_VALUE, '[redacted]') : value
}
