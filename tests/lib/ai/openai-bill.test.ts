// What an answer of OpenAI costs, and how its megabytes of base64 are read.
import { describe, expect, test, vi } from 'vitest'
import { openai } from '../../../lib/ai/openai.ts'
import type { Quality, Task } from '../../../lib/ai/provider.ts'
import { IMAGE_REQUEST, SOURCE, testAdapter } from '../../support/adapter.ts'

const adapter = testAdapter(openai, 'openai', IMAGE_REQUEST)
const { run, failure, behave } = adapter

/** Expected of an edit in standard quality: 400 × 5 + 1500 × 8 + 659 × 30. */
const EXPECTED_EDIT = 33_770
/** What the stub bills for one: 10 × 5 + 1024 × 8 + 659 × 30. */
const BILLED_EDIT = 28_012
/** Expected of a caption: (400 + 1659) × 0.4 + 500 × 1.6, rounded up. */
const EXPECTED_CAPTION = 1624

const bytesOf = ({ output }: Awaited<ReturnType<typeof run>>) => ('bytes' in output ? output.bytes : Buffer.alloc(0))

describe('the usage', () => {
  const png = SOURCE.toString('base64')
  const reply = (usage: unknown) => ({
    kind: 'raw' as const,
    body: JSON.stringify({ data: [{ b64_json: png }], usage }),
  })

  test.each([
    ['without details is all picture', { input_tokens: 100, output_tokens: 200 }, 100 * 8 + 200 * 30],
    [
      'with details is by kind',
      {
        input_tokens: 100,
        input_tokens_details: { text_tokens: 40, image_tokens: 60 },
        output_tokens: 200,
        output_tokens_details: { text_tokens: 50, image_tokens: 150 },
      },
      40 * 5 + 60 * 8 + 200 * 30,
    ],
    ['left out costs what is expected', undefined, EXPECTED_EDIT],
    ['that is null costs what is expected', null, EXPECTED_EDIT],
    ['that is empty costs what is expected', {}, EXPECTED_EDIT],
    ['without the picture costs what is expected', { input_tokens: 100, output_tokens: 0 }, EXPECTED_EDIT],
    [
      'whose output is all words costs what is expected',
      { input_tokens: 100, output_tokens: 50, output_tokens_details: { text_tokens: 50 } },
      EXPECTED_EDIT,
    ],
  ])('%s', async (_what, usage, costMicroUsd) => {
    behave(reply(usage))
    expect((await run()).costMicroUsd).toBe(costMicroUsd)
  })

  test.each([{}, { prompt_tokens: 100 }, { prompt_tokens: 100, completion_tokens: 0 }, { completion_tokens: -1 }])(
    'of words that leaves them out costs what is expected: %j',
    async (usage) => {
      const choices = [{ finish_reason: 'stop', message: { content: 'A cat.' } }]
      behave({ kind: 'raw', body: JSON.stringify({ choices, usage }) })
      expect(await run({ task: 'image->text' })).toMatchObject({
        output: { text: 'A cat.' },
        costMicroUsd: EXPECTED_CAPTION,
      })
    },
  )

  test("goes before the operator's own figure, which stands in for it", async () => {
    const provider = await adapter.fresh({
      OPENAI_API_KEY: 'test-key',
      OPENAI_BASE_URL: adapter.url(),
      FORK__AI__PROVIDERS__OPENAI__COSTPERIMAGEUSD: '0.5',
    })
    const signal = new AbortController().signal
    expect(await provider.run(IMAGE_REQUEST, { signal })).toMatchObject({ costMicroUsd: BILLED_EDIT })
    behave(reply(undefined))
    expect(await provider.run(IMAGE_REQUEST, { signal })).toMatchObject({ costMicroUsd: 500_000 })
    expect(provider.ceilingMicroUsd(IMAGE_REQUEST)).toBe(500_000)
  })

  test.each<[Task, Quality, number]>([
    // gpt-image-2.5-flare: 14,000 + 294 × 30, which is more than 14,000 + 196 × 30 of gpt-image-2.
    ['image->image', 'draft', 22_820],
    // gpt-image-2: 14,000 + 1756 × 30.
    ['image->image', 'standard', 66_680],
    // gpt-image-2: 2000 + 7024 × 30.
    ['text->image', 'high', 212_720],
    // gpt-image-2.5-flare, as the other one cannot: 14,000 + 659 × 30.
    ['remove-background', 'standard', 33_770],
    // gpt-4.1-mini, which is dearer than gpt-6-luna.
    ['image->text', 'high', EXPECTED_CAPTION],
  ])('of %s in quality %s is held to the dearest model that may do it', (task, quality, microUsd) => {
    expect(openai.ceilingMicroUsd({ task, quality })).toBe(microUsd)
  })
})

describe('the JSON of an image', () => {
  const png = SOURCE.toString('base64')
  test.each([
    ['with the usage before it', `{"usage":{"input_tokens":1,"output_tokens":1},"data":[{"b64_json":"${png}"}]}`],
    ['with blanks', `{ "data" : [ { "b64_json" : "${png}" } ],\n "usage" : {"input_tokens":1,"output_tokens":1} }`],
    [
      'with escaped slashes',
      `{"data":[{"b64_json":"${png.replaceAll('/', '\\/')}"}],"usage":{"input_tokens":1,"output_tokens":1}}`,
    ],
    [
      'after the same key elsewhere',
      `{"x":{"b64_json":"AAAA"},"data":[{"b64_json":"${png}"}],"usage":{"input_tokens":1,"output_tokens":1}}`,
    ],
    [
      'after the key as a value',
      `{"x":"b64_json","data":[{"b64_json":"${png}"}],"usage":{"input_tokens":1,"output_tokens":1}}`,
    ],
    [
      'before another image',
      `{"data":[{"b64_json":"${png}"},{"b64_json":"AAAA"}],"usage":{"input_tokens":1,"output_tokens":1}}`,
    ],
  ])('is read %s', async (_how, body) => {
    behave({ kind: 'raw', body })
    const reply = await run()
    expect(bytesOf(reply).equals(SOURCE)).toBe(true)
    // 1 × 8 + 1 × 30.
    expect(reply.costMicroUsd).toBe(38)
  })

  test('is read without parsing the image', async () => {
    const parse = vi.spyOn(JSON, 'parse')
    behave({ kind: 'raw', body: JSON.stringify({ data: [{ b64_json: png }], usage: { input_tokens: 1 } }) })
    expect(bytesOf(await run()).equals(SOURCE)).toBe(true)
    expect(parse.mock.calls.some(([text]) => text.includes('input_tokens'))).toBe(true)
    expect(parse.mock.calls.every(([text]) => !text.includes(png))).toBe(true)
    parse.mockRestore()
  })

  test.each([
    ['null', '{"data":[{"b64_json":null}],"usage":{"input_tokens":1}}'],
    ['empty', '{"data":[{"b64_json":""}],"usage":{"input_tokens":1}}'],
    ['an address', '{"data":[{"url":"https://example.com/x.png"}],"usage":{"input_tokens":1}}'],
    ['left out', '{"usage":{"input_tokens":1}}'],
  ])('holds none when it is %s', async (_how, body) => {
    behave({ kind: 'raw', body })
    expect(await failure()).toMatchObject({ kind: 'no_image', costMicroUsd: 8 })
  })
})
