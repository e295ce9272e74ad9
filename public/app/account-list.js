// A list of the account that is read when it is shown, and again after something in it changed.
import { html, useEffect, useState } from '../vendor/preact-htm.js'
import { jsonOf } from './api.js'
import { explainAccount } from './explain.js'
import { Icon } from './icons.js'
import { authorized } from './session.js'
import { t } from './texts.js'

/** `{ found, problem, load }`: `found` is undefined until there was an answer, and stays as it is where a later one fails. */
export function useFound(path) {
  const [found, setFound] = useState()
  const [problem, setProblem] = useState('')
  const load = async () => {
    setProblem('')
    try {
      setFound(await jsonOf(await authorized(path)))
    } catch (error) {
      setProblem(explainAccount(error))
      if (!error.code) throw error
    }
  }
  useEffect(() => {
    load()
  }, [])
  return { found, problem, load }
}

/** What stands where an answer is missing: a word of patience, or why there is none and another try. */
export function Missing({ source: { problem, load } }) {
  if (!problem) return html`<p class="soft-text">${t('busy')}</p>`
  return html`
    <p class="problem bad" role="alert"><${Icon} name="alert" />${problem}</p>
    <p><button type="button" class="soft small" onClick=${load}>${t('tryAgain')}</button></p>
  `
}
