// Before and after on one sheet, with a slider between them that works by mouse, finger and arrow keys.
import { html, useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { Icon } from './icons.js'
import { t } from './texts.js'

const REVEAL_MS = 1100
const REVEAL_TO = 50

export function Compare({ result }) {
  const [percent, setPercent] = useState(100)
  const frame = useRef(null)
  const touched = useRef(false)

  useEffect(() => {
    frame.current.style.setProperty('--split', `${percent}%`)
  }, [percent])
  useEffect(() => reveal(setPercent, touched), [])

  const take = () => {
    touched.current = true
  }
  const slide = ({ currentTarget }) => {
    take()
    setPercent(Number(currentTarget.value))
  }
  return html`
    <figure class="compare" ref=${frame}>
      <img class="compare-after" src=${result.url} alt=${t('resultAlt', result.photo)} />
      <img class="compare-before" src=${result.photo.url} alt="" />
      <span class="compare-tag at-start" data-on=${percent > 18} aria-hidden="true">${t('before')}</span>
      <span class="compare-tag at-end" data-on=${percent < 82} aria-hidden="true">${t('after')}</span>
      <input
        class="compare-range"
        type="range"
        min="0"
        max="100"
        step="1"
        value=${percent}
        aria-label=${t('compareLabel')}
        aria-valuetext=${t('compareValue', { percent })}
        onInput=${slide}
        onKeyDown=${take}
        onPointerDown=${take}
      />
      <span class="compare-handle" aria-hidden="true"><${Icon} name="handles" /></span>
    </figure>
  `
}

/** Draws the photo aside once, from all of it to half; stops as soon as someone takes the slider. */
function reveal(setPercent, touched) {
  if (matchMedia('(prefers-reduced-motion: reduce)').matches) {
    setPercent(REVEAL_TO)
    return undefined
  }
  const startedAt = performance.now()
  let request = requestAnimationFrame(function step(now) {
    if (touched.current) return
    const share = Math.min(1, Math.max(0, (now - startedAt) / REVEAL_MS))
    const eased = 1 - (1 - share) ** 3
    setPercent(Math.round(100 - (100 - REVEAL_TO) * eased))
    if (share < 1) request = requestAnimationFrame(step)
  })
  return () => cancelAnimationFrame(request)
}
