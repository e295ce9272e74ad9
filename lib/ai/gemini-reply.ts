// What a reply of generateContent says: the picture or the words, why there is none, and what it is billed for.
import * as v from 'valibot'
import type { TokenUsage } from './prices.ts'

const Tokens = v.nullish(
  v.array(v.object({ modality: v.nullish(v.string()), tokenCount: v.nullish(v.pipe(v.number(), v.minValue(0))) })),
)
const count = v.nullish(v.pipe(v.number(), v.minValue(0)))

/** The fields that are used; the SDK's own types know neither image output nor `thought`. */
export const GeminiReply = v.object({
  candidates: v.nullish(
    v.array(
      v.object({
        finishReason: v.nullish(v.string()),
        content: v.nullish(
          v.object({
            parts: v.nullish(
              v.array(
                v.object({
                  thought: v.nullish(v.boolean()),
                  text: v.nullish(v.string()),
                  inlineData: v.nullish(v.object({ data: v.string() })),
                }),
              ),
            ),
          }),
        ),
      }),
    ),
  ),
  promptFeedback: v.nullish(v.object({ blockReason: v.nullish(v.string()) })),
  usageMetadata: v.nullish(
    v.object({
      promptTokenCount: count,
      promptTokensDetails: Tokens,
      candidatesTokenCount: count,
      candidatesTokensDetails: Tokens,
      thoughtsTokenCount: count,
    }),
  ),
})
export type GeminiReply = v.InferOutput<typeof GeminiReply>

/** Compared as strings: Google adds reasons faster than SDKs add enums. Any other reason counts as "no answer". */
const BLOCKED_FINISHES = new Set([
  'SAFETY',
  'IMAGE_SAFETY',
  'PROHIBITED_CONTENT',
  'IMAGE_PROHIBITED_CONTENT',
  'BLOCKLIST',
  'SPII',
  'RECITATION',
  'IMAGE_RECITATION',
])

/** The last image that is no thought, in base64: models that think send their drafts first. */
export function lastImage(reply: GeminiReply): string | undefined {
  return answerParts(reply).findLast(({ inlineData }) => inlineData?.data)?.inlineData?.data
}

/** All words that are no thought; undefined when there is none. */
export function answerText(reply: GeminiReply): string | undefined {
  const text = answerParts(reply)
    .map((part) => part.text ?? '')
    .join('')
    .trim()
  return text === '' ? undefined : text
}

/** Whether it reached the limit of its tokens before its end. */
export function isCutOff({ candidates }: GeminiReply): boolean {
  return candidates?.some(({ finishReason }) => finishReason === 'MAX_TOKENS') ?? false
}

export function blockReason(reply: GeminiReply): string | undefined {
  const reason = reply.promptFeedback?.blockReason
  if (reason) return reason
  return reply.candidates
    ?.map((candidate) => candidate.finishReason ?? '')
    .find((finish) => BLOCKED_FINISHES.has(finish))
}

/**
 * What the reply is billed for, failed ones included; undefined when it does not say, or leaves its picture out. Output that it
 * does not tell apart counts as picture when there is one, which is dearer.
 */
export function usageOf(reply: GeminiReply): TokenUsage | undefined {
  const { usageMetadata: usage } = reply
  if (!usage) return undefined
  const hasImage = lastImage(reply) !== undefined
  const candidates = usage.candidatesTokenCount ?? 0
  const isSplit = (usage.candidatesTokensDetails ?? []).length > 0
  const undivided = hasImage ? candidates : 0
  const imageIn = imageTokens(usage.promptTokensDetails)
  const imageOut = isSplit ? imageTokens(usage.candidatesTokensDetails) : undivided
  if (hasImage && imageOut === 0) return undefined
  return {
    textIn: Math.max(0, (usage.promptTokenCount ?? 0) - imageIn),
    imageIn,
    textOut: Math.max(0, candidates - imageOut) + (usage.thoughtsTokenCount ?? 0),
    imageOut,
  }
}

function imageTokens(details: v.InferOutput<typeof Tokens>): number {
  return (details ?? []).reduce((sum, { modality, tokenCount }) => {
    return modality === 'IMAGE' ? sum + (tokenCount ?? 0) : sum
  }, 0)
}

function answerParts({ candidates }: GeminiReply) {
  return candidates?.flatMap(({ content }) => content?.parts ?? []).filter(({ thought }) => !thought) ?? []
}
