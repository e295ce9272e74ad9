// Stability AI by plain fetch: control/structure, remove-background and the generators of v2beta, each billed by the call.
import * as v from 'valibot'
import { config } from '../config.ts'
import { env } from '../env.ts'
import { MIME_TYPE } from '../image.ts'
import { offReason } from './availability.ts'
import { CAPABILITIES } from './capabilities.ts'
import { type Answer, apiBase, parseJson, post, refusal } from './http.ts'
import { livingChain } from './models.ts'
import { expectedMicroUsd, largestMicroUsd } from './prices.ts'
import {
  type ModelRequest,
  type Provider,
  ProviderError,
  type ProviderReply,
  type RunContext,
  type Task,
  type Work,
} from './provider.ts'
import { type Source, sourceWithin } from './source.ts'
import { withSuccessors } from './successors.ts'

const NAME = 'Stability AI'

export const stability: Provider = {
  id: 'stability',
  serves: CAPABILITIES.stability,
  reads: ['jpeg', 'png', 'webp'],
  unavailable: () => offReason('stability', env(), config()),
  estimateMicroUsd: (work) =>
    largestMicroUsd(modelsFor(work).slice(0, 1), work, config().ai.providers.stability.costPerImageUsd),
  ceilingMicroUsd: (work) => largestMicroUsd(modelsFor(work), work, config().ai.providers.stability.costPerImageUsd),
  run,
}

interface Service {
  path: string
  fields: Record<string, string>
}

const SD3 = ['sd3.5-large', 'sd3.5-large-turbo', 'sd3.5-medium']
const sd3 = (model: string, fields: Record<string, string>): [string, Service] => [
  model,
  { path: '/generate/sd3', fields: { model, ...fields } },
]

/** What each model is called by for a task; the first one works where the configured models are for other tasks. */
const SERVICES: Partial<Record<Task, Map<string, Service>>> = {
  'image->image': new Map([
    ['control-structure', { path: '/control/structure', fields: { control_strength: '0.7' } }],
    ...SD3.map((model) => sd3(model, { mode: 'image-to-image', strength: '0.6' })),
  ]),
  'text->image': new Map([
    ['core', { path: '/generate/core', fields: {} }],
    ['ultra', { path: '/generate/ultra', fields: {} }],
    ...SD3.map((model) => sd3(model, { mode: 'text-to-image' })),
  ]),
  'remove-background': new Map([['remove-background', { path: '/edit/remove-background', fields: {} }]]),
}
const KNOWN_MODELS = new Set(Object.values(SERVICES).flatMap((services) => [...services.keys()]))

const SIDE_MIN = 64
const RATIO_MAX = 2.5
const SOURCE_LIMITS = { bytesMax: 10 * 1024 * 1024, sideMax: 16_384 }
/** The sides to which pictures are scaled down are within the pixels whatever the proportions. */
const DRAWN_LIMITS = { ...SOURCE_LIMITS, pixelsMax: 9_437_184, shrunkSide: 3072 }
const CUT_OUT_LIMITS = { ...SOURCE_LIMITS, pixelsMax: 4_194_304, shrunkSide: 2048 }
const PROMPT_MAX = 10_000

const Failure = v.object({ name: v.nullish(v.string()), errors: v.nullish(v.array(v.string())) })

async function run(request: ModelRequest, { signal }: RunContext): Promise<ProviderReply> {
  checkShape(request)
  const source = await sourceWithin(request, request.task === 'remove-background' ? CUT_OUT_LIMITS : DRAWN_LIMITS)
  if (request.task !== 'remove-background' && request.prompt.length > PROMPT_MAX) {
    throw new ProviderError('bad_request', `${NAME} takes prompts of at most ${PROMPT_MAX} characters.`)
  }
  return await withSuccessors('stability', modelsFor(request), (model) => draw(model, request, source, signal))
}

/** The configured models that do this task. One that is unknown stays among them, to be reported as gone. */
function modelsFor({ task }: Work): string[] {
  const { model, successors } = config().ai.providers.stability
  const services = SERVICES[task] ?? new Map<string, Service>()
  const names = livingChain([model, ...successors])
  const configured = names.filter((name) => services.has(name) || !KNOWN_MODELS.has(name))
  return configured.length > 0 ? configured : [...services.keys()].slice(0, 1)
}

function expected(model: string, work: Work): number {
  return expectedMicroUsd(model, work, config().ai.providers.stability.costPerImageUsd)
}

/** What scaling down cannot mend. */
function checkShape({ image, task }: ModelRequest): void {
  if (!image) return
  const [short, long] = [Math.min(image.width, image.height), Math.max(image.width, image.height)]
  if (short < SIDE_MIN) {
    throw new ProviderError('bad_request', `${NAME} takes pictures of at least ${SIDE_MIN} pixels a side.`)
  }
  if (task === 'image->image' && long / short > RATIO_MAX) {
    throw new ProviderError('bad_request', `${NAME} takes pictures up to ${RATIO_MAX} times as long as wide.`)
  }
}

async function draw(
  model: string,
  request: ModelRequest,
  source: Source | undefined,
  signal: AbortSignal,
): Promise<ProviderReply> {
  const service = SERVICES[request.task]?.get(model)
  if (!service) throw new ProviderError('model_gone', `${NAME} has no model "${model}" for ${request.task}.`)
  const { apiKey = '', baseUrl } = env().stability
  const costMicroUsd = expected(model, request)
  const answer = await post({
    provider: NAME,
    url: `${apiBase(baseUrl, 'https://api.stability.ai', '/v2beta')}/stable-image${service.path}`,
    headers: { authorization: `Bearer ${apiKey}`, accept: 'image/*' },
    body: formOf(service, request, source),
    signal,
    expectedMicroUsd: costMicroUsd,
  })
  if (answer.status !== 200) throw failureOf(answer)
  return readReply(answer, model, costMicroUsd)
}

function formOf({ fields }: Service, { task, prompt }: ModelRequest, source: Source | undefined) {
  const form = new FormData()
  for (const [name, value] of Object.entries(fields)) form.append(name, value)
  if (task !== 'remove-background') form.append('prompt', prompt)
  form.append('output_format', 'png')
  if (source) {
    const { bytes, format } = source
    form.append('image', new Blob([new Uint8Array(bytes)], { type: MIME_TYPE[format] }), `image.${format}`)
  }
  return form
}

/** A filtered picture comes as a success, blurred: only a header tells. */
function readReply({ headers, bytes }: Answer, model: string, costMicroUsd: number): ProviderReply {
  if (headers.get('finish-reason') === 'CONTENT_FILTERED') {
    throw new ProviderError('blocked', `${NAME} refused the content.`, { costMicroUsd })
  }
  const isImage = headers.get('content-type')?.startsWith('image/') ?? false
  if (!isImage || bytes.length === 0) {
    throw new ProviderError('no_image', `${NAME} answered without an image.`, {
      costMicroUsd: isImage ? costMicroUsd : 0,
    })
  }
  return { output: { bytes }, model, costMicroUsd }
}

function failureOf(answer: Answer): ProviderError {
  const parsed = v.safeParse(Failure, parseJson(answer))
  const { name, errors } = parsed.success ? parsed.output : {}
  const upstream = [name, ...(errors ?? [])].filter(Boolean).join(' ')
  const isGone = answer.status === 404 && name
  const kind = name === 'content_moderation' ? 'blocked' : isGone ? 'model_gone' : undefined
  return refusal(NAME, answer, { kind, upstream })
}
