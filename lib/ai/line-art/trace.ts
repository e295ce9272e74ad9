// From a photo's pixels to the pixels of its lines: the arithmetic of a drawing, free of input, output and libraries.
import { findLines } from './edges.ts'
import { tangentFlow } from './flow.ts'
import type { Photo } from './planes.ts'
import { traceStrokes } from './strokes.ts'
import { STYLES, type StyleName } from './styles.ts'

/** One byte a pixel of the photo: 255 on a line, 0 elsewhere. Half a second of CPU. */
export function traceLines(photo: Photo, styleName: StyleName): Uint8Array<ArrayBuffer> {
  const style = STYLES[styleName]
  const flow = tangentFlow(photo, style.flowSigma)
  return traceStrokes(findLines(photo, flow, style), style)
}
