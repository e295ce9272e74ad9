// What must not get through when line art is rebuilt: whatever is not on the list, and documents that are damaged.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { cleanSvg } from '../../../lib/ai/svg.ts'
import { drawing, NAMESPACE, REBUILT, rebuilt, SIDE } from '../../support/drawings.ts'

describe('what is not on the list', () => {
  const keep = '<line x1="1" y1="1" x2="9" y2="9"/>'
  const dropped = [
    '<use href="#a"/>',
    '<use xlink:href="https://example.com/x.svg#a"/>',
    '<image href="https://example.com/x.png" width="9" height="9"/>',
    '<image href="data:image/png;base64,AAAA"/>',
    '<style>path { fill: url(https://example.com) }</style>',
    '<script>alert(1)</script>',
    '<foreignObject><div><path d="M0 0L1 1"/></div></foreignObject>',
    '<defs><path d="M0 0L1 1"/><g><circle r="9"/></g></defs>',
    '<filter id="f"><feGaussianBlur stdDeviation="9999"/></filter>',
    '<mask><rect width="9" height="9"/></mask>',
    '<pattern><circle r="9"/></pattern>',
    '<svg viewBox="0 0 9 9"/>',
    '<text x="1" y="1">words<tspan>more</tspan></text>',
    '<a href="https://example.com"><circle r="9"/></a>',
    '<animate attributeName="r" to="9"/>',
    '<PATH d="M0 0L1 1"/>',
    '<constructor d="M0 0L1 1"/>',
    '<toString/>',
    '<path/>',
    '<path d=""/>',
    '<path d="L1 1"/>',
    '<path d="M0 0 X1 1"/>',
    '<path d="M0 0 L1"/>',
    '<path d="M0 0 L1 1e400"/>',
    '<path d="M0 0 L99999 1"/>',
    '<path d="M0 0 A1 1 0 2 1 9 9"/>',
    '<circle cx="9" r="-4"/>',
    '<circle r="4" cx="1e9"/>',
    '<rect width="9"/>',
    '<polygon points="1 2 url(#a)"/>',
    '<circle r="4" transform="translate(url(#a))"/>',
    '<circle r="4" transform="scale(1) nonsense"/>',
    '<circle r="4" transform="scale(99999)"/>',
    '<circle r="4" transform="matrix(1 2 3)"/>',
    `<circle r="4" transform="${'scale(1) '.repeat(17)}"/>`,
  ]
  test.each(dropped)('is left out, and the rest stays: %s', (markup) => {
    const alone = rebuilt(drawing(keep))
    expect(rebuilt(drawing(`${markup}${keep}`))).toBe(alone)
    expect(rebuilt(drawing(`<g>${markup}</g>${keep}`))).toBe(alone)
    expect(rebuilt(drawing(markup))).toBe('')
  })

  test.each([
    ['fill', 'url(#a)'],
    ['fill', 'url(https://example.com/x)'],
    ['fill', '#12345'],
    ['fill', 'red;stroke:blue'],
    ['fill', '&quot;'],
    ['stroke', 'inherit'],
    ['stroke-width', '-3'],
    ['stroke-width', 'calc(9)'],
    ['stroke-linecap', 'fancy'],
    ['stroke-linejoin', 'arcs'],
    ['fill-rule', 'sometimes'],
    ['style', 'fill:url(https://example.com)'],
    ['class', 'x'],
    ['id', 'x'],
    ['filter', 'url(#f)'],
    ['opacity', '0.1'],
    ['onclick', 'alert(1)'],
    ['xml:base', 'https://example.com'],
    ['stroke-dasharray', '0.0001'],
  ])('is left out of an element: %s="%s"', (name, value) => {
    const line = (attribute: string) => drawing(`<line ${attribute} x1="1" y1="1" x2="9" y2="9"/>`)
    expect(rebuilt(line(`${name}="${value}"`))).toBe(rebuilt(line('')))
  })

  test('never gets into what is rebuilt, whatever a model says', () => {
    const piece = fc.constantFrom(
      ...dropped,
      keep,
      '<g>',
      '</g>',
      '<g transform="rotate(9)">',
      '<path d="',
      '"',
      "'",
      '>',
      '/>',
      '<',
      '&lt;',
      '&#60;',
      '<!--',
      '-->',
      '<![CDATA[',
      ']]>',
      '<?x ?>',
      '<!ENTITY a "b">',
      '&a;',
      ' fill="',
      ' d="M0 0L1 1"',
      'M0 0',
      'url(#a)',
      '\0',
      '</svg',
      '<svg ',
    )
    fc.assert(
      fc.property(fc.array(fc.oneof(piece, fc.string()), { maxLength: 12 }), (parts) => {
        const svg = cleanSvg(drawing(`${keep}${parts.join('')}`), SIDE, SIDE)
        expect(svg === undefined || REBUILT.test(svg)).toBe(true)
      }),
      { numRuns: 3000 },
    )
  })
})

describe('a document that is damaged', () => {
  test.each([
    ['no drawing at all', 'I cannot draw.'],
    ['nothing', ''],
    ['an end without a beginning', '</svg>'],
    ['a beginning without an end', `<svg ${NAMESPACE} viewBox="0 0 9 9"><path d="M0 0L1 1"/>`],
    ['another element of that name', '<svgs viewBox="0 0 9 9"><path d="M0 0L1 1"/></svgs>'],
    ['nothing drawn', drawing('')],
    ['crossed elements', drawing('<g><path d="M0 0L1 1"></g></path>')],
    ['too many ends', drawing('<path d="M0 0L1 1"/></g>')],
    ['an attribute without quotes', drawing('<path d=M0/>')],
    ['an attribute without a value', drawing('<path hidden d="M0 0L1 1"/>')],
    ['an angle bracket in an attribute', drawing('<path d="M0 0L1 1" x="<"/>')],
    ['a comment without an end', drawing('<path d="M0 0L1 1"/><!-- ')],
    ['a declaration inside', drawing('<!DOCTYPE x><path d="M0 0L1 1"/>')],
    ['an entity inside', drawing('<!ENTITY x "y"><path d="M0 0L1 1"/>')],
    ['character data', drawing('<![CDATA[<path d="M0 0L1 1"/>]]><path d="M0 0L1 1"/>')],
    ['an instruction', drawing('<?php ?><path d="M0 0L1 1"/>')],
    ['no size', '<svg><path d="M0 0L1 1"/></svg>'],
    ['an empty viewBox', '<svg viewBox="0 0 0 10"><path d="M0 0L1 1"/></svg>'],
    ['a viewBox that turns it inside out', '<svg viewBox="0 0 -10 10"><path d="M0 0L1 1"/></svg>'],
    ['a viewBox of something else', '<svg viewBox="0 0 ten 10" width="9" height="9"><path d="M0 0L1 1"/></svg>'],
  ])('is none: %s', (_what, text) => {
    expect(cleanSvg(text, SIDE, SIDE)).toBeUndefined()
  })
})
