// The places you are signed in, and signing out of one of them.
import { html } from '../vendor/preact-htm.js'
import { Missing, useFound } from './account-list.js'
import { ActionButton, Outcome } from './actions.js'
import { authorized } from './session.js'
import { dateText, t } from './texts.js'

export function Sessions({ actions }) {
  const source = useFound('/api/auth/sessions')
  const end = ({ id }) =>
    actions.run('sessions', `session:${id}`, async () => {
      await authorized(`/api/auth/sessions/${id}`, { method: 'DELETE' })
      await source.load()
      return { said: t('sessionEnded') }
    })
  return html`
    ${
      source.found
        ? html`
        <ul class="rows">
          ${source.found.data.map((session) => html`<${Session} key=${session.id} session=${session} actions=${actions} onEnd=${() => end(session)} />`)}
        </ul>
      `
        : html`<${Missing} source=${source} />`
    }
    <${Outcome} actions=${actions} place="sessions" />
  `
}

function Session({ session, actions, onEnd }) {
  const device = deviceOf(session.userAgent)
  const when = dateText(session.lastUsedAt ?? session.createdAt)
  return html`
    <li>
      <span>
        ${device}
        <span class="soft-text">${session.current ? t('thisDevice') : t('lastUsed', { when })}</span>
      </span>
      ${
        !session.current &&
        html`
        <${ActionButton} actions=${actions} name=${`session:${session.id}`} class="quiet small" aria-label=${t('endSessionOf', { device })} onClick=${onEnd}>
          ${t('endSession')}
        <//>
      `
      }
    </li>
  `
}

/** "Chrome, Linux" from a user agent; only what a person needs to recognise a device. */
function deviceOf(userAgent = '') {
  const browser = /(Edg|OPR|Firefox|Chrome|Safari)\//.exec(userAgent)?.[1]
  const system = /(iPhone|iPad|Android|Windows|Mac OS X|Linux)/.exec(userAgent)?.[1]
  const names = { Edg: 'Edge', OPR: 'Opera', 'Mac OS X': 'macOS' }
  return (
    [browser, system]
      .filter(Boolean)
      .map((name) => names[name] ?? name)
      .join(', ') || t('unknownDevice')
  )
}
