// The words a tool begins with, and the words it ends with.
import { html, useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { Icon } from './icons.js'
import { number, t } from './texts.js'

/** From here on it is worth saying how many characters are left. */
const NEARLY_FULL = 0.8

export function WordsEditor({ studio }) {
  const { tool, words, phase, isEditing, problem } = studio
  // The only remark there is on words that are being written: that there are none. The column beside shows it as well.
  const remark = isEditing && problem ? problem.text : ''
  const field = useRef(null)
  const max = tool.inputCharactersMax
  useEffect(() => {
    if (studio.isEditing) field.current.focus()
  }, [studio.isEditing])
  return html`
    <div class="words-editor">
      <label class="field">
        <span class="words-label">${t('uploadPrompt')}</span>
        <textarea
          ref=${field}
          rows="6"
          maxlength=${max}
          value=${words}
          readonly=${phase === 'working'}
          aria-invalid=${remark ? 'true' : undefined}
          aria-describedby=${remark ? 'words-remark words-left' : 'words-left'}
          onInput=${({ currentTarget }) => studio.setWords(currentTarget.value)}
        ></textarea>
      </label>
      ${remark && html`<span id="words-remark" hidden>${remark}</span>`}
      <p id="words-left" class="field-hint">${words.length > max * NEARLY_FULL ? t('wordsLeft', { count: number(max - words.length) }) : ''}</p>
    </div>
  `
}

/** A text that was made, below the photo it is about. */
export function Answer({ result }) {
  return html`
    <figure class="answer">
      ${result.photo && html`<img src=${result.photo.url} alt=${t('yourPhoto', { name: result.photo.name })} />`}
      <figcaption class="answer-text">${result.text}</figcaption>
    </figure>
  `
}

export function CopyButton({ text }) {
  const [said, setSaid] = useState('')
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text)
      setSaid(t('copied'))
    } catch {
      setSaid(t('copyFailed'))
    }
  }
  return html`
    <button type="button" class="primary" onClick=${copy}><${Icon} name=${said === t('copied') ? 'check' : 'copy'} />${t('copy')}</button>
    <p class=${said ? 'field-hint' : 'visually-hidden'} role="status">${said}</p>
  `
}
