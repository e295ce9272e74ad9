// The edge to Polar: its SDK, at one dated API version, loaded on first use.
import type { models, Polar } from '@polar-sh/sdk/2026-10'
import { AppError } from '../http/errors.ts'
import { requirePayments } from './payments.ts'

/** Types, payloads and the webhook endpoint go with this version; the import paths below name it as well. */
export const POLAR_API_VERSION = '2026-10' as const satisfies models.ApiVersion

/** Where this product receives Polar's events. */
export const WEBHOOK_PATH = '/api/webhooks/polar'

const TIMEOUT_SECONDS = 10
const ENDPOINTS_MAX = 100

let client: Promise<Polar> | undefined

/** Polar's API for the account that the environment names. Throws FEATURE_DISABLED when payments are off. */
export async function polar(): Promise<Polar> {
  const { accessToken, environment, baseUrl } = requirePayments()
  client ??= connectPolar({ accessToken, environment, baseUrl })
  return await client
}

/** A client for any account; calls end after 10 s and are not retried. */
export async function connectPolar(options: {
  accessToken: string
  environment: 'sandbox' | 'production'
  baseUrl: string | undefined
}): Promise<Polar> {
  const { createPolar } = await import('@polar-sh/sdk/2026-10')
  const { accessToken, environment, baseUrl } = options
  return createPolar({ accessToken, environment, timeout: TIMEOUT_SECONDS, ...(baseUrl !== undefined && { baseUrl }) })
}

/** A currency as Polar's types name it; which ones Polar takes, it says when the products are made. */
export function presentmentCurrency(code: string): models.PresentmentCurrency {
  return code as models.PresentmentCurrency
}

/** What a call gives, or undefined when Polar refuses it with this status. */
export async function unlessRefused<T>(status: number, call: () => Promise<T>): Promise<T | undefined> {
  try {
    return await call()
  } catch (error) {
    if (refusedStatus(error) === status) return undefined
    throw error
  }
}

/** Status that Polar refused a call with; undefined for anything else that can go wrong, such as no answer at all. */
export function refusedStatus(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('statusCode' in error)) return undefined
  const { statusCode } = error
  return typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500 ? statusCode : undefined
}

/**
 * Runs calls to Polar for a user's request. What Polar refuses for a reason of ours passes as it is; an outage, a limit or a bad
 * token becomes PROVIDER_ERROR, a declined card PAYMENT_FAILED.
 */
export async function askPolar<T>(work: (client: Polar) => Promise<T>): Promise<T> {
  const client = await polar()
  try {
    return await work(client)
  } catch (cause) {
    if (cause instanceof AppError) throw cause
    if (refusedStatus(cause) === 402) {
      throw new AppError('PAYMENT_FAILED', 'The payment did not go through. Check the card and try again.', { cause })
    }
    throw new AppError('PROVIDER_ERROR', 'The payment service did not answer as it should. Nothing was changed here.', {
      details: { provider: 'polar' },
      cause,
    })
  }
}

/** The webhook endpoints at Polar that lead to this product, on whatever host. */
export async function ownEndpoints(client: Polar): Promise<models.WebhookEndpoint[]> {
  const { items } = await client.webhooks.listWebhookEndpoints({ limit: ENDPOINTS_MAX })
  return items.filter(({ url }) => new URL(url).pathname === WEBHOOK_PATH)
}

export type PolarEvent =
  | { outcome: 'event'; type: string; data: unknown }
  /** Signed, but of a type this SDK does not know. */
  | { outcome: 'unknown_type' }
  /** Not from Polar, or too old. */
  | { outcome: 'forged' }
  /** Signed, but no event. */
  | { outcome: 'unreadable' }

/** Checks a webhook's signature (both of Polar's schemes) and its age (± 300 s). The data's shape is for the reader to check. */
export async function verifyPolarEvent(body: Buffer, headers: Headers): Promise<PolarEvent> {
  const { webhookSecret } = requirePayments()
  const { webhooks } = await import('@polar-sh/sdk/2026-10')
  try {
    const { type, data } = await webhooks.validateEvent(body, Object.fromEntries(headers), webhookSecret)
    return { outcome: 'event', type, data }
  } catch (error) {
    if (error instanceof webhooks.PolarWebhookUnknownTypeError) return { outcome: 'unknown_type' }
    if (error instanceof webhooks.PolarWebhookVerificationError) return { outcome: 'forged' }
    if (error instanceof webhooks.PolarWebhookError) return { outcome: 'unreadable' }
    throw error
  }
}
