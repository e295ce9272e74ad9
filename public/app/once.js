// Something that is shown only once: selectable, with a button that copies it.
import { html, useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { t } from './texts.js'

const SAID_FOR_MS = 4000

/** `lines` stands for `text` where it is easier to read in groups. It takes the focus when it appears. `lead` stands above it. */
export function Once({ title, note, text, lines = [text], lead, children }) {
  const heading = useRef(null)
  useEffect(() => {
    heading.current.focus({ preventScroll: true })
    heading.current.parentElement.scrollIntoView({ block: 'nearest' })
  }, [text])
  return html`
    <div class="once">
      <p class="once-title" ref=${heading} tabindex="-1">${title}</p>
      ${note && html`<p class="fine">${note}</p>`}
      ${lead}
      <div class="once-box">
        <code>${lines.map((line) => html`<span>${line}</span> `)}</code>
        <${CopyButton} text=${text} />
      </div>
      ${children}
    </div>
  `
}

/** Without a clipboard, as on pages opened by plain http, there is nothing to press: the text can be selected. */
function CopyButton({ text }) {
  const [isDone, setIsDone] = useState(false)
  useEffect(() => {
    if (!isDone) return
    const timer = setTimeout(() => setIsDone(false), SAID_FOR_MS)
    return () => clearTimeout(timer)
  }, [isDone])
  if (!navigator.clipboard) return null
  const copy = () =>
    navigator.clipboard.writeText(text).then(
      () => setIsDone(true),
      () => {},
    )
  return html`
    <button type="button" class="soft small" onClick=${copy}>${t('copy')}</button>
    <span class="once-copied" role="status">${isDone ? t('copied') : ''}</span>
  `
}
