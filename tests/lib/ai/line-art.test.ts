// Drawing without a worker: the same pages, on the thread that asks.
import { readFile } from 'node:fs/promises'
import { afterAll, expect, test } from 'vitest'
import { DrawingPool } from '../../../lib/ai/line-art/pool.ts'
import { STYLES, type StyleName } from '../../../lib/ai/line-art/styles.ts'
import { drawLineArt } from '../../../lib/ai/line-art.ts'

const styles: StyleName[] = ['simple', 'standard', 'detailed']
const pool = new DrawingPool({ drawingsMax: 1, waitingMax: 1 })
const alone = new AbortController()
afterAll(() => alone.abort())

test('the styles are those that are tested', () => {
  expect(Object.keys(STYLES).sort()).toEqual([...styles].sort())
})

test.each(styles)('the %s page of this thread is the page of a worker, byte for byte', async (style) => {
  const photo = await readFile(new URL('../../fixtures/photos/cat.jpg', import.meta.url))
  const [here, there] = [await drawLineArt(photo, style), await pool.draw(photo, style, alone.signal)]
  expect(here.png.equals(there.png)).toBe(true)
  expect([here.width, here.height]).toEqual([there.width, there.height])
})
