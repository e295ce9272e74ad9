// A loopback Gemini: generateContent with Google's replies, errors and bad moods, steered in code or over HTTP.
import type { ServerResponse } from 'node:http'
import { parseArgs } from 'node:util'
import * as v from 'valibot'
import { answerTo, Behaviour, googleError, refuseKey } from './gemini-replies.ts'
import { type Answer, pause, send, sendAs, startStub } from './stub-server.ts'

interface RecordedRequest {
  model: string
  apiKey: string
  prompt: string
  responseModalities: string[]
  images: { mimeType: string; bytes: Buffer }[]
  /** The client hung up before its answer was complete. */
  abandoned: boolean
}

interface StubOptions {
  /** 0, the default, takes a free one. */
  port?: number
  /** Side of the image in an answer, 64 by default; 1024 makes a PNG of 1.05 MB. */
  sidePx?: number
  /** Neither reads nor records requests: for benchmarks, where the stub must cost little. */
  lean?: boolean
}

const RequestBody = v.strictObject({
  contents: v.pipe(
    v.array(
      v.object({
        role: v.optional(v.picklist(['user', 'model'])),
        parts: v.array(
          v.strictObject({
            text: v.optional(v.string()),
            inlineData: v.optional(v.strictObject({ mimeType: v.string(), data: v.string() })),
          }),
        ),
      }),
    ),
    v.minLength(1),
  ),
  generationConfig: v.optional(
    v.looseObject({ responseModalities: v.optional(v.array(v.picklist(['TEXT', 'IMAGE']))) }),
  ),
  safetySettings: v.optional(v.array(v.unknown())),
})

const MODEL_PATH = /^\/v1(?:beta)?\/models\/([\w.-]+):generateContent$/
const INPUT_MIME_TYPES = ['image/png', 'image/jpeg', 'image/webp', 'image/heic', 'image/heif']
const NO_SUCH_PATH = {
  status: 404,
  body: '<title>Error 404 (Not Found)!!1</title>',
  headers: { 'content-type': 'text/html' },
}

/** Starts the stub; see startStub for how it is steered. An API key that contains "invalid" is refused, as is none. */
export async function startGeminiStub({ port = 0, sidePx = 64, lean = false }: StubOptions = {}) {
  return await startStub<Behaviour, RecordedRequest>({
    port,
    Behaviour,
    ok: { kind: 'ok' },
    async handle({ method, path, headers, body }, response, { next, remember }) {
      const model = method === 'POST' ? MODEL_PATH.exec(path)?.[1] : undefined
      if (model === undefined) return send(response, NO_SUCH_PATH)
      const apiKey = String(headers['x-goog-api-key'] ?? '')
      const recorded: RecordedRequest = {
        model,
        apiKey,
        prompt: '',
        responseModalities: lean ? ['TEXT', 'IMAGE'] : [],
        images: [],
        abandoned: false,
      }
      const refusal = refuseKey(apiKey) ?? (lean ? undefined : record(recorded, body))
      if (!lean) remember(recorded)
      if (refusal) return send(response, refusal)
      await perform(next(), recorded, response, sidePx)
    },
  })
}

/** Notes what was asked, or gives Google's refusal of a body it does not understand. */
function record(recorded: RecordedRequest, raw: Buffer): Answer | undefined {
  let json: unknown
  try {
    json = JSON.parse(raw.toString())
  } catch {
    return invalidArgument('Invalid JSON payload received.')
  }
  const body = v.safeParse(RequestBody, json)
  if (!body.success) return invalidArgument(`Invalid JSON payload received. ${v.summarize(body.issues)}`)
  recorded.responseModalities = body.output.generationConfig?.responseModalities ?? ['TEXT']
  for (const { text = '', inlineData } of body.output.contents.flatMap(({ parts }) => parts)) {
    recorded.prompt += text
    if (inlineData === undefined) continue
    const { mimeType, data } = inlineData
    const bytes = Buffer.from(data, 'base64')
    if (!INPUT_MIME_TYPES.includes(mimeType)) return invalidArgument(`Unsupported MIME type: ${mimeType}`)
    if (bytes.toString('base64') !== data) return invalidArgument('Base64 decoding failed')
    recorded.images.push({ mimeType, bytes })
  }
  return undefined
}

const invalidArgument = (message: string) => googleError(400, 'INVALID_ARGUMENT', message)

async function perform(behaviour: Behaviour, request: RecordedRequest, response: ServerResponse, sidePx: number) {
  const { kind, delayMs = 0 } = behaviour
  if (delayMs > 0) await pause(delayMs, response)
  if (kind === 'hang') return
  const answer = await answerTo(behaviour, request, sidePx)
  await sendAs(kind, response, answer)
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: '4010' },
      side: { type: 'string', default: '64' },
      lean: { type: 'boolean' },
    },
  })
  const stub = await startGeminiStub({
    port: Number(values.port),
    sidePx: Number(values.side),
    lean: values.lean ?? false,
  })
  console.log(`A Gemini stub listens on ${stub.url}`)
}
