// Drawings as SVG, as a model sends them and as they may be after they were rebuilt.
import { cleanSvg } from '../../lib/ai/svg.ts'

export const SIDE = 200
export const NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'
/** A document with `inner` in it, in which rebuilding changes no line. */
export const drawing = (inner: string, attributes = '') =>
  `<svg ${NAMESPACE} viewBox="0 0 ${SIDE} ${SIDE}" width="${SIDE}" height="${SIDE}" fill="none" stroke="#000" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" ${attributes}>${inner}</svg>`

/** Everything a rebuilt document may consist of. */
const NUMBER = '-?\\d+(?:\\.\\d{1,2})?'
const COLOR = '(?:none|#[0-9a-f]{3,6}|rgb\\([\\d, ]+\\)|[a-z]+)'
const STROKE = ` stroke="${COLOR}" stroke-width="${NUMBER}" stroke-linecap="[a-z]+" stroke-linejoin="[a-z]+"`
const PATH = `<path d="(?:[MLCZ](?:${NUMBER}(?: ${NUMBER})*)?)*" fill="${COLOR}" fill-rule="[a-z]+"(?:${STROKE})?/>`
export const REBUILT = new RegExp(
  `^<svg xmlns="http://www\\.w3\\.org/2000/svg" width="\\d+" height="\\d+" viewBox="0 0 \\d+ \\d+" fill="none">(?:${PATH})+</svg>$`,
)

/** The rebuilt document, or nothing. */
export const rebuilt = (svg: string, width = SIDE, height = SIDE) => cleanSvg(svg, width, height) ?? ''
