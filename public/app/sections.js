// The quiet parts of the page: the opening words, this visit's pictures, how it works and what it costs, the footer.
import { html } from '../vendor/preact-htm.js'
import { Icon } from './icons.js'
import { humanize, money, number, t, tokensText } from './texts.js'

/** What a thumbnail has room for. */
const THUMB_CHARACTERS = 80

export function Hero({ config, compact }) {
  const { brand, tools } = config
  return html`
    <section class="hero">
      <h1>${brand.tagline || tools[0].title}</h1>
      ${!compact && html`<p class="hero-intro">${brand.description ?? tools[0].description}</p>`}
    </section>
  `
}

export function Promises({ trial }) {
  const count = number(trial.generations)
  return html`
    <ul class="promises">
      ${trial.generations > 0 && html`<li><${Icon} name="gift" />${t('promiseTrial', { count })}</li>`}
      <li><${Icon} name="shield" />${t('promisePrivacy')}</li>
      <li><${Icon} name="print" />${t('promisePrint')}</li>
    </ul>
  `
}

export function Gallery({ studio }) {
  if (studio.results.length === 0) return null
  return html`
    <section class="gallery" aria-labelledby="gallery-title">
      <div class="gallery-head">
        <h2 id="gallery-title">${t('gallery')}</h2>
        <p class="soft-text">${t('galleryHint')}</p>
      </div>
      <ul>
        ${studio.results.toReversed().map(
          (result) => html`
          <li key=${result.id}>
            <button
              type="button"
              class="thumb"
              aria-current=${studio.shown?.id === result.id ? 'true' : undefined}
              disabled=${studio.phase === 'working'}
              onClick=${() => studio.showResult(result.id)}
            >
              <span class="visually-hidden">${t('galleryItem', { number: result.number, name: result.name })}</span>
              ${result.text === undefined ? html`<img src=${result.url} alt="" />` : html`<span class="thumb-words">${result.text.slice(0, THUMB_CHARACTERS)}</span>`}
            </button>
          </li>
        `,
        )}
      </ul>
    </section>
  `
}

export function Story({ config }) {
  return html`
    <section class="story" aria-labelledby="steps-title">
      <h2 id="steps-title">${t('stepsTitle')}</h2>
      <ol class="steps">
        ${[1, 2, 3].map((step) => html`<li><h3>${t(`step${step}Title`)}</h3><p class="soft-text">${t(`step${step}Text`)}</p></li>`)}
      </ol>
    </section>
    <${Prices} config=${config} />
  `
}

function Prices({ config }) {
  const [tool] = config.tools
  const { trial, plans, payments, features } = config
  const { monthlyTokens } = plans.free
  const packs = features.payments ? payments.packs : []
  const paid = features.payments ? Object.entries(plans).filter(([, { priceCents }]) => priceCents > 0) : []
  const lines = [
    trial.generations > 0 && [t('pricesTrial', { count: number(trial.generations) }), t('free')],
    monthlyTokens > 0 && [t('pricesMonthly'), tokensText(monthlyTokens)],
    tool.draftPriceTokens !== undefined && [t('pricesDraft'), tokensText(tool.draftPriceTokens)],
    [t('pricesEach'), tokensText(tool.priceTokens)],
    tool.highQualityPriceTokens !== tool.priceTokens && [t('pricesHigh'), tokensText(tool.highQualityPriceTokens)],
    ...packs.map((pack) => [tokensText(pack.tokens), money(pack.priceCents, payments.currency)]),
    ...paid.map(([plan, { monthlyTokens, priceCents }]) => [
      t('pricesPlan', { plan: humanize(plan), tokens: tokensText(monthlyTokens) }),
      t('planPrice', { price: money(priceCents, payments.currency) }),
    ]),
  ].filter(Boolean)
  return html`
    <section class="prices" aria-labelledby="prices-title">
      <div>
        <h2 id="prices-title">${t('pricesTitle')}</h2>
        <p class="soft-text">${t('pricesNote')}</p>
      </div>
      <dl>${lines.map(([what, price]) => html`<div><dt>${what}</dt><dd>${price}</dd></div>`)}</dl>
    </section>
  `
}

export function Footer({ brand }) {
  const { company, termsUrl, privacyUrl } = brand.legal
  return html`
    <footer class="foot">
      <p>© ${new Date().getFullYear()} ${company ?? brand.name}</p>
      <nav aria-label=${t('footer')}>
        ${termsUrl && html`<a href=${termsUrl}>${t('footerTerms')}</a>`}
        ${privacyUrl && html`<a href=${privacyUrl}>${t('footerPrivacy')}</a>`}
        ${brand.supportEmail && html`<a href=${`mailto:${brand.supportEmail}`}>${t('footerSupport')}</a>`}
      </nav>
    </footer>
  `
}
