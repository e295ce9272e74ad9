// The fork's brand on the page: colours made readable on both grounds, the title, and the icon.

/** Darker and lighter than any ground that text in a brand colour stands on in style.css, tinted buttons included. */
const GROUND = { light: [232, 228, 224], dark: [74, 70, 67] }
const TEXT_CONTRAST = 4.6
/** How far a pressed or pointed-at colour moves away from its text, so that the text only gets clearer. */
const DEEPER = 0.16
const PAPER = [255, 255, 255]
const INK = [31, 26, 23]
const BLACK = [0, 0, 0]

/** Sets the custom properties of style.css; a missing or unknown colour keeps the neutral one there. */
export function applyTheme(brand) {
  const root = document.documentElement.style
  for (const role of ['primary', 'accent']) {
    const color = rgbOf(brand.colors[role])
    if (!color) continue
    root.setProperty(`--${role}`, css(color))
    const text = readableOn(color)
    root.setProperty(`--on-${role}`, css(text))
    root.setProperty(`--${role}-deep`, css(mix(color, text === PAPER ? BLACK : PAPER, DEEPER)))
    root.setProperty(`--${role}-ink-light`, css(inkOn(GROUND.light, color)))
    root.setProperty(`--${role}-ink-dark`, css(inkOn(GROUND.dark, color)))
  }
  document.title = [brand.name, brand.tagline].filter(Boolean).join(' · ')
  setMeta('description', brand.description ?? brand.tagline)
  setMeta('application-name', brand.name)
  setMeta('apple-mobile-web-app-title', brand.name)
}

function setMeta(name, content) {
  if (!content) return
  const meta = document.head.querySelector(`meta[name="${name}"]`) ?? document.createElement('meta')
  meta.name = name
  meta.content = content
  document.head.append(meta)
}

/** Any CSS colour as [r, g, b]; the canvas is the parser. */
function rgbOf(color) {
  if (typeof color !== 'string' || !CSS.supports('color', color)) return undefined
  const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
  context.fillStyle = color
  context.fillRect(0, 0, 1, 1)
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)]
}

function readableOn(ground) {
  // One of white and black always reaches 4.58 : 1; the softer ink is taken where it is enough.
  return (
    [PAPER, INK].find((text) => contrast(text, ground) >= TEXT_CONTRAST) ??
    (contrast(PAPER, ground) >= 4.5 ? PAPER : BLACK)
  )
}

/** The colour itself where it is readable on the ground, else the nearest step towards black or white that is. */
function inkOn(ground, color) {
  const goal = luminance(ground) > 0.3 ? INK : PAPER
  for (let share = 0; share < 1; share += 0.05) {
    const mixed = mix(color, goal, share)
    if (contrast(mixed, ground) >= TEXT_CONTRAST) return mixed
  }
  return goal
}

function mix(color, goal, share) {
  return color.map((channel, index) => channel + (goal[index] - channel) * share)
}

/** WCAG 2 contrast ratio. */
function contrast(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b)
  return (light + 0.05) / (dark + 0.05)
}

function luminance(rgb) {
  const [red, green, blue] = rgb.map((channel) => {
    const share = channel / 255
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue
}

function css(rgb) {
  return `rgb(${rgb.map(Math.round).join(' ')})`
}
