// The sheet of paper in the middle: an invitation, the chosen photo or the words, the work in progress, or what came of it.
import { html, useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { Compare } from './compare.js'
import { Icon } from './icons.js'
import { Problem } from './problem.js'
import { t } from './texts.js'
import { takesPhoto } from './tool.js'
import { Answer, WordsEditor } from './words.js'

const isTouch = matchMedia('(pointer: coarse)').matches

export function Stage({ studio }) {
  const { tool, photo, shown, phase, progress } = studio
  const picture = shown?.facts.width ? shown.facts : photo
  const isWritten = !takesPhoto(tool)
  const sheet = useRef(null)
  useEffect(() => {
    // Set through the CSSOM: the page's content policy refuses style attributes.
    sheet.current.style.setProperty('--aspect', picture ? String(picture.width / picture.height) : '4 / 3')
  }, [picture])
  useEffect(() => {
    if (phase === 'working' || shown) bringIntoView(sheet.current)
  }, [phase, shown?.id])

  return html`
    <div class=${`sheet ${picture && !shown?.text ? 'has-picture' : 'is-empty'}`} ref=${sheet}>
      ${shown && html`<${Result} key=${shown.id} result=${shown} />`}
      ${isWritten && !shown && html`<${WordsEditor} studio=${studio} />`}
      ${
        !shown &&
        photo &&
        html`
        <figure class="preview" data-working=${phase === 'working'}>
          <img src=${photo.url} alt=${t('yourPhoto', { name: photo.name })} width=${photo.width} height=${photo.height} />
          ${phase === 'working' && html`<div class="brush" aria-hidden="true"></div>`}
        </figure>
      `
      }
      ${progress && html`<${Progress} progress=${progress} onStop=${studio.stop} />`}
      ${!picture && !isWritten && html`<${Invitation} studio=${studio} />`}
    </div>
  `
}

function Result({ result }) {
  const { text, photo, url, facts } = result
  if (text !== undefined) return html`<${Answer} result=${result} />`
  if (photo) return html`<${Compare} result=${result} />`
  return html`<figure class="preview"><img src=${url} alt=${t('resultAlt', result)} width=${facts.width} height=${facts.height} /></figure>`
}

function Invitation({ studio }) {
  const busy = studio.phase === 'preparing'
  return html`
    <div class="invitation">
      <div class="invitation-art" aria-hidden="true"><${Icon} name="photo" /></div>
      <p class="invitation-title">${busy ? t('preparing') : t('uploadPrompt')}</p>
      <p class="soft-text">${t(isTouch ? 'uploadTextTouch' : 'uploadText')}</p>
      <div class="invitation-actions">
        <${FileButton} class="primary" icon="photo" label=${t('choosePhoto')} onFile=${studio.choose} />
        ${isTouch && html`<${FileButton} class="soft" icon="camera" capture="environment" label=${t('takePhoto')} onFile=${studio.choose} />`}
      </div>
      ${studio.problem && html`<${Problem} problem=${studio.problem} />`}
      <button type="button" class="sample" onClick=${() => chooseSample(studio)}>
        <img src="/sample.jpg" alt="" width="64" height="48" />
        <span><span class="soft-text">${t('samplePhotoHint')}</span><span class="sample-label">${t('samplePhoto')}</span></span>
      </button>
    </div>
  `
}

/** A real button in front of a file input: the input itself cannot be styled or labelled well. */
export function FileButton({ label, icon, capture, onFile, class: look }) {
  const input = useRef(null)
  const take = ({ currentTarget }) => {
    const [file] = currentTarget.files
    currentTarget.value = ''
    onFile(file)
  }
  return html`
    <button type="button" class=${look} onClick=${() => input.current.click()}><${Icon} name=${icon} />${label}</button>
    <input ref=${input} class="hidden" type="file" accept="image/*,.heic,.heif" capture=${capture} tabindex="-1" aria-hidden="true" onChange=${take} />
  `
}

async function chooseSample(studio) {
  const response = await fetch('/sample.jpg').catch(() => undefined)
  if (!response?.ok) return studio.setProblem({ title: t('photoSampleGone'), text: '', note: '' })
  await studio.choose(new File([await response.blob()], 'sample.jpg', { type: 'image/jpeg' }))
}

function Progress({ progress, onStop }) {
  const [now, setNow] = useState(Date.now())
  useEffect(() => {
    const ticking = setInterval(() => setNow(Date.now()), 500)
    return () => clearInterval(ticking)
  }, [])
  const seconds = Math.max(0, Math.floor((now - progress.startedAt) / 1000))
  return html`
    <div class="progress">
      <div class="progress-row">
        <span class="progress-text">${progress.text}</span>
        <span class="progress-time" aria-hidden="true">${t('progressElapsed', { seconds })}</span>
      </div>
      <div class="progress-bar" aria-hidden="true"></div>
      <button type="button" class="quiet small" onClick=${onStop}>${t('stopWaiting')}</button>
    </div>
  `
}

function bringIntoView(element) {
  const { top, bottom } = element.getBoundingClientRect()
  if (top >= 0 && bottom <= innerHeight) return
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches
  element.scrollIntoView({ block: 'center', behavior: calm ? 'auto' : 'smooth' })
}
