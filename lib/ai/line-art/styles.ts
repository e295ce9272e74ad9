// The looks a colouring page can have, as tables of numbers.

/** The parameters of a look. Lengths are pixels of the working copy of the photo. */
export interface LineStyle {
  /** Long side of the copy on which the lines are sought; the page has twice as many. */
  workSidePixels: number
  /** Window of the median filter that wipes out grain and fine texture. */
  medianPixels: number
  /** How far neighbouring edges agree on a common direction. */
  flowSigma: number
  /** Width of the edges that are looked for. */
  edgeSigma: number
  /** How far along its direction a line gathers evidence, and so which gaps it closes. */
  lineSigma: number
  /** How strongly lines in the neighbourhood weaken each other: 0 keeps all texture, 1 leaves lone outlines. */
  surroundWeight: number
  surroundRadius: number
  /** Share of all pixels that are strong enough to start a line. */
  strongShare: number
  /** A line goes on while it is at least this part of the strength that starts one. */
  weakRatio: number
  /** Lines whose bounding box has a shorter diagonal are dropped. */
  lineLengthMin: number
  /** Softening before the final cut, which rounds and widens the strokes. */
  boldSigma: number
  /** Where the cut is made, from 0 to 1: lower is bolder. */
  inkLevel: number
}

export const STYLES = {
  simple: {
    workSidePixels: 768,
    medianPixels: 5,
    flowSigma: 3.6,
    edgeSigma: 1.45,
    lineSigma: 4.5,
    surroundWeight: 0.8,
    surroundRadius: 14,
    strongShare: 0.03,
    weakRatio: 0.32,
    lineLengthMin: 30,
    boldSigma: 1.6,
    inkLevel: 0.22,
  },
  standard: {
    workSidePixels: 896,
    medianPixels: 3,
    flowSigma: 3.4,
    edgeSigma: 1.35,
    lineSigma: 4.2,
    surroundWeight: 0.72,
    surroundRadius: 15,
    strongShare: 0.036,
    weakRatio: 0.34,
    lineLengthMin: 28,
    boldSigma: 1.45,
    inkLevel: 0.23,
  },
  detailed: {
    workSidePixels: 1152,
    medianPixels: 3,
    flowSigma: 3.2,
    edgeSigma: 1.3,
    lineSigma: 4,
    surroundWeight: 0.55,
    surroundRadius: 16,
    strongShare: 0.045,
    weakRatio: 0.36,
    lineLengthMin: 24,
    boldSigma: 1.3,
    inkLevel: 0.26,
  },
} as const satisfies Record<string, LineStyle>

export type StyleName = keyof typeof STYLES
