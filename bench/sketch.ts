// What a drawing made on the machine itself costs, by style and size of the photo.

import { STYLES, type StyleName } from '../lib/ai/line-art/styles.ts'
import { drawLineArt } from '../lib/ai/line-art.ts'
import { photoOf } from './photo.ts'
import { median, printTable, quick, rounded, saveResults } from './report.ts'

const ROUNDS = quick ? 1 : 5
const SIZES: [width: number, height: number][] = [
  [1200, 900],
  [4000, 3000],
]

const styles = Object.keys(STYLES).filter((name): name is StyleName => name in STYLES)
const photos = await Promise.all(
  SIZES.map(async ([width, height]) => ({ width, height, bytes: await photoOf(width, height) })),
)
const cells = photos.flatMap((photo) => styles.map((style) => ({ photo, style, rounds: [] as Round[] })))

type Round = Awaited<ReturnType<typeof drawOnce>>

for (const { photo, style } of cells.slice(0, 1)) await drawOnce(photo.bytes, style)
for (let round = 0; round < ROUNDS; round += 1) {
  for (const { photo, style, rounds } of cells) rounds.push(await drawOnce(photo.bytes, style))
}
const rows = cells.map(({ photo, style, rounds }) => ({
  photo: `${rounded((photo.width * photo.height) / 1e6)} MP`,
  kilobytes: Math.round(photo.bytes.length / 1000),
  style,
  cpuMs: Math.round(median(rounds.map(({ cpuMs }) => cpuMs))),
  wallMs: Math.round(median(rounds.map(({ wallMs }) => wallMs))),
  pageKilobytes: Math.round((rounds[0]?.pageBytes ?? 0) / 1000),
}))
printTable(`sketch: medians of ${ROUNDS}, one drawing at a time; CPU is of all threads`, rows)
saveResults('sketch', { rows })

async function drawOnce(bytes: Buffer, style: StyleName) {
  const startedAt = performance.now()
  const before = process.cpuUsage()
  const { png } = await drawLineArt(bytes, style)
  const { user, system } = process.cpuUsage(before)
  return { cpuMs: (user + system) / 1000, wallMs: performance.now() - startedAt, pageBytes: png.length }
}
