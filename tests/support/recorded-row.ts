// What a recorded reply is made of.
import type { Quality, Task } from '../../lib/ai/provider.ts'
import { noisePng } from './gemini-replies.ts'

type Priced = 'gemini' | 'openai' | 'anthropic' | 'stability'

export interface RecordedReply {
  what: string
  provider: Priced
  model: string
  task: Task
  quality: Quality
  headers: Record<string, string>
  body: string | Buffer
  /** How the call ends when it is no success. */
  kind?: 'blocked' | 'no_image'
  costMicroUsd: number
}

export type Row = Omit<RecordedReply, 'provider' | 'headers' | 'body' | 'what' | 'task' | 'quality'> &
  Partial<Pick<RecordedReply, 'what' | 'task' | 'quality'>>

const JSON_HEADERS = { 'content-type': 'application/json' }
export const picture = noisePng(64, 64)
export const base64 = picture.toString('base64')

/** A reply in JSON; a standard picture of a photo unless it says otherwise. */
export function row(
  provider: Priced,
  { what = '', task = 'image->image', quality = 'standard', ...rest }: Row,
  body: object,
) {
  return { what, provider, task, quality, headers: JSON_HEADERS, body: JSON.stringify(body), ...rest }
}
