// What we hold about the caller: taking it along, and leaving.
import { html, useState } from '../vendor/preact-htm.js'
import { ActionButton, Confirm, Outcome } from './actions.js'
import { jsonOf } from './api.js'
import { Icon } from './icons.js'
import { save } from './save.js'
import { authorized } from './session.js'
import { t } from './texts.js'

/** `onDeleted({ purgeAfter })` is called once the account is closed. */
export function Data({ actions, onDeleted }) {
  const [isAsking, setIsAsking] = useState(false)
  const take = () =>
    actions.run('data', 'export', async () => {
      save(await (await authorized('/api/user/export')).blob(), t('dataFile'))
      return { said: t('dataExported') }
    })
  const leave = () =>
    actions.run('data', 'delete', async () => {
      onDeleted(await jsonOf(await authorized('/api/user/profile', { method: 'DELETE' })))
      return {}
    })
  return html`
    <div class="part-actions">
      <${ActionButton} actions=${actions} name="export" class="soft small" onClick=${take}><${Icon} name="download" /> ${t('dataExport')}<//>
      <button type="button" class="quiet small danger" onClick=${() => setIsAsking(true)}>${t('deleteAccount')}</button>
    </div>
    ${
      isAsking &&
      html`
      <${Confirm}
        actions=${actions}
        name="delete"
        question=${t('deleteQuestion')}
        yes=${t('deleteYes')}
        no=${t('deleteNo')}
        onYes=${leave}
        onNo=${() => setIsAsking(false)}
      />
    `
    }
    <${Outcome} actions=${actions} place="data" />
  `
}
