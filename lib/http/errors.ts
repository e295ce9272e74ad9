// The closed table of error codes, their statuses, the one error class that carries them, and the form they leave in.

/** Code → HTTP status. Codes are the contract with clients: add, never rename. */
export const ERROR_STATUS = {
  VALIDATION_FAILED: 400,
  INVALID_JSON: 400,
  UNAUTHENTICATED: 401,
  TOKEN_EXPIRED: 401,
  MFA_REQUIRED: 401,
  INSUFFICIENT_TOKENS: 402,
  PAYMENT_FAILED: 402,
  FORBIDDEN: 403,
  ACCOUNT_SUSPENDED: 403,
  NOT_FOUND: 404,
  METHOD_NOT_ALLOWED: 405,
  CONFLICT: 409,
  IDEMPOTENCY_IN_PROGRESS: 409,
  EMAIL_TAKEN: 409,
  PRECONDITION_FAILED: 412,
  PAYLOAD_TOO_LARGE: 413,
  UNSUPPORTED_MEDIA_TYPE: 415,
  IMAGE_UNREADABLE: 422,
  IMAGE_TOO_LARGE: 422,
  CONTENT_BLOCKED: 422,
  IDEMPOTENCY_KEY_REUSED: 422,
  RATE_LIMITED: 429,
  INTERNAL_ERROR: 500,
  PROVIDER_ERROR: 502,
  PROVIDER_UNAVAILABLE: 503,
  BUDGET_EXHAUSTED: 503,
  FEATURE_DISABLED: 503,
  PROVIDER_TIMEOUT: 504,
} as const

export type ErrorCode = keyof typeof ERROR_STATUS

interface ErrorExtras {
  details?: Record<string, unknown>
  headers?: Record<string, string>
  cause?: unknown
}

/** An expected failure: `message`, `details` and `headers` go to the client, `cause` goes to the log only. */
export class AppError extends Error {
  override readonly name = 'AppError'
  readonly code: ErrorCode
  readonly details: Record<string, unknown>
  readonly headers: Record<string, string>
  /** Taken once, so that an error that is kept for replays is the error that was sent. */
  readonly timestamp = new Date().toISOString()

  constructor(code: ErrorCode, message: string, { details = {}, headers = {}, cause }: ErrorExtras = {}) {
    super(message, cause === undefined ? {} : { cause })
    this.code = code
    this.details = details
    this.headers = headers
  }

  get status(): number {
    return ERROR_STATUS[this.code]
  }
}

/** The one form in which errors leave: `{ error: { code, message, details, timestamp, requestId } }`. */
export function errorResponse(error: AppError, requestId: string): Response {
  const { code, message, details, timestamp, status, headers } = error
  return Response.json({ error: { code, message, details, timestamp, requestId } }, { status, headers })
}
