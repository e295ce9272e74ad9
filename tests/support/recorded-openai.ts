// Replies of OpenAI as it sends them, and what each of them costs, worked out by hand.
import { base64, type RecordedReply, type Row, row } from './recorded-row.ts'

interface OpenAiUsage {
  text: number
  image: number
  out: number
}

/** A reply of images/edits or images/generations; usually without details of its output. */
function openaiImage(given: Row, usage: OpenAiUsage | object | undefined, data: object[] = [{ b64_json: base64 }]) {
  const known =
    usage && 'text' in usage
      ? {
          total_tokens: usage.text + usage.image + usage.out,
          input_tokens: usage.text + usage.image,
          input_tokens_details: { text_tokens: usage.text, image_tokens: usage.image },
          output_tokens: usage.out,
        }
      : usage
  const settings = { background: 'opaque', output_format: 'png', size: '1024x1024', quality: 'medium' }
  return row('openai', given, { created: 1_795_000_000, ...settings, data, ...(known && { usage: known }) })
}

function openaiChat(given: Row, prompt_tokens: number, completion_tokens: number, message: object) {
  return row(
    'openai',
    { task: 'image->text', ...given },
    {
      id: 'chatcmpl-C1',
      object: 'chat.completion',
      model: given.model,
      choices: [{ index: 0, message: { role: 'assistant', ...message }, finish_reason: 'stop' }],
      usage: {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
        completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 0 },
      },
    },
  )
}

const SAID = { content: 'A cat on a mat.', refusal: null }

export const OPENAI_REPLIES: RecordedReply[] = [
  // 46 × 5 + 1521 × 8 + 196 × 30 = 230 + 12,168 + 5,880
  openaiImage(
    { model: 'gpt-image-2.5-flare', quality: 'draft', costMicroUsd: 18_278 },
    { text: 46, image: 1521, out: 196 },
  ),
  // 230 + 12,168 + 439 × 30 = 13,170
  openaiImage({ model: 'gpt-image-2.5-flare', costMicroUsd: 25_568 }, { text: 46, image: 1521, out: 439 }),
  // 230 + 12,168 + 1756 × 30 = 52,680
  openaiImage(
    { model: 'gpt-image-2.5-flare', quality: 'high', costMicroUsd: 65_078 },
    { text: 46, image: 1521, out: 1756 },
  ),
  // 52 × 5 + 1024 × 8 + 196 × 30 = 260 + 8,192 + 5,880
  openaiImage({ model: 'gpt-image-2', quality: 'draft', costMicroUsd: 14_332 }, { text: 52, image: 1024, out: 196 }),
  // 260 + 8,192 + 1756 × 30 = 52,680
  openaiImage({ model: 'gpt-image-2', costMicroUsd: 61_132 }, { text: 52, image: 1024, out: 1756 }),
  // 260 + 8,192 + 7024 × 30 = 210,720
  openaiImage({ model: 'gpt-image-2', quality: 'high', costMicroUsd: 219_172 }, { text: 52, image: 1024, out: 7024 }),
  // 31 × 5 + 323 × 8 + 272 × 32 = 155 + 2,584 + 8,704
  openaiImage({ model: 'gpt-image-1.5', quality: 'draft', costMicroUsd: 11_443 }, { text: 31, image: 323, out: 272 }),
  // 155 + 2,584 + 1056 × 32 = 33,792
  openaiImage({ model: 'gpt-image-1.5', costMicroUsd: 36_531 }, { text: 31, image: 323, out: 1056 }),
  // 155 + 2,584 + 4160 × 32 = 133,120
  openaiImage({ model: 'gpt-image-1.5', quality: 'high', costMicroUsd: 135_859 }, { text: 31, image: 323, out: 4160 }),
  // 31 × 2 + 323 × 2.5 + 272 × 8 = 62 + 807.5 + 2,176
  openaiImage({ model: 'gpt-image-1-mini', quality: 'draft', costMicroUsd: 3_046 }, { text: 31, image: 323, out: 272 }),
  // 62 + 807.5 + 1056 × 8 = 8,448
  openaiImage({ model: 'gpt-image-1-mini', costMicroUsd: 9_318 }, { text: 31, image: 323, out: 1056 }),
  // 62 + 807.5 + 4160 × 8 = 33,280
  openaiImage(
    { model: 'gpt-image-1-mini', quality: 'high', costMicroUsd: 34_150 },
    { text: 31, image: 323, out: 4160 },
  ),
  // 31 × 5 + 323 × 8 + 1056 × 32 + 48 × 10 = 155 + 2,584 + 33,792 + 480
  openaiImage(
    { model: 'gpt-image-1.5', what: 'output told apart', costMicroUsd: 37_011 },
    {
      total_tokens: 1458,
      input_tokens: 354,
      input_tokens_details: { text_tokens: 31, image_tokens: 323 },
      output_tokens: 1104,
      output_tokens_details: { image_tokens: 1056, text_tokens: 48 },
    },
  ),
  // Without details all input is photo: 1567 × 8 + 439 × 30 = 12,536 + 13,170
  openaiImage(
    { model: 'gpt-image-2.5-flare', what: 'no details of the input', costMicroUsd: 25_706 },
    { total_tokens: 2006, input_tokens: 1567, output_tokens: 439 },
  ),
  // 18 × 5 + 439 × 30 = 90 + 13,170
  openaiImage(
    { model: 'gpt-image-2.5-flare', task: 'text->image', costMicroUsd: 13_260 },
    { text: 18, image: 0, out: 439 },
  ),
  // 14 × 5 + 1521 × 8 + 439 × 30 = 70 + 12,168 + 13,170
  openaiImage(
    { model: 'gpt-image-2.5-flare', task: 'remove-background', costMicroUsd: 25_408 },
    { text: 14, image: 1521, out: 439 },
  ),
  // As expected: 400 × 5 + 1500 × 8 + 659 × 30 = 2,000 + 12,000 + 19,770
  openaiImage({ model: 'gpt-image-2.5-flare', what: 'no usage', costMicroUsd: 33_770 }, undefined),
  // 230 + 12,168 + 13,170
  openaiImage(
    { model: 'gpt-image-2.5-flare', what: 'billed without a picture', kind: 'no_image', costMicroUsd: 25_568 },
    { text: 46, image: 1521, out: 439 },
    [],
  ),
  // 1130 × 2.5 + 87 × 10 = 2,825 + 870
  openaiChat({ model: 'gpt-4o', costMicroUsd: 3_695 }, 1130, 87, SAID),
  // 25545 × 0.15 + 64 × 0.6 = 3,831.75 + 38.4
  openaiChat({ model: 'gpt-4o-mini', costMicroUsd: 3_871 }, 25_545, 64, SAID),
  // 812 × 2 + 120 × 8 = 1,624 + 960
  openaiChat({ model: 'gpt-4.1', costMicroUsd: 2_584 }, 812, 120, SAID),
  // 1703 × 0.4 + 93 × 1.6 = 681.2 + 148.8
  openaiChat({ model: 'gpt-4.1-mini', costMicroUsd: 830 }, 1703, 93, SAID),
  // 1271 × 0.1 + 358 × 0.5 = 127.1 + 179; what it thought is among the 358
  openaiChat({ model: 'gpt-6-luna', what: 'thoughts', costMicroUsd: 307 }, 1271, 358, SAID),
  // 1703 × 0.4 + 11 × 1.6 = 681.2 + 17.6
  openaiChat({ model: 'gpt-4.1-mini', what: 'a refusal', kind: 'blocked', costMicroUsd: 699 }, 1703, 11, {
    content: null,
    refusal: 'I cannot help with that.',
  }),
]
