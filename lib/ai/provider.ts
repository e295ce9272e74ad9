// What every AI provider must do, and the one way it may fail.
import type { ImageFormat } from '../image.ts'

export type Capability = 'image->image' | 'image->text' | 'text->image' | 'text->text'

export interface SourceImage {
  bytes: Buffer
  format: ImageFormat
  /** Pixels, after orientation has been applied. */
  width: number
  height: number
}

export interface ImageRequest {
  image: SourceImage
  prompt: string
  /** The tool's own options, already checked against its closed enums. */
  options: Record<string, string>
  quality: 'standard' | 'high'
}

export interface RunContext {
  /** Aborts when the time of this attempt is over. */
  signal: AbortSignal
}

export interface ImageReply {
  /** The provider's image as it came; its format is whatever its bytes say. */
  bytes: Buffer
  model: string
  costMicroUsd: number
}

export interface Provider {
  id: string
  capabilities: readonly Capability[]
  /** Why this provider cannot be used now (names of missing environment variables), or null when it can. */
  unavailable(): string | null
  /** Source formats the provider reads as they are. */
  reads: readonly ImageFormat[]
  run(request: ImageRequest, context: RunContext): Promise<ImageReply>
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
