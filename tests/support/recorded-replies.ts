// Replies as providers send them, and what each of them costs to the micro-dollar, worked out by hand.
import type { Quality, Task } from '../../lib/ai/provider.ts'
import { GEMINI_REPLIES } from './recorded-gemini.ts'
import { OPENAI_REPLIES } from './recorded-openai.ts'
import { picture, type RecordedReply, type Row, row } from './recorded-row.ts'

const SVG =
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1024 1024" fill="none" stroke="#000"><circle cx="512" cy="512" r="300" stroke-width="8"/></svg>'

function anthropic(
  given: Row,
  input_tokens: number,
  output_tokens: number,
  text = 'A cat on a mat.',
  stop = 'end_turn',
) {
  return row(
    'anthropic',
    { task: 'image->text', ...given },
    {
      id: 'msg_01',
      type: 'message',
      role: 'assistant',
      model: given.model,
      content: [{ type: 'text', text }],
      stop_reason: stop,
      stop_sequence: null,
      usage: { input_tokens, cache_creation_input_tokens: 0, cache_read_input_tokens: 0, output_tokens },
    },
  )
}

const ANTHROPIC: RecordedReply[] = [
  // 1489 × 0.1 + 212 × 0.5 = 148.9 + 106
  anthropic({ model: 'claude-haiku-5-5', costMicroUsd: 255 }, 1489, 212),
  // 1680 × 0.1 + 5230 × 0.5 = 168 + 2,615
  anthropic(
    { model: 'claude-haiku-5-5', task: 'image->image', quality: 'draft', costMicroUsd: 2_783 },
    1680,
    5230,
    SVG,
  ),
  // 1478 × 1 + 96 × 5 = 1,478 + 480
  anthropic({ model: 'claude-haiku-4-5', costMicroUsd: 1_958 }, 1478, 96),
  // 1492 × 2 + 131 × 10 = 2,984 + 1,310
  anthropic({ model: 'claude-sonnet-5', costMicroUsd: 4_294 }, 1492, 131),
  // 1492 × 5 + 118 × 25 = 7,460 + 2,950
  anthropic({ model: 'claude-opus-5', costMicroUsd: 10_410 }, 1492, 118),
  // 1492 × 2 + 4 × 10 = 2,984 + 40
  anthropic(
    { model: 'claude-sonnet-5', what: 'a refusal', kind: 'blocked', costMicroUsd: 3_024 },
    1492,
    4,
    '',
    'refusal',
  ),
]

/** Bytes and headers; the price is that of the call, in credits of 10,000 micro-dollars. */
function stability(model: string, task: Task, costMicroUsd: number, quality: Quality = 'standard'): RecordedReply {
  const headers = { 'content-type': 'image/png', 'finish-reason': 'SUCCESS', seed: '343940597', 'x-request-id': 'a1b2' }
  return { what: '', provider: 'stability', model, task, quality, headers, body: picture, costMicroUsd }
}

const STABILITY: RecordedReply[] = [
  stability('control-structure', 'image->image', 50_000), // 5
  stability('control-structure', 'image->image', 50_000, 'high'), // 5
  stability('remove-background', 'remove-background', 50_000), // 5
  stability('sd3.5-large', 'image->image', 65_000), // 6.5
  stability('sd3.5-large-turbo', 'image->image', 40_000), // 4
  stability('sd3.5-medium', 'text->image', 35_000), // 3.5
  stability('core', 'text->image', 30_000), // 3
  stability('ultra', 'text->image', 80_000), // 8
]

export const RECORDED_REPLIES: RecordedReply[] = [...GEMINI_REPLIES, ...OPENAI_REPLIES, ...ANTHROPIC, ...STABILITY]
