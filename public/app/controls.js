// The column beside the sheet: choices, the one big button with its price, problems, and what to do with a result.
import { html, useEffect, useRef } from '../vendor/preact-htm.js'
import { nextPrice } from './account.js'
import { Icon } from './icons.js'
import { Problem } from './problem.js'
import { FileButton } from './stage.js'
import { providerName } from './studio.js'
import { humanize, number, t, tokensText } from './texts.js'
import { qualitiesOf, takesPhoto } from './tool.js'
import { CopyButton } from './words.js'

/** More values than this are easier to find in a list than side by side. */
const SEGMENTS_MAX = 4
/** Longer labels are easier to read one below the other. */
const SEGMENT_CHARACTERS_MAX = 22

export function Controls({ studio, account, config, onTokens, onSignIn }) {
  const { tool, photo, shown, phase, problem } = studio
  const canGenerate = config.features.generate
  const heading = useRef(null)
  const button = useRef(null)
  useEffect(() => {
    if (shown) heading.current?.focus({ preventScroll: true })
    else if (photo && phase === 'idle' && !problem) button.current?.focus({ preventScroll: true })
  }, [photo?.id, shown?.id])

  const isWritten = !takesPhoto(tool)
  if (!photo && !isWritten) return null
  return html`
    <section class="controls" aria-labelledby="controls-title">
      <h2 id="controls-title" ref=${heading} tabindex="-1">${shown ? t('resultTitle') : t('chosenTitle')}</h2>
      ${shown && html`<${Outcome} result=${shown} brand=${config.brand} />`}
      <form class="choices" onSubmit=${(event) => event.preventDefault()}>
        <${Choices} studio=${studio} billing=${account.billing} disabled=${phase === 'working'} />
        ${problem && html`<${Problem} problem=${problem} onTokens=${onTokens} onSignIn=${onSignIn} onOver=${() => studio.setProblem(null)} />`}
        ${!canGenerate && html`<${Problem} problem=${{ tone: 'note', title: '', text: t('generateOff'), note: '' }} />`}
        <${CreateButton} studio=${studio} account=${account} trial=${config.trial} canGenerate=${canGenerate} buttonRef=${button} />
      </form>
      ${
        phase !== 'working' &&
        html`
          <div class="controls-foot">
            ${!isWritten && html`<${FileButton} class="quiet" icon="photo" label=${t(shown ? 'newPhoto' : 'changePhoto')} onFile=${studio.choose} />`}
            ${isWritten && shown && html`<button type="button" class="quiet" onClick=${studio.edit}><${Icon} name="refresh" />${t('changeWords')}</button>`}
            <p class="fine">${account.user ? t('optionsNote') : t(config.auth.provider === 'local' ? 'signUpFirst' : 'signInFirst')}</p>
          </div>
        `
      }
    </section>
  `
}

function CreateButton({ studio, account, trial, canGenerate, buttonRef }) {
  const working = studio.phase === 'working'
  const blocked = working || !canGenerate || studio.problem?.retryAt > Date.now()
  const visitor = !account.user
  const { trialLeft, tokens } = nextPrice(account.billing, studio.tool, studio.options.quality)
  const price = trialLeft > 0 ? t('priceFree', { count: number(trialLeft) }) : tokensText(tokens)
  const label = working ? t('working') : t(studio.shown ? 'createAgain' : 'createButton')
  return html`
    <button
      ref=${buttonRef}
      type="button"
      class="primary create"
      aria-disabled=${blocked}
      onClick=${() => !blocked && studio.create()}
    >
      ${working ? html`<span class="spinner" aria-hidden="true"></span>` : html`<${Icon} name="sparkle" />`}
      <span>${label}</span>
      ${!working && !visitor && account.billing && html`<span class="price">${price}</span>`}
      ${!working && visitor && trial.generations > 0 && html`<span class="price">${t('free')}</span>`}
    </button>
  `
}

function Choices({ studio, billing, disabled }) {
  const { tool, options, setOption } = studio
  const free = nextPrice(billing, tool, 'standard').trialLeft > 0
  const priceOf = (quality) => (free || !billing ? '' : tokensText(nextPrice(billing, tool, quality).tokens))
  const quality = {
    title: t('quality'),
    enum: qualitiesOf(tool),
    labels: { draft: t('qualityDraft'), standard: t('qualityStandard'), high: t('qualityHigh') },
    notes: { draft: priceOf('draft'), standard: priceOf('standard'), high: priceOf('high') },
  }
  const all = [...Object.entries(tool.options), ['quality', quality]]
  return all.map(
    ([name, option]) => html`
      <${Choice} key=${name} name=${name} option=${option} value=${options[name]} disabled=${disabled} onChange=${(value) => setOption(name, value)} />
    `,
  )
}

