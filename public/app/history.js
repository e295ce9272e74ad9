// What moved the balance: purchases with their invoices, refunds, grants and what was spent, newest first.
import { html, useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { jsonOf } from './api.js'
import { explainPayment } from './explain.js'
import { Icon } from './icons.js'
import { InvoiceButton } from './invoice.js'
import { save } from './save.js'
import { authorized } from './session.js'
import { dateText, dateTimeText, humanize, money, number, t, tokensText } from './texts.js'

const PAGE_SIZE = 20
const PAID = new Set(['paid', 'refunded', 'partially_refunded'])
/** Statuses that say nothing beyond the figures. */
const PLAIN = new Set([...PAID, 'succeeded'])

export function History({ config }) {
  const [isOpen, setIsOpen] = useState(false)
  return html`
    <details class="part history" onToggle=${({ currentTarget }) => setIsOpen(currentTarget.open)}>
      <summary>${t('history')}</summary>
      ${isOpen && html`<${Entries} tools=${config.tools} />`}
    </details>
  `
}

function Entries({ tools }) {
  const [entries, setEntries] = useState(null)
  const [cursor, setCursor] = useState(null)
  const [busy, setBusy] = useState('more')
  const [problem, setProblem] = useState('')
  const list = useRef(null)
  const firstNew = useRef(0)

  async function run(name, work) {
    setBusy(name)
    setProblem('')
    try {
      await work()
    } catch (error) {
      setProblem(explainPayment(error))
      if (!error.code) throw error
    } finally {
      setBusy('')
    }
  }

  async function load() {
    const after = cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''
    const { data, page } = await jsonOf(await authorized(`/api/billing/history?limit=${PAGE_SIZE}${after}`))
    firstNew.current = entries?.length ?? 0
    setEntries([...(entries ?? []), ...data])
    setCursor(page.nextCursor)
  }

  useEffect(() => {
    run('more', load)
  }, [])
  useEffect(() => {
    if (firstNew.current > 0) list.current.children[firstNew.current]?.focus()
  }, [entries])

  const press = (name, work) => () => !busy && run(name, work)
  return html`
    ${entries?.length === 0 && html`<p class="soft-text">${t('historyEmpty')}</p>`}
    ${entries === null && !problem && html`<p class="soft-text history-waiting">${t('historyLoading')}</p>`}
    ${entries?.length > 0 && html`<ul class="entries" ref=${list}>${entries.map((entry) => html`<${Entry} key=${entry.type + entry.id} entry=${entry} tools=${tools} />`)}</ul>`}
    ${problem && html`<p class="problem bad" role="alert"><${Icon} name="alert" />${problem}</p>`}
    <div class="history-actions">
      ${(cursor || (problem && !entries)) && html`<button type="button" class="soft small" aria-disabled=${busy !== ''} onClick=${press('more', load)}>${t(entries ? 'historyMore' : 'tryAgain')}</button>`}
      ${entries?.length > 0 && html`<button type="button" class="quiet small" aria-disabled=${busy !== ''} onClick=${press('csv', downloadCsv)}><${Icon} name="download" />${t('historyCsv')}</button>`}
    </div>
  `
}

async function downloadCsv() {
  save(await (await authorized('/api/billing/history', { accept: 'text/csv' })).blob(), t('historyFile'))
}

function Entry({ entry, tools }) {
  const { title, change, amount, notes } = SHOWN[entry.type]?.(entry, tools) ?? {
    title: humanize(entry.type),
    notes: [],
  }
  const status = entry.status && !PLAIN.has(entry.status) && statusText(entry.status)
  const hasInvoice = entry.type === 'order' && PAID.has(entry.status)
  return html`
    <li tabindex="-1">
      <p>${title}</p>
      <p class="entry-change">${change || amount}</p>
      <p class="soft-text">${[dateTimeText(entry.at), change && amount, ...notes, status].filter(Boolean).join(' · ')}</p>
      ${hasInvoice && html`<div class="entry-invoice"><${InvoiceButton} order=${entry} /></div>`}
    </li>
  `
}

const SHOWN = {
  order: ({ description, amountCents, currency, taxCents, refundedCents, tokens, tokensTakenBack }) => ({
    title: description || t('historyOrder'),
    change: tokens > 0 && `+${tokensText(tokens)}`,
    amount:
      taxCents > 0
        ? t('historyTax', { price: money(amountCents, currency), tax: money(taxCents, currency) })
        : money(amountCents, currency),
    notes: [
      refundedCents > 0 && t('historyRefunded', { amount: money(refundedCents, currency) }),
      tokensTakenBack > 0 && t('historyTakenBack', { tokens: tokensText(tokensTakenBack) }),
    ],
  }),
  refund: ({ amountCents, currency }) => ({
    title: t('historyRefund'),
    amount: `−${money(amountCents, currency)}`,
    notes: [],
  }),
  grant: ({ kind, tokens, trialGenerations, expiresAt }) => ({
    title: t(`historyGrant${humanize(kind)}`),
    change: tokens > 0 ? `+${tokensText(tokens)}` : `+${t('historyFreeTries', { count: number(trialGenerations) })}`,
    notes: [expiresAt && t('historyUntil', { date: dateText(expiresAt) })],
  }),
  spend: ({ tool, tokens, trial }, tools) => ({
    title: tools.find(({ name }) => name === tool)?.title ?? humanize(tool),
    change: trial ? t('historyFreeTry') : `−${tokensText(tokens)}`,
    notes: [],
  }),
}

function statusText(status) {
  const key = `status${status.charAt(0).toUpperCase()}${status.slice(1)}`
  const text = t(key)
  return text === key ? humanize(status).toLowerCase() : text
}
