// What a caller asks of a tool, checked whole before anything is reserved.
import * as v from 'valibot'
import { providerOfModel } from '../ai/models.ts'
import { buildPrompt } from '../ai/prompt.ts'
import { type SourceImage, takesImage } from '../ai/provider.ts'
import { usableProviders } from '../ai/router.ts'
import { requireActive } from '../auth/account-state.ts'
import type { Spender } from '../auth/caller.ts'
import { fetchUpload } from '../blob.ts'
import { config } from '../config.ts'
import { invalidField, isJson, parseJson, validate } from '../http/body.ts'
import { AppError } from '../http/errors.ts'
import { readUpload } from '../http/image-upload.ts'
import { fitSource, readImage } from '../image.ts'
import { type Options, optionsSchema, type Tool } from './catalogue.ts'

export interface Order {
  tool: Tool
  /** There for tools that begin with an image. */
  image: SourceImage | undefined
  /** There for tools that begin with text. */
  text: string | undefined
  /** The provider to ask first, one of the tool's. */
  provider: string | undefined
  /** What the caller called that provider, where it was a model's old name. */
  requestedProvider: string | undefined
  options: Options
}

/** An order as it was sent: its picture may lie in the store of uploads, from where `fetchPicture` brings it. */
export interface SentOrder extends Order {
  imageUrl: string | undefined
}

/** Everything that can be wrong with a request is found here, but for a picture that has yet to be fetched. */
export async function readOrder(
  tool: Tool,
  input: { bytes: Buffer; type: string; request: Request },
): Promise<SentOrder> {
  if (!takesImage(tool.does)) return readText(tool, input)
  const { image: bytes, imageUrl, fields } = await readUpload(input)
  const { provider, options } = validate(v.strictObject(common(tool)), fields)
  const image = bytes && (await checkedImage(bytes, { tool, options }, config().limits.imageBytesMax))
  return { tool, image, imageUrl, text: undefined, ...chosenProvider(tool, provider), options }
}

/**
 * Brings the picture of an order that names its address, and says where it lies in the store; one that is larger than a request
 * may hold is scaled down. It comes after the claim of an Idempotency-Key, whose replay needs no upload any more.
 */
export async function fetchPicture(
  { imageUrl, ...order }: SentOrder,
  caller: Spender,
): Promise<{ order: Order; uploadUrl: string | undefined }> {
  if (imageUrl === undefined) return { order, uploadUrl: undefined }
  await requireActive(caller)
  const { uploadBytesMax, imageBytesMax } = config().limits
  const { bytes, url } = await fetchUpload(imageUrl, caller.userId, uploadBytesMax)
  const image = await checkedImage(bytes, order, uploadBytesMax)
  return { order: { ...order, image: await fitSource(image, imageBytesMax) }, uploadUrl: url }
}

/** What is said to the model. */
export function promptOf({ tool, image, text, options }: Order): string {
  const { quality: _quality, format: _format, ...own } = options
  return buildPrompt(tool, own, { image: tool.does === 'image->image' ? image : undefined, text })
}

const common = (tool: Tool) => ({
  provider: v.optional(v.string()),
  options: v.optional(optionsSchema(tool), {}),
})

function readText(tool: Tool, { bytes, type }: { bytes: Buffer; type: string }): SentOrder {
  if (!isJson(type)) {
    throw new AppError('UNSUPPORTED_MEDIA_TYPE', `Send the text as application/json, not ${type}.`)
  }
  const Text = v.pipe(
    v.string(),
    v.trim(),
    v.nonEmpty('The text is empty.'),
    v.maxLength(tool.inputCharactersMax, `The text may have ${tool.inputCharactersMax} characters at most.`),
  )
  const { provider, options, text } = validate(v.strictObject({ text: Text, ...common(tool) }), parseJson(bytes))
  return { tool, image: undefined, imageUrl: undefined, text, ...chosenProvider(tool, provider), options }
}

async function checkedImage(
  bytes: Buffer,
  { tool, options }: Pick<Order, 'tool' | 'options'>,
  bytesMax: number,
): Promise<SourceImage> {
  const { imageBytesMax, imagePixelsMax, imageSideMin } = config().limits
  const heic = { task: tool.does, quality: options.quality, format: 'heic' } as const
  return await readImage(bytes, {
    bytesMax,
    pixelsMax: imagePixelsMax,
    sideMin: imageSideMin,
    // What cannot be decoded here cannot be scaled down either.
    heicAccepted: bytes.length <= imageBytesMax && usableProviders(tool.providers, heic).usable.length > 0,
  })
}

function chosenProvider(tool: Tool, chosen: string | undefined): Pick<Order, 'provider' | 'requestedProvider'> {
  if (chosen === undefined) return { provider: undefined, requestedProvider: undefined }
  const provider = providerOfModel(chosen) ?? chosen
  if (tool.providers.some((id) => id === provider)) {
    return { provider, requestedProvider: provider === chosen ? undefined : chosen }
  }
  throw invalidField('provider', `Not a provider of ${tool.name}. Choose one of: ${tool.providers.join(', ')}.`)
}
