// From an error code to words that say what happened, what it cost (nothing), and what to do next.
import { number, t } from './texts.js'

/** Codes whose generation the server gave back: these say that nothing was charged. */
const FREE_OF_CHARGE = new Set([
  'CONTENT_BLOCKED',
  'PROVIDER_ERROR',
  'PROVIDER_TIMEOUT',
  'PROVIDER_UNAVAILABLE',
  'BUDGET_EXHAUSTED',
  'IMAGE_UNREADABLE',
  'IMAGE_TOO_LARGE',
  'PAYLOAD_TOO_LARGE',
  'UNSUPPORTED_MEDIA_TYPE',
  'INTERNAL_ERROR',
])

const WORDS = {
  NETWORK: 'errorNetwork',
  UNAUTHENTICATED: 'errorSession',
  TOKEN_EXPIRED: 'errorSession',
  RATE_LIMITED: 'errorRate',
  CONTENT_BLOCKED: 'errorBlocked',
  PROVIDER_ERROR: 'errorProvider',
  PROVIDER_TIMEOUT: 'errorTimeout',
  PROVIDER_UNAVAILABLE: 'errorUnavailable',
  BUDGET_EXHAUSTED: 'errorBudget',
  PAYLOAD_TOO_LARGE: 'errorTooLarge',
  IMAGE_TOO_LARGE: 'errorTooLarge',
  IMAGE_UNREADABLE: 'errorUnreadable',
  UNSUPPORTED_MEDIA_TYPE: 'errorUnreadable',
  ACCOUNT_SUSPENDED: 'errorSuspended',
  IDEMPOTENCY_IN_PROGRESS: 'errorRunning',
  CONFLICT: 'errorConflict',
  INTERNAL_ERROR: 'errorOther',
}

/** What went wrong with a generation: `{ title, text, note, retryAt?, action?: 'tokens' | 'signIn' }`. */
export function explain(error) {
  const { code, details, requestId } = error
  if (code === 'INSUFFICIENT_TOKENS') return missingTokens(details)
  if (code === 'FEATURE_DISABLED') return { title: t('errorOff'), text: details.reason ?? error.message, note: '' }
  const words = WORDS[code]
  if (!words) return { title: t('errorOther'), text: error.message || t('errorOtherText'), note: reference(requestId) }
  const problem = { title: t(words), text: t(`${words}Text`), note: '' }
  if (FREE_OF_CHARGE.has(code))
    problem.note = [t('errorNothingCharged'), reference(requestId)].filter(Boolean).join(' ')
  if (code === 'RATE_LIMITED') problem.retryAt = retryAtOf(error)
  if (words === 'errorSession') problem.action = 'signIn'
  return problem
}

/** When a limited call may be repeated, in milliseconds since 1970. */
export function retryAtOf(error) {
  return Date.now() + Math.max(1, error.retryAfterSeconds ?? 30) * 1000
}

/** A file we could not use. */
export function explainPhoto({ code, facts }) {
  return { title: t(code), text: t(`${code}Text`, facts), note: '' }
}

/** What a form shows: messages by field from `details.issues`, and one sentence for the whole form. */
export function explainForm(error, fields) {
  const byField = {}
  for (const { path, message } of error.details.issues ?? []) {
    const field = String(path).split('.').at(-1)
    if (fields.includes(field)) byField[field] ??= message
  }
  if (error.code === 'EMAIL_TAKEN') return { byField: { email: t('errorEmailTaken') }, whole: '', taken: true }
  if (Object.keys(byField).length > 0) return { byField, whole: '' }
  if (error.code === 'RATE_LIMITED') return { byField, whole: t('errorRate'), retryAt: retryAtOf(error) }
  if (error.code === 'UNAUTHENTICATED') return { byField, whole: t('errorCredentials') }
  if (error.code === 'FEATURE_DISABLED') return { byField, whole: error.details.reason ?? error.message }
  const words = WORDS[error.code]
  return { byField, whole: words && words !== 'errorOther' ? t(words) : error.message || t('errorOther') }
}

/** One sentence about a purchase or a plan that did not work out. The server knows best what a refusal means here. */
export function explainPayment(error) {
  const { code, details, message } = error
  if (code === 'NETWORK') return t('errorPaymentsNetwork')
  if (code === 'RATE_LIMITED') return t('errorPaymentsRate', { seconds: Math.max(1, error.retryAfterSeconds ?? 30) })
  if (code === 'FEATURE_DISABLED') return details.reason ?? message
  if (code === 'VALIDATION_FAILED') return details.issues?.[0]?.message ?? message
  if (code === 'IDEMPOTENCY_IN_PROGRESS') return t('busy')
  if (code === 'UNAUTHENTICATED' || code === 'TOKEN_EXPIRED') return t('errorSession')
  if (code === 'ACCOUNT_SUSPENDED') return t('errorSuspended')
  return message || t('errorOther')
}

/** One sentence about something else the account refused to do. */
export function explainAccount(error) {
  return error.code === 'NETWORK' ? t('errorAccountNetwork') : explainPayment(error)
}

/** Why nobody can sign in: the scripts of whoever checks identities, or our own server, did not do their part. */
export function explainSignIn(error) {
  if (error.code === 'SIGN_IN_UNREACHABLE') return t('signInUnreachable')
  if (error.code === 'UNAUTHENTICATED' || error.code === 'TOKEN_EXPIRED') return t('signInRefused')
  return explainAccount(error)
}

function missingTokens({ required = 0, balance = 0 }) {
  const have = typeof balance === 'object' ? (balance.tokens ?? 0) : balance
  const values = { required: number(required), balance: number(have), missing: number(Math.max(0, required - have)) }
  return {
    title: t('errorTokens'),
    text: t('errorTokensText', values),
    note: t('errorNothingCharged'),
    action: 'tokens',
  }
}

function reference(requestId) {
  return requestId ? t('errorReference', { requestId }) : ''
}
