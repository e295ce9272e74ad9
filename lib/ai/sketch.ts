// The provider that needs no key and no network: draws line art on this machine, free of charge.
import { CAPABILITIES } from './capabilities.ts'
import { DrawingPool } from './line-art/pool.ts'
import type { StyleName } from './line-art/styles.ts'
import { type Provider, ProviderError, type Quality } from './provider.ts'

type StyleByQuality = Record<Quality, StyleName>

const STYLES_BY_DETAIL = new Map<string | undefined, StyleByQuality>([
  ['simple', { draft: 'simple', standard: 'simple', high: 'standard' }],
  ['detailed', { draft: 'simple', standard: 'standard', high: 'detailed' }],
])
const STYLES_OTHERWISE: StyleByQuality = { draft: 'simple', standard: 'standard', high: 'detailed' }

let pool: DrawingPool | undefined

export const sketch: Provider = {
  id: 'sketch',
  serves: CAPABILITIES.sketch,
  reads: ['jpeg', 'png', 'webp', 'gif', 'avif'],
  unavailable: () => null,
  estimateMicroUsd: () => 0,
  ceilingMicroUsd: () => 0,
  async run(request, { signal }) {
    if (!request.image) throw new ProviderError('bad_request', 'There is no picture to draw from.')
    pool ??= new DrawingPool()
    const styles = STYLES_BY_DETAIL.get(request.options.detail) ?? STYLES_OTHERWISE
    const { png } = await pool.draw(request.image.bytes, styles[request.quality], signal)
    return { output: { bytes: png }, model: 'sketch-1', costMicroUsd: 0 }
  },
}
