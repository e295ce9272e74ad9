// The provider that needs no key and no network: draws line art on this machine, free of charge.
import { DrawingPool } from './line-art/pool.ts'
import type { StyleName } from './line-art/styles.ts'
import type { ImageRequest, Provider } from './provider.ts'

type StyleByQuality = Record<ImageRequest['quality'], StyleName>

const STYLES_BY_DETAIL = new Map<string | undefined, StyleByQuality>([
  ['simple', { standard: 'simple', high: 'standard' }],
  ['detailed', { standard: 'standard', high: 'detailed' }],
])
const STYLES_OTHERWISE: StyleByQuality = { standard: 'standard', high: 'detailed' }

let pool: DrawingPool | undefined

export const sketch: Provider = {
  id: 'sketch',
  capabilities: ['image->image'],
  reads: ['jpeg', 'png', 'webp', 'gif', 'avif'],
  unavailable: () => null,
  async run(request, { signal }) {
    pool ??= new DrawingPool()
    const styles = STYLES_BY_DETAIL.get(request.options.detail) ?? STYLES_OTHERWISE
    const { png } = await pool.draw(request.image.bytes, styles[request.quality], signal)
    return { bytes: png, model: 'sketch-1', costMicroUsd: 0 }
  },
}
