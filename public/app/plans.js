// The plan: which one it is, the others, ending it and going on with it, and the way to the card behind it.
import { html, useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { ActionButton, Confirm, Outcome } from './actions.js'
import { jsonOf } from './api.js'
import { Icon } from './icons.js'
import { buy } from './purchases.js'
import { authorized } from './session.js'
import { dateText, humanize, money, t, tokensText } from './texts.js'

export function Plans({ account, config, actions }) {
  const { billing } = account
  const [question, setQuestion] = useState(null)
  const heading = useRef(null)
  const paid = Object.entries(config.plans).filter(([, { priceCents }]) => priceCents > 0)
  const current = billing?.plan ?? 'free'
  const isPaid = paid.some(([name]) => name === current)
  const isEnding = billing?.status === 'cancelled'

  useEffect(() => {
    // The button that was pressed may be gone with what it did.
    if (document.activeElement === document.body) heading.current.focus()
  }, [current, isEnding, question])

  const act = (name, work) => actions.run('plan', name, () => work().finally(() => setQuestion(null)))
  const cancel = () => act('cancel', () => change('/api/billing/cancel', 'planCancelled'))
  const resume = () => act('resume', () => change('/api/billing/resume', 'planResumed'))
  const openPortal = () => actions.run('plan', 'portal', goToPortal)
  const choose = (plan) =>
    act(`plan:${plan}`, async () => {
      const { status, checkoutUrl } = await buy('/api/billing/upgrade', { plan })
      if (!status) return { goTo: checkoutUrl }
      account.setBilling(status)
      const words = { plan: humanize(plan), date: dateText(status.periodEnd) }
      return { said: t(status.plan === plan ? 'planChanged' : 'planChangesLater', words) }
    })

  async function change(path, said) {
    const status = await jsonOf(await authorized(path, { method: 'POST' }))
    account.setBilling(status)
    return { said: t(said, { date: dateText(status.expiresAt) }) }
  }
  const ask = (about) => {
    actions.clear()
    setQuestion(about)
  }

  return html`
    <section class="part" aria-labelledby="plan-title">
      <h3 id="plan-title" ref=${heading} tabindex="-1">${t('planTitle')}</h3>
      <p class="plan-now">${planNow(billing)}</p>
      <ul class="packs">
        ${paid.map(
          ([name, plan]) => html`
          <li key=${name}>
            <span>
              <strong>${humanize(name)}</strong>
              <span class="soft-text">${t('planOffer', { tokens: tokensText(plan.monthlyTokens), price: money(plan.priceCents, config.payments.currency) })}</span>
            </span>
            ${
              name === current
                ? html`<span class="plan-mark"><${Icon} name="check" />${t('planCurrent')}</span>`
                : html`
                <${ActionButton} actions=${actions} name=${`plan:${name}`} onClick=${() => (isPaid ? ask(name) : choose(name))}>
                  ${t(isDearer(config, name, current) ? 'planUpgrade' : 'planChange')} <span class="visually-hidden">${t('planTo', { plan: humanize(name) })}</span>
                <//>
              `
            }
          </li>
        `,
        )}
      </ul>
      <div class="plan-actions">
        <${ActionButton} actions=${actions} name="portal" class="soft small" onClick=${openPortal}>${t('managePayment')}<//>
        ${isPaid && isEnding && html`<${ActionButton} actions=${actions} name="resume" class="soft small" onClick=${resume}>${t('planResume')}<//>`}
        ${isPaid && !isEnding && html`<${ActionButton} actions=${actions} name="ask" class="quiet small" onClick=${() => ask('cancel')}>${t('planCancel')}<//>`}
      </div>
      ${
        question &&
        html`
        <${Confirm}
          key=${question}
          actions=${actions}
          name=${question === 'cancel' ? 'cancel' : `plan:${question}`}
          ...${wordsOf(question, { billing, config })}
          onYes=${() => (question === 'cancel' ? cancel() : choose(question))}
          onNo=${() => setQuestion(null)}
        />
      `
      }
      <${Outcome} actions=${actions} place="plan" />
      <p class="fine">${t('managePaymentNote')}</p>
    </section>
  `
}

async function goToPortal() {
  const { portalUrl } = await jsonOf(await authorized('/api/billing/portal', { method: 'POST', body: {} }))
  return { goTo: portalUrl }
}

function planNow(billing) {
  if (!billing?.plan) return ''
  const { plan, status, tokenLimit, periodEnd, expiresAt, pendingPlan } = billing
  const words = { plan: humanize(plan), tokens: tokensText(tokenLimit) }
  if (status === 'cancelled') return t('planEnds', { ...words, date: dateText(expiresAt) })
  if (status === 'expired') return t('planExpired', { ...words, date: dateText(expiresAt) })
  if (pendingPlan) return t('planPending', { ...words, next: humanize(pendingPlan), date: dateText(periodEnd) })
  return t('planNow', { ...words, date: dateText(periodEnd) })
}

function isDearer({ plans }, plan, current) {
  return plans[plan].priceCents > (plans[current]?.priceCents ?? 0)
}

/** The question before a plan is cancelled, or changed with what that costs. */
function wordsOf(question, { billing, config }) {
  const current = humanize(billing.plan)
  if (question === 'cancel') {
    const date = dateText(billing.periodEnd)
    return {
      question: t('planCancelAsk', { plan: current, date, free: humanize('free') }),
      yes: t('planCancelYes', { plan: current }),
      no: t('planCancelNo', { plan: current }),
    }
  }
  const words = { plan: humanize(question), current, date: dateText(billing.periodEnd) }
  return {
    question: t(isDearer(config, question, billing.plan) ? 'planDearerAsk' : 'planCheaperAsk', words),
    yes: t('planChangeYes', words),
    no: t('planChangeNo', { plan: current }),
  }
}
