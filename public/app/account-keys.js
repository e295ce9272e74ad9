// Keys for programs: the list, a new one shown once, replacing and ending.
import { html, useState } from '../vendor/preact-htm.js'
import { KeyForm } from './account-key-form.js'
import { Missing, useFound } from './account-list.js'
import { ActionButton, Confirm, Outcome } from './actions.js'
import { jsonOf, newId } from './api.js'
import { Once } from './once.js'
import { authorized } from './session.js'
import { dateText, dateTimeText, number, t } from './texts.js'

/** How long the old key may go on working, in seconds. */
const OVERLAPS = [0, 3600, 86_400, 604_800]

export function Keys({ actions }) {
  const source = useFound('/api/api-keys?limit=100')
  const [made, setMade] = useState(null)
  /** What is open: `{ step: 'new' }`, `{ step: 'end' | 'rotate', key }`, or nothing. */
  const [open, setOpen] = useState({})
  const close = () => setOpen({})
  const ask = (next) => {
    actions.clear()
    setMade(null)
    setOpen(next)
  }

  async function change(method, path, body) {
    const headers = { 'idempotency-key': newId() }
    const reply = await jsonOf(await authorized(path, { method, body, ...(method === 'POST' && { headers }) }))
    close()
    if (reply?.key) setMade(reply)
    await source.load()
    return reply
  }

  const create = (body) => change('POST', '/api/api-keys', body)
  const rotate = (key, overlapSeconds) =>
    actions.run('keys', 'rotate', async () => {
      await change('POST', `/api/api-keys/${key.id}/rotate`, { overlapSeconds })
      return {}
    })
  const end = (key) =>
    actions.run('keys', 'end', async () => {
      await change('DELETE', `/api/api-keys/${key.id}`)
      return { said: t('keyEnded', { name: key.name }) }
    })

  const keys = source.found?.data ?? []
  return html`
    <p class="soft-text">${t('keysText')}</p>
    ${!source.found && html`<${Missing} source=${source} />`}
    ${made && html`<${Once} title=${t('keyCreated', { name: made.name })} note=${t('shownOnce')} text=${made.key} />`}
    ${source.found && keys.length === 0 && html`<p class="soft-text">${t('keysEmpty')}</p>`}
    ${
      keys.length > 0 &&
      html`
      <ul class="rows">
        ${keys.map((key) => html`<${Key} key=${key.id} value=${key} onEnd=${() => ask({ step: 'end', key })} onRotate=${() => ask({ step: 'rotate', key })} />`)}
      </ul>
    `
    }
    ${open.step === 'rotate' && html`<${Rotation} key=${open.key.id} value=${open.key} actions=${actions} onYes=${(seconds) => rotate(open.key, seconds)} onNo=${close} />`}
    ${
      open.step === 'end' &&
      html`
      <${Confirm}
        key=${open.key.id}
        actions=${actions}
        name="end"
        question=${t('keyEndQuestion', { name: open.key.name })}
        yes=${t('keyEndYes')}
        no=${t('keyKeep')}
        onYes=${() => end(open.key)}
        onNo=${close}
      />
    `
    }
    <${Outcome} actions=${actions} place="keys" />
    ${source.found && html`<p><button type="button" class="soft small" aria-expanded=${open.step === 'new'} onClick=${() => ask(open.step === 'new' ? {} : { step: 'new' })}>${t('keyNew')}</button></p>`}
    ${open.step === 'new' && html`<${KeyForm} onCreate=${create} onCancel=${close} />`}
  `
}

function Key({ value: key, onEnd, onRotate }) {
  const facts = [
    key.scopes.map((scope) => t(`keyScope${scope}`)).join(', '),
    key.tokenBudget > 0 && t('keySpent', { used: number(key.tokensUsed), budget: number(key.tokenBudget) }),
    key.active && key.expiresAt && t('keyUntil', { date: dateTimeText(key.expiresAt) }),
    key.lastUsedAt ? t('keyUsed', { when: dateText(key.lastUsedAt) }) : t('keyUnused'),
    !key.active && t('keyOver'),
  ]
  const { name } = key
  return html`
    <li class=${key.active ? '' : 'over'}>
      <span>
        ${name} <code>${key.keyPrefix}…</code>
        <span class="soft-text">${facts.filter(Boolean).join(' · ')}</span>
      </span>
      ${
        key.active &&
        html`
        <span class="row-actions">
          <button type="button" class="quiet small" aria-label=${t('keyRotateOf', { name })} onClick=${onRotate}>${t('keyRotate')}</button>
          <button type="button" class="quiet small" aria-label=${t('keyEndOf', { name })} onClick=${onEnd}>${t('keyEnd')}</button>
        </span>
      `
      }
    </li>
  `
}

function Rotation({ value: { name, tokenBudget }, actions, onYes, onNo }) {
  const [seconds, setSeconds] = useState(OVERLAPS[1])
  return html`
    <div class="confirm" role="group" aria-labelledby="rotation-text">
      <p id="rotation-text">${tokenBudget !== null && t('keyRotateBudget')} ${t('keyRotateText', { name })}</p>
      <select aria-label=${t('keyOverlap')} value=${seconds} autofocus onChange=${({ currentTarget }) => setSeconds(Number(currentTarget.value))}>
        ${OVERLAPS.map((value) => html`<option value=${value}>${t(`keyOverlap${value}`)}</option>`)}
      </select>
      <div class="confirm-answers">
        <${ActionButton} actions=${actions} name="rotate" class="primary small" onClick=${() => onYes(seconds)}>${t('keyRotateYes')}<//>
        <button type="button" class="quiet small" onClick=${onNo}>${t('cancel')}</button>
      </div>
    </div>
  `
}