function Choice({ name, option, value, disabled, onChange }) {
  const title = option.title ?? humanize(name)
  const labelOf = (entry) => option.labels?.[entry] ?? humanize(entry)
  if (option.enum.length > SEGMENTS_MAX) {
    return html`
      <label class="field">
        <span class="field-label">${title}${option.description && html`<span class="legend-note">${option.description}</span>`}</span>
        <select value=${value} disabled=${disabled} onChange=${({ currentTarget }) => onChange(currentTarget.value)}>
          ${option.enum.map((entry) => html`<option value=${entry}>${labelOf(entry)}</option>`)}
        </select>
      </label>
    `
  }
  const isLong = option.enum.some((entry) => labelOf(entry).length > SEGMENT_CHARACTERS_MAX)
  return html`
    <fieldset class="segments" disabled=${disabled}>
      <legend>${title}${option.description && html`<span class="legend-note">${option.description}</span>`}</legend>
      <div class=${`segments-row ${isLong ? 'stacked' : ''}`}>
        ${option.enum.map(
          (entry) => html`
            <label class="segment">
              <input type="radio" name=${name} value=${entry} checked=${entry === value} onChange=${() => onChange(entry)} />
              <span class="segment-text">${labelOf(entry)}${option.notes?.[entry] && html`<small>${option.notes[entry]}</small>`}</span>
            </label>
          `,
        )}
      </div>
    </fieldset>
  `
}

function Outcome({ result, brand }) {
  const { facts } = result
  const isPng = facts.mimeType === 'image/png'
  return html`
    <div class="outcome">
      <p class="outcome-line">
        ${t('madeBy', { provider: providerName(facts.provider), seconds: (facts.processingTime / 1000).toFixed(1) })}; ${chargeText(facts)}.
      </p>
      ${facts.fallback.used && html`<p class="notice"><${Icon} name="refresh" /><span>${fallbackText(facts)}</span></p>`}
      <div class="outcome-actions">
        ${result.text !== undefined && navigator.clipboard && html`<${CopyButton} key=${result.id} text=${result.text} />`}
        <a class=${`button ${result.text === undefined ? 'primary' : 'soft'}`} href=${result.url} download=${fileName(result, brand)}>
          <${Icon} name="download" />${t(isPng ? 'download' : 'downloadOther')}
        </a>
        ${result.text === undefined && html`<button type="button" class="soft" onClick=${printSheet}><${Icon} name="print" />${t('print')}</button>`}
      </div>
      <details class="facts">
        <summary>${t('details')}</summary>
        <dl>
          <dt>${t('detailProvider')}</dt><dd>${facts.provider}</dd>
          <dt>${t('detailModel')}</dt><dd>${facts.model}</dd>
          ${facts.width && html`<dt>${t('detailSize')}</dt><dd>${facts.width} × ${facts.height}</dd>`}
          <dt>${t('detailTime')}</dt><dd>${number(facts.processingTime)} ms</dd>
          <dt>${t('detailCharge')}</dt><dd>${facts.usage.trial ? t('free') : tokensText(facts.usage.tokens)}</dd>
          <dt>${t('detailCost')}</dt><dd>$${facts.cost}</dd>
          <dt>${t('detailRequest')}</dt><dd>${facts.requestId}</dd>
        </dl>
      </details>
    </div>
  `
}

function chargeText({ usage }) {
  if (usage.trial) return t('chargedFree')
  return usage.tokens > 0 ? t('chargedTokens', { count: number(usage.tokens) }) : t('chargedNothing')
}

function fallbackText({ fallback, provider }) {
  const others = new Set(fallback.failed.map((attempt) => attempt.provider).filter((id) => id !== provider))
  return t('fallbackNote', { failed: [...others].map(providerName).join(', '), provider: providerName(provider) })
}

function fileName({ name, facts, number: count }, brand) {
  const slug = (text) =>
    text
      .toLowerCase()
      .normalize('NFKD')
      .replace(/[^\p{L}\p{N}]+/gu, '-')
      .replace(/^-|-$/g, '')
  const extension = facts.mimeType.split('/')[1].replace('jpeg', 'jpg').replace('plain', 'txt')
  return `${[brand.texts.downloadName, slug(name).slice(0, 40), count].filter(Boolean).join('-')}.${extension}`
}

/** Waits for the sheet that only the printer sees, so that it is never printed empty. */
async function printSheet() {
  await document.querySelector('.print-sheet')?.decode()
  window.print()
}
