// What every AI provider must do, and the one way it may fail.
import type { ImageFormat } from '../image.ts'

/** What a tool asks for: what goes in and what comes out, or an operation that needs no prompt. */
export const TASKS = ['image->image', 'image->text', 'text->image', 'text->text', 'remove-background'] as const
export type Task = (typeof TASKS)[number]

export const takesImage = (task: Task) => task !== 'text->image' && task !== 'text->text'
export const makesImage = (task: Task) => task !== 'image->text' && task !== 'text->text'

export type Quality = 'draft' | 'standard' | 'high'

export interface SourceImage {
  bytes: Buffer
  format: ImageFormat
  /** Pixels, after orientation has been applied. */
  width: number
  height: number
}

/** The part of a request that decides who can serve it and what that costs. */
export interface Work {
  task: Task
  quality: Quality
}

export interface ModelRequest extends Work {
  /** There for every task that begins with an image. */
  image: SourceImage | undefined
  prompt: string
  /** The tool's own options, already checked against its closed enums. */
  options: Record<string, string>
}

export interface RunContext {
  /** Aborts when the time of this attempt is over. */
  signal: AbortSignal
}

/** What came back: an image as the provider sent it, whose format is whatever its bytes say, or text. */
export type Output = { bytes: Buffer } | { text: string }

export interface ProviderReply {
  output: Output
  model: string
  costMicroUsd: number
}

export interface Provider {
  id: string
  /** The tasks it can do, each with the qualities it does it in. */
  serves: Partial<Record<Task, readonly Quality[]>>
  /** Source formats the provider reads as they are. */
  reads: readonly ImageFormat[]
  /** Why this provider cannot be used now (names of missing environment variables), or null when it can. */
  unavailable(): string | null
  /** Why none of its configured models can do this, where that depends on them; null when one can. */
  cannot?(work: Work): string | null
  /** What one call is expected to cost, in micro-USD: `cheapest` sorts by it, and a call that was broken off counts as it. 0 is free. */
  estimateMicroUsd(work: Work): number
  /** The same of the dearest model that may answer: what budgets hold before a call. */
  ceilingMicroUsd(work: Work): number
  /** One call. Throws ProviderError only. */
  run(request: ModelRequest, context: RunContext): Promise<ProviderReply>
}

export type ProviderErrorKind =
  | 'timeout'
  | 'rate_limited'
  | 'overloaded'
  | 'blocked'
  | 'no_image'
  | 'auth'
  | 'bad_request'
  | 'model_gone'
  | 'network'

/** A provider's failure in our words. `costMicroUsd` is what it billed all the same. */
export class ProviderError extends Error {
  override readonly name = 'ProviderError'
  readonly kind: ProviderErrorKind
  readonly retryAfterMs: number | undefined
  readonly costMicroUsd: number

  constructor(
    kind: ProviderErrorKind,
    message: string,
    {
      retryAfterMs,
      costMicroUsd = 0,
      cause,
    }: { retryAfterMs?: number | undefined; costMicroUsd?: number; cause?: unknown } = {},
  ) {
    super(message, cause === undefined ? {} : { cause })
    this.kind = kind
    this.retryAfterMs = retryAfterMs
    this.costMicroUsd = costMicroUsd
  }
}
