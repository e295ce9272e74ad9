// A message above the page: what came of something, and at most one thing to do about it.
import { html } from '../vendor/preact-htm.js'
import { Icon } from './icons.js'
import { t } from './texts.js'

/** `icon` 'busy' is the spinner. `tone` 'alert' is said at once. Without `onClose` it stays. */
export function Notice({ icon = 'check', tone = 'status', label = t('notice'), step, onClose, children, action }) {
  const close = () => {
    onClose()
    document.getElementById('studio').focus({ preventScroll: true })
  }
  return html`
    <section class="page-notice" data-step=${step} aria-label=${label}>
      ${icon === 'busy' ? html`<span class="spinner" aria-hidden="true"></span>` : html`<${Icon} name=${icon} />`}
      <p role=${tone}>${children}</p>
      ${action && html`<button type="button" class="soft small" aria-disabled=${action.isBusy} onClick=${action.onClick}>${action.text}</button>`}
      ${onClose && html`<button type="button" class="page-notice-close" aria-label=${t('noticeClose')} onClick=${close}><${Icon} name="close" /></button>`}
    </section>
  `
}
