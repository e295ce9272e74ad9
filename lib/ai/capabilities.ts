// Which provider can do what, and how well: read by the router, and by the check of fork.config.json.
import type { Quality, Task } from './provider.ts'

/** Every provider a tool may list. Those without a key are skipped when a request comes. */
export const PROVIDER_IDS = ['gemini', 'openai', 'anthropic', 'stability', 'sketch'] as const
export type ProviderId = (typeof PROVIDER_IDS)[number]

const ALL: readonly Quality[] = ['draft', 'standard', 'high']
const FINISHED: readonly Quality[] = ['standard', 'high']

export const CAPABILITIES: Record<ProviderId, Partial<Record<Task, readonly Quality[]>>> = {
  gemini: { 'image->image': FINISHED, 'text->image': FINISHED, 'image->text': ALL, 'text->text': ALL },
  openai: {
    'image->image': ALL,
    'text->image': ALL,
    'image->text': ALL,
    'text->text': ALL,
    'remove-background': ALL,
  },
  // Its pictures are SVG line art: good enough to try an idea, and no more.
  anthropic: { 'image->image': ['draft'], 'image->text': ALL, 'text->text': ALL },
  stability: { 'image->image': FINISHED, 'text->image': FINISHED, 'remove-background': ALL },
  sketch: { 'image->image': ALL },
}
