// One thing at a time among the buttons of a dialog, and what went wrong beside the one that was pressed.
import { html, useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { explainPayment } from './explain.js'
import { Icon } from './icons.js'
import { t } from './texts.js'

/** `run(place, name, work)`: `work` may resolve to `{ goTo }`, a page to leave for, or `{ said }`, words for this place. */
export function useActions(explain = explainPayment) {
  const [state, setState] = useState({ busy: null })
  const isRunning = useRef(false)
  const isOpen = useRef(true)
  useEffect(() => {
    // The Back button brings the page back as it was left, in the middle of leaving.
    const back = (event) => event.persisted && finish({})
    addEventListener('pageshow', back)
    return () => {
      isOpen.current = false
      removeEventListener('pageshow', back)
    }
  }, [])

  function finish(outcome) {
    isRunning.current = false
    setState({ busy: null, ...outcome })
  }

  async function run(place, name, work) {
    if (isRunning.current) return
    isRunning.current = true
    setState({ busy: name, place })
    try {
      const { goTo, said } = await work()
      if (!isOpen.current) return
      if (goTo) location.assign(goTo)
      else finish({ place, said })
    } catch (error) {
      finish({ place, problem: explain(error) })
      if (!error.code) throw error
    }
  }

  return {
    busy: state.busy,
    run,
    clear: () => !isRunning.current && setState({ busy: null }),
    at: (place) => (state.place === place ? state : {}),
  }
}

/** A button that keeps its size while its work runs, and does nothing while other work does. */
export function ActionButton({ actions, name, class: look = 'soft', onClick, type = 'button', children, ...rest }) {
  const isDoing = actions.busy === name
  const press = (event) => {
    if (actions.busy === null) onClick?.(event)
  }
  return html`
    <button type=${type} class=${`${look} action`} data-doing=${isDoing} aria-disabled=${actions.busy !== null} onClick=${press} ...${rest}>
      <span>${children}</span>
      ${isDoing && html`<span class="spinner" aria-hidden="true"></span>`}
    </button>
  `
}

/** What an action in this place came to: said at once to screen readers. */
export function Outcome({ actions, place, waiting = t('busy') }) {
  const { busy, problem, said } = actions.at(place)
  return html`
    ${problem && html`<p class="problem bad" role="alert"><${Icon} name="alert" />${problem}</p>`}
    <p class=${said ? 'field-hint good' : 'visually-hidden'} role="status">${said ? html`<${Icon} name="check" />${said}` : busy ? waiting : ''}</p>
  `
}

/** A question with its two answers; the harmless one has the focus, which goes back to where it was. */
export function Confirm({ actions, name, question, yes, no, onYes, onNo }) {
  const harmless = useRef(null)
  useEffect(() => {
    const opener = document.activeElement
    harmless.current.focus()
    return () => {
      if (!opener?.isConnected) return
      opener.focus()
    }
  }, [])
  return html`
    <div class="confirm" role="group" aria-labelledby="confirm-question">
      <p id="confirm-question">${question}</p>
      <div class="confirm-answers">
        <${ActionButton} actions=${actions} name=${name} class="primary small" onClick=${onYes}>${yes}<//>
        <button ref=${harmless} type="button" class="quiet small" aria-describedby="confirm-question" onClick=${onNo}>${no}</button>
      </div>
    </div>
  `
}
