// Line art as SVG: what is rebuilt looks like what was drawn, and nothing else gets through.
import fc from 'fast-check'
import sharp from 'sharp'
import { describe, expect, test } from 'vitest'
import { parsePath } from '../../../lib/ai/svg-path.ts'
import { rasterize } from '../../../lib/image/pixels.ts'
import { drawing, NAMESPACE, REBUILT, rebuilt } from '../../support/drawings.ts'

const pixels = async (png: Buffer) => await sharp(png).greyscale().raw().toBuffer()

/** The part of the pixels in which two renderings of a drawing differ visibly. */
async function difference(original: string, rebuilt: string): Promise<number> {
  const [a, b] = await Promise.all([rasterize(original).then(pixels), rasterize(rebuilt).then(pixels)])
  expect(a.length).toBe(b.length)
  return a.reduce((count, value, at) => count + (Math.abs(value - (b[at] ?? 0)) > 64 ? 1 : 0), 0) / a.length
}

describe('a drawing that is rebuilt', () => {
  const shapes: [string, string][] = [
    ['lines, absolute and relative', '<path d="M20 20 L180 40 l-40 60 h-60 v20 H20 V180 z"/>'],
    ['further pairs after a move', '<path d="m20 20 40 10 40 -10 M20 100 60 120 100 100"/>'],
    ['curves', '<path d="M20 100 C20 20 100 20 100 100 S180 180 180 100 c0-40-30-60-60-60 s-40 10 -50 30"/>'],
    ['quadratic curves', '<path d="M20 100 Q60 20 100 100 T180 100 q-20 60 -40 0 t-40 0"/>'],
    ['a shorthand after another kind', '<path d="M20 100 L50 50 S100 20 150 100 T180 180"/>'],
    ['a small arc', '<path d="M40 100 A60 60 0 0 1 100 40"/>'],
    ['a large arc, swept the other way', '<path d="M40 100 A60 60 0 1 0 100 40"/>'],
    ['the large arc of both', '<path d="M40 100 A60 60 0 1 1 100 40"/>'],
    ['a small arc, swept the other way', '<path d="M40 100 A60 60 0 0 0 100 40"/>'],
    ['an ellipse that is turned', '<path d="M40 100 a70 30 30 1 1 80 20"/>'],
    ['an arc too small for its ends', '<path d="M20 100 A10 20 0 0 1 180 100"/>'],
    ['an arc without a radius', '<path d="M20 100 A0 20 0 0 1 180 100 a10 10 0 0 1 0 0"/>'],
    ['flags without separators', '<path d="M40 100a60 60 0 01120 0a60 60 0 10-20 30"/>'],
    ['numbers without separators', '<path d="M20.5.5l60 60-20.5-.5.5 100e0,1e1-1E1"/>'],
    ['a line', '<line x1="20" y1="30" x2="170" y2="150"/>'],
    ['a polyline', '<polyline points="20,20 60,180 100 20, 140 180"/>'],
    ['a polygon', '<polygon points="100,20 180,180 20,180"/>'],
    ['a circle', '<circle cx="100" cy="90" r="70"/>'],
    ['an ellipse', '<ellipse cx="100" cy="90" rx="70" ry="30"/>'],
    ['a rectangle', '<rect x="30" y="40" width="120" height="90"/>'],
    ['a filled shape', '<path fill="#000" d="M40 40h120v120h-120z M70 70h60v60h-60z"/>'],
    ['an even-odd hole', '<path fill="#000" fill-rule="evenodd" d="M40 40h120v120h-120z M70 70h60v60h-60z"/>'],
    [
      'shapes over each other',
      '<circle cx="90" cy="90" r="60" fill="#000"/><circle cx="90" cy="90" r="30" fill="white"/>',
    ],
    ['no stroke', '<circle cx="90" cy="90" r="60" fill="black" stroke="none"/>'],
    ['a transparent stroke', '<circle cx="90" cy="90" r="60" fill="black" stroke="transparent"/>'],
    ['colours', '<circle cx="90" cy="90" r="60" stroke="rgb(10, 20,30)" fill="#AAAAAA" stroke-width="9"/>'],
    [
      'a width and ends',
      '<path d="M40 40 L100 160 L160 40" stroke-width="20" stroke-linecap="butt" stroke-linejoin="bevel"/>',
    ],
    [
      'square ends, mitred joins',
      '<path d="M40 60 L100 160 L160 60" stroke-width="16" stroke-linecap="square" stroke-linejoin="miter"/>',
    ],
    [
      'inheritance',
      '<g stroke-width="9"><g fill="#888"><circle cx="60" cy="60" r="30"/></g><circle cx="130" cy="130" r="30"/></g>',
    ],
    ['a translation', '<g transform="translate(30 20)"><circle cx="60" cy="60" r="40"/></g>'],
    ['a translation by one number', '<g transform="translate(30)"><circle cx="60" cy="60" r="40"/></g>'],
    ['a scale', '<circle transform="scale(2)" cx="40" cy="40" r="30"/>'],
    ['a turn', '<rect transform="rotate(30)" x="60" y="10" width="60" height="40"/>'],
    ['a turn about a point', '<rect transform="rotate(30 100,100)" x="60" y="60" width="60" height="40"/>'],
    ['a skew', '<rect transform="skewX(20) skewY(5)" x="30" y="30" width="60" height="40"/>'],
    ['a matrix', '<rect transform="matrix(1 .2 -.3 1 40 10)" x="30" y="30" width="60" height="40"/>'],
    [
      'transformations in each other',
      '<g transform="translate(50,10) rotate(20)"><rect transform="scale(1.5)" x="20" y="20" width="50" height="30"/></g>',
    ],
    ['comments', '<!-- <g> & --><path d="M20 20 L90 90"/><!----><path d="M90 20 L20 90"/>'],
    ['words between', 'Here: <path d="M20 20 L90 90"/> a > b'],
    ['single quotes and blanks', "<path\n d = 'M20 20 L90 90'\t/>"],
    ['a closed element', '<path d="M20 20 L90 90"></path><line x1="5" x2="5" y1="9" y2="90"></line>'],
  ]
  test.each(shapes)('looks like the original: %s', async (_what, inner) => {
    const svg = rebuilt(drawing(inner))
    expect(svg).toMatch(REBUILT)
    expect(await difference(drawing(inner), svg)).toBeLessThan(0.002)
  })

  test('looks like the original, whatever its paths do', async () => {
    const coordinate = fc.integer({ min: -20, max: 220 })
    const flag = fc.integer({ min: 0, max: 1 })
    const pair = fc.tuple(coordinate, coordinate)
    // Smaller ones are stretched to reach their ends, until they leave what may be drawn.
    const radius = fc.oneof(fc.constant(0), fc.integer({ min: 20, max: 120 }))
    const of = (command: string, pairs: number) =>
      fc.array(pair, { minLength: pairs, maxLength: pairs }).map((points) => `${command}${points.flat().join(' ')}`)
    const arc = fc
      .tuple(fc.constantFrom('A', 'a'), radius, radius, fc.integer({ min: -180, max: 180 }), flag, flag, pair)
      .map(
        ([command, rx, ry, angle, large, sweep, end]) =>
          `${command}${rx} ${ry} ${angle} ${large} ${sweep} ${end.join(' ')}`,
      )
    const straight = fc.tuple(fc.constantFrom('H', 'h', 'V', 'v'), coordinate).map(([command, to]) => `${command}${to}`)
    const commands = fc.oneof(
      ...['L', 'T', 'M'].map((command) => of(command, 1)),
      ...['Q', 'S'].map((command) => of(command, 2)),
      of('C', 3),
      arc,
      straight,
      fc.constant('Z'),
    )
    const paths = fc.array(commands, { minLength: 1, maxLength: 6 }).map((parts) => `M100 100${parts.join('')}`)
    await fc.assert(
      fc.asyncProperty(paths, async (d) => {
        const original = drawing(`<path d="${d}"/>`)
        expect(await difference(original, rebuilt(original))).toBeLessThan(0.004)
      }),
      { numRuns: 150 },
    )
  })

  test.each([
    ['100 50', 'viewBox="0 0 100 50"', 'M0 50L200 150'],
    ['50 100, off the origin', 'viewBox="10 20 50 100"', 'M30 -40L230 60'],
    ['a width and a height alone', 'width="400px" height="400"', 'M0 0L50 25'],
  ])('fits into the picture, centred, from a document of %s', (_what, attributes, data) => {
    expect(rebuilt(`<svg ${attributes}><line x1="0" y1="0" x2="100" y2="50"/></svg>`)).toContain(`<path d="${data}"`)
  })

  test.each([
    ['stroke-linecap="butt"', 'stroke-linecap="butt"'],
    ['stroke-linecap=" square "', 'stroke-linecap="square"'],
    ['stroke-linejoin="miter"', 'stroke-linejoin="miter"'],
    ['stroke-linejoin="bevel"', 'stroke-linejoin="bevel"'],
    ['fill-rule="evenodd"', 'fill-rule="evenodd"'],
    ['stroke-width="0"', 'stroke-width="0"'],
    ['stroke-width="9px"', 'stroke-width="9"'],
    ['stroke-width="999"', 'stroke-width="200"'],
    ['stroke-width="4" transform="scale(3 .75)"', 'stroke-width="6"'],
    ['stroke="currentColor"', 'stroke="#000"'],
    ['stroke="#ABC"', 'stroke="#abc"'],
    ['stroke="#abcdef"', 'stroke="#abcdef"'],
    ['fill="rgb(1, 2,3)"', 'fill="rgb(1, 2,3)"'],
    ['fill="transparent"', 'fill="none"'],
    ['fill="white"', 'fill="white"'],
  ])('keeps %s as %s', (attributes, kept) => {
    expect(rebuilt(drawing(`<rect ${attributes} x="1" y="2" width="1" height="1"/>`))).toContain(` ${kept}`)
  })

  test('may be as small as one unit', () => {
    expect(rebuilt('<svg viewBox="0 0 1 1"><rect width=".5" height=".25"/></svg>')).toContain(
      'd="M0 0L100 0L100 50L0 50Z"',
    )
  })

  test('is line art unless it says otherwise', () => {
    expect(rebuilt('<svg viewBox="0 0 200 200"><path d="M0 0L9 9"/></svg>')).toBe(
      `<svg ${NAMESPACE} width="200" height="200" viewBox="0 0 200 200" fill="none"><path d="M0 0L9 9" fill="none" fill-rule="nonzero" stroke="#000" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/></svg>`,
    )
  })

  test.each([
    [
      'in a fence with words around it',
      (svg: string) => `Here you are:\n\`\`\`svg\n${svg}\n\`\`\`\nEnjoy the <b>page</b>!`,
    ],
    ['behind a declaration and a DOCTYPE', (svg: string) => `<?xml version="1.0"?><!DOCTYPE svg>${svg}`],
    ['before another one', (svg: string) => `${svg}<svg viewBox="0 0 9 9"><circle r="4"/></svg>`],
  ])('is found %s', (_where, put) => {
    const svg = drawing('<path d="M1 1L9 9"/>')
    expect(rebuilt(put(svg))).toBe(rebuilt(svg))
    expect(rebuilt(svg)).toMatch(REBUILT)
  })
})

describe('path data', () => {
  test('ends where its bound is', () => {
    expect(parsePath('M0 0L1 1', 2)).toHaveLength(2)
    expect(parsePath('M0 0L1 1', 1)).toBeUndefined()
  })

  test('is nothing for nothing', () => {
    expect(parsePath('  ', 9)).toEqual([])
  })
})
