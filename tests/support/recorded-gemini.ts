// Replies of Gemini as it sends them, and what each of them costs, worked out by hand.
import { base64, type RecordedReply, type Row, row } from './recorded-row.ts'

/** Tokens of Gemini's usageMetadata; a list of details is left out where Gemini leaves it out. */
interface GeminiUsage {
  promptText: number
  promptImage?: number
  candidates?: number
  image?: number
  thoughts?: number
  undetailed?: boolean
}

function geminiUsage({ promptText, promptImage = 0, candidates, image = 0, thoughts, undetailed }: GeminiUsage) {
  const promptTokenCount = promptText + promptImage
  return {
    promptTokenCount,
    ...(candidates !== undefined && { candidatesTokenCount: candidates }),
    totalTokenCount: promptTokenCount + (candidates ?? 0) + (thoughts ?? 0),
    promptTokensDetails: [
      { modality: 'TEXT', tokenCount: promptText },
      ...(promptImage > 0 ? [{ modality: 'IMAGE', tokenCount: promptImage }] : []),
    ],
    ...(image > 0 && !undetailed && { candidatesTokensDetails: [{ modality: 'IMAGE', tokenCount: image }] }),
    ...(thoughts !== undefined && { thoughtsTokenCount: thoughts }),
  }
}

const drawn = { inlineData: { mimeType: 'image/png', data: base64 } }

/** A reply of generateContent; with `parts` of its own it is not one picture. */
function gemini(given: Row, usage: GeminiUsage | undefined, parts: object[] = [drawn], finishReason = 'STOP') {
  return row('gemini', given, {
    candidates: [{ ...(parts.length > 0 && { content: { parts, role: 'model' } }), finishReason, index: 0 }],
    ...(usage && { usageMetadata: geminiUsage(usage) }),
    modelVersion: given.model,
    responseId: 'k0gfaYz9Ldy2vdIPo5aM2A4',
  })
}

const words = (text: string) => [{ text }]

export const GEMINI_REPLIES: RecordedReply[] = [
  // (37 + 258) × 0.3 + 1290 × 30 = 88.5 + 38,700
  gemini(
    { model: 'gemini-2.5-flash-image', costMicroUsd: 38_789 },
    { promptText: 37, promptImage: 258, candidates: 1290, image: 1290 },
  ),
  // (37 + 1290) × 0.3 + 1290 × 30 + 12 × 2.5 = 398.1 + 38,700 + 30
  gemini(
    { model: 'gemini-2.5-flash-image', quality: 'high', what: 'words beside the picture', costMicroUsd: 39_129 },
    { promptText: 37, promptImage: 1290, candidates: 1302, image: 1290 },
    [{ text: 'Here is your colouring page.' }, drawn],
  ),
  // (40 + 1090) × 1.5 + 1120 × 30 + 312 × 7.5 = 1,695 + 33,600 + 2,340
  gemini(
    { model: 'gemini-nano-banana-2.1', what: 'thoughts', costMicroUsd: 37_635 },
    { promptText: 40, promptImage: 1090, candidates: 1120, image: 1120, thoughts: 312 },
  ),
  // (40 + 1090) × 1.5 + 1120 × 30 + (28 + 655) × 7.5 = 1,695 + 33,600 + 5,122.5
  gemini(
    { model: 'gemini-nano-banana-2.1', quality: 'high', what: 'thoughts and words', costMicroUsd: 40_418 },
    { promptText: 40, promptImage: 1090, candidates: 1148, image: 1120, thoughts: 655 },
  ),
  // (22 + 1090) × 0.25 + 1120 × 30 = 278 + 33,600
  gemini(
    { model: 'gemini-3.1-flash-lite-image', costMicroUsd: 33_878 },
    { promptText: 22, promptImage: 1090, candidates: 1120, image: 1120 },
  ),
  // (23 + 1090) × 0.25 + 1120 × 30 + 15 × 1.5 = 278.25 + 33,600 + 22.5
  gemini(
    { model: 'gemini-3.1-flash-lite-image', quality: 'high', costMicroUsd: 33_901 },
    { promptText: 23, promptImage: 1090, candidates: 1135, image: 1120 },
  ),
  // (40 + 1090) × 2 + 1120 × 120 + 205 × 12 = 2,260 + 134,400 + 2,460
  gemini(
    { model: 'gemini-3-pro-image', costMicroUsd: 139_120 },
    { promptText: 40, promptImage: 1090, candidates: 1120, image: 1120, thoughts: 205 },
  ),
  // (11 + 560) × 2 + 1120 × 120 + 167 × 12 = 1,142 + 134,400 + 2,004
  gemini(
    { model: 'gemini-3-pro-image', quality: 'high', costMicroUsd: 137_546 },
    { promptText: 11, promptImage: 560, candidates: 1120, image: 1120, thoughts: 167 },
  ),
  // (17 + 1090) × 0.3 + 61 × 2.5 = 332.1 + 152.5
  gemini(
    { model: 'gemini-3.5-flash-lite', task: 'image->text', costMicroUsd: 485 },
    { promptText: 17, promptImage: 1090, candidates: 61 },
    words('A cat on a mat.'),
  ),
  // 24 × 0.3 + (412 + 891) × 2.5 = 7.2 + 3,257.5
  gemini(
    { model: 'gemini-2.5-flash', task: 'text->text', what: 'thoughts', costMicroUsd: 3_265 },
    { promptText: 24, candidates: 412, thoughts: 891 },
    words('Once upon a time …'),
  ),
  // (37 + 258) × 0.3 + 2580 × 30 = 88.5 + 77,400
  gemini(
    { model: 'gemini-2.5-flash-image', what: 'two pictures, of which one is used', costMicroUsd: 77_489 },
    { promptText: 37, promptImage: 258, candidates: 2580, image: 2580 },
    [drawn, drawn],
  ),
  // Asked twice, and billed twice: 2 × (88.5 + 38,700), each rounded up.
  gemini(
    { model: 'gemini-2.5-flash-image', what: 'NO_IMAGE, and billed for one', kind: 'no_image', costMicroUsd: 77_578 },
    { promptText: 37, promptImage: 258, candidates: 1290, image: 1290 },
    [],
    'NO_IMAGE',
  ),
  // (37 + 258) × 0.3 = 88.5
  gemini(
    { model: 'gemini-2.5-flash-image', what: 'IMAGE_SAFETY', kind: 'blocked', costMicroUsd: 89 },
    { promptText: 37, promptImage: 258 },
    [],
    'IMAGE_SAFETY',
  ),
  // Without details all output is picture: (37 + 258) × 0.3 + 1290 × 30
  gemini(
    { model: 'gemini-2.5-flash-image', what: 'no details of the output', costMicroUsd: 38_789 },
    { promptText: 37, promptImage: 258, candidates: 1290, image: 1290, undetailed: true },
  ),
  // As expected: (400 + 1290) × 0.3 + 1290 × 30 = 507 + 38,700
  gemini({ model: 'gemini-2.5-flash-image', what: 'no usage', costMicroUsd: 39_207 }, undefined),
  // 18 × 1.5 + 1120 × 30 + 240 × 7.5 = 27 + 33,600 + 1,800
  gemini(
    { model: 'gemini-nano-banana-2.1', task: 'text->image', costMicroUsd: 35_427 },
    { promptText: 18, candidates: 1120, image: 1120, thoughts: 240 },
  ),
]
