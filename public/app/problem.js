// What went wrong, in a box: said at once to screen readers, brought into view, with the way on.
import { html, useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { Icon } from './icons.js'
import { t } from './texts.js'

export function Problem({ problem, onTokens, onSignIn, onOver }) {
  const box = useRef(null)
  useEffect(() => box.current.scrollIntoView({ block: 'nearest' }), [problem.title, problem.text])
  return html`
    <div ref=${box} class=${`problem ${problem.tone ?? 'bad'}`} role=${problem.tone === 'note' ? 'note' : 'alert'}>
      <${Icon} name=${problem.tone === 'note' ? 'clock' : 'alert'} />
      <div>
        ${problem.title && html`<p class="problem-title">${problem.title}</p>`}
        ${problem.retryAt ? html`<${Countdown} until=${problem.retryAt} onOver=${onOver} />` : problem.text && html`<p>${problem.text}</p>`}
        ${problem.note && html`<p class="fine">${problem.note}</p>`}
        ${problem.action === 'tokens' && onTokens && html`<button type="button" class="soft small" onClick=${onTokens}>${t('getTokens')}</button>`}
        ${problem.action === 'signIn' && onSignIn && html`<button type="button" class="soft small" onClick=${onSignIn}>${t('signIn')}</button>`}
      </div>
    </div>
  `
}

/** Seconds until a limited call may be repeated; calls `onOver` once they are gone. */
export function Countdown({ until, onOver }) {
  const [seconds, setSeconds] = useState(() => secondsUntil(until))
  const atFirst = useRef(seconds)
  useEffect(() => {
    const ticking = setInterval(() => {
      const left = secondsUntil(until)
      setSeconds(left)
      if (left > 0) return
      clearInterval(ticking)
      onOver?.()
    }, 250)
    return () => clearInterval(ticking)
  }, [until])
  // The running figure is for the eyes: inside an alert a screen reader would read out every second.
  return html`
    <p class="countdown" aria-hidden="true">${seconds > 0 ? t('errorRateText', { seconds }) : t('errorRateOver')}</p>
    <p class="visually-hidden">${t('errorRateText', { seconds: atFirst.current })}</p>
  `
}

function secondsUntil(until) {
  return Math.max(0, Math.ceil((until - Date.now()) / 1000))
}
