// The refusals of Polar's API, in the shapes that its SDK knows.

/** Carries the whole answer to a request that is refused. */
export class Refusal extends Error {
  readonly status: number
  readonly body: { error: string; detail?: unknown }
  readonly headers: Record<string, string>

  constructor(status: number, body: { error: string; detail?: unknown }, headers: Record<string, string> = {}) {
    super(typeof body.detail === 'string' ? body.detail : `${status} ${JSON.stringify(body)}`)
    this.name = body.error
    this.status = status
    this.body = body
    this.headers = headers
  }
}

export interface ValidationIssue {
  type: string
  loc: (string | number)[]
  msg: string
  input?: unknown
}

export function refuse(status: number, error: string, detail: string): Refusal {
  return new Refusal(status, { error, detail })
}

export function notFound(): Refusal {
  return refuse(404, 'ResourceNotFound', 'Not found')
}

export function invalid(...issues: ValidationIssue[]): Refusal {
  return new Refusal(422, { error: 'RequestValidationError', detail: issues })
}

/** A field of the body that is well formed and yet of no use. */
export function unusable(field: string | (string | number)[], msg: string, input: unknown): Refusal {
  return invalid({ type: 'value_error', loc: ['body', ...(Array.isArray(field) ? field : [field])], msg, input })
}

export function alreadyCanceled(): Refusal {
  return refuse(
    403,
    'AlreadyCanceledSubscription',
    'This subscription is already canceled or will be at the end of the period.',
  )
}
