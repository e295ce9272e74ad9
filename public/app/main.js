// The page: loads the fork's configuration, then puts header, studio, dialogs and footer together.
import { html, render, useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { useAccount } from './account.js'
import { AccountDialog } from './account-dialog.js'
import { call, jsonOf } from './api.js'
import { Controls } from './controls.js'
import { Header } from './header.js'
import { Icon } from './icons.js'
import { useLanding } from './landing.js'
import { Notice } from './notice.js'
import { PurchaseNotice } from './purchase-notice.js'
import { useCheckoutReturn } from './purchases.js'
import { ForgotDialog, ResetDialog } from './reset-dialog.js'
import { Footer, Gallery, Hero, Promises, Story } from './sections.js'
import { signOut } from './session.js'
import { SignDialog } from './sign-dialog.js'
import { Stage } from './stage.js'
import { useStudio } from './studio.js'
import { dateText, setTexts, t } from './texts.js'
import { applyTheme } from './theme.js'
import { TokensDialog } from './tokens-dialog.js'
import { takesPhoto } from './tool.js'

const root = document.getElementById('app')
start()

async function start() {
  try {
    const config = await jsonOf(await call('/api/config'))
    setTexts(config.brand.texts, config.tools[0])
    applyTheme(config.brand)
    root.replaceChildren()
    render(html`<${App} config=${config} />`, root)
  } catch (error) {
    root.replaceChildren()
    render(html`<${Unreachable} />`, root)
    if (error.name !== 'ApiError') throw error
  }
}

function App({ config }) {
  const account = useAccount(config.auth)
  const [dialog, setDialog] = useState(null)
  const [notice, setNotice] = useState(null)
  const signIn = (mode) => account.askProvider(mode) || setDialog(mode === 'up' ? 'signUp' : 'signIn')
  const studio = useStudio({ config, account, askToSignIn: () => signIn('up') })
  const [purchase, dismissPurchase] = useCheckoutReturn(account)
  const landing = useLanding({ auth: config.auth, account, onNotice: setNotice, onReset: () => setDialog('reset') })
  useChosenFiles(studio, dialog !== null || !takesPhoto(studio.tool))

  const close = () => {
    setDialog(null)
    studio.forgetIntent()
  }
  /** Pressed by itself, not on the way to a picture: an earlier wish for one is over. */
  const signInOnly = (mode) => () => {
    studio.forgetIntent()
    signIn(mode)
  }
  const welcome = (user, { isNew }) => {
    setDialog(null)
    const awaitsProof = isNew && !user.emailVerified && config.trial.generations > 0 && !user.balance.trialGenerations
    setNotice(awaitsProof ? { icon: 'gift', text: t('confirmTrial', { email: user.email }) } : null)
  }
  const leave = ({ purgeAfter }) => {
    setDialog(null)
    studio.clear()
    signOut()
    setNotice({ text: purgeAfter ? t('deleted', { date: dateText(purgeAfter) }) : t('deletedNow') })
  }
  const hasBegun = studio.photo !== null || studio.results.length > 0
  const view = studio.phase === 'working' ? 'working' : studio.shown ? 'result' : hasBegun ? 'photo' : 'empty'
  return html`
    <div class="shell" data-view=${view}>
      <a class="skip" href="#studio">${t('skipLink')}</a>
      <${Header}
        brand=${config.brand}
        account=${account}
        onSignIn=${signInOnly('in')}
        onSignUp=${signInOnly('up')}
        onTokens=${() => setDialog('tokens')}
        onAccount=${() => setDialog('account')}
      />
      <main>
        ${account.trouble && html`<${SignInTrouble} trouble=${account.trouble} onRetry=${signInOnly('in')} />`}
        ${notice && html`<${Notice} ...${notice} onClose=${() => setNotice(null)}>${notice.text}<//>`}
        ${purchase && html`<${PurchaseNotice} purchase=${purchase} onSignIn=${signInOnly('in')} onTokens=${() => setDialog('tokens')} onClose=${dismissPurchase} />`}
        <div class="studio" id="studio" tabindex="-1">
          <${Hero} config=${config} compact=${view !== 'empty'} />
          <section class="stage" aria-label=${t('picture')}>
            <${Stage} studio=${studio} />
          </section>
          ${view === 'empty' && takesPhoto(studio.tool) && html`<${Promises} trial=${config.trial} />`}
          <${Controls} studio=${studio} account=${account} config=${config} onTokens=${() => setDialog('tokens')} onSignIn=${signInOnly('in')} />
          <${Gallery} studio=${studio} />
        </div>
        ${view === 'empty' && html`<${Story} config=${config} />`}
      </main>
      <${Footer} brand=${config.brand} />
      <p class="visually-hidden" role="status">${studio.announcement}</p>
    </div>
    ${studio.shown?.facts.width && html`<img class=${`print-sheet ${studio.shown.facts.width > studio.shown.facts.height ? 'wide' : 'tall'}`} src=${studio.shown.url} alt="" />`}
    ${
      (dialog === 'signUp' || dialog === 'signIn') &&
      html`
      <${SignDialog}
        key=${dialog}
        mode=${dialog === 'signUp' ? 'up' : 'in'}
        pending=${studio.isWaitingForSignIn()}
        config=${config}
        onSignedIn=${welcome}
        onForgot=${(email) => setDialog({ forgot: email })}
        onClose=${close}
      />
    `
    }
    ${dialog?.forgot !== undefined && html`<${ForgotDialog} email=${dialog.forgot} onBack=${() => setDialog('signIn')} onClose=${close} />`}
    ${
      dialog === 'reset' &&
      html`
      <${ResetDialog}
        token=${landing.resetToken}
        lengthMin=${config.auth.passwordLengthMin}
        onForgot=${() => setDialog({ forgot: '' })}
        onSignIn=${() => setDialog('signIn')}
        onClose=${close}
      />
    `
    }
    ${dialog === 'account' && account.user && html`<${AccountDialog} user=${account.user} billing=${account.billing} config=${config} onSignOut=${studio.clear} onDeleted=${leave} onClose=${close} />`}
    ${dialog === 'tokens' && account.user && html`<${TokensDialog} account=${account} config=${config} onClose=${close} />`}
  `
}

function SignInTrouble({ trouble: { text, isBusy }, onRetry }) {
  const action = { text: t('tryAgain'), onClick: () => !isBusy && onRetry(), isBusy }
  return html`<${Notice} icon=${isBusy ? 'busy' : 'alert'} tone="alert" action=${action}>${isBusy ? t('signInTrying') : text}<//>`
}

/** Files dropped anywhere on the page, or pasted, are chosen; while one is over the page, it says so. */
function useChosenFiles(studio, isPaused) {
  const latest = useRef(null)
  latest.current = { studio, isPaused }
  useEffect(() => {
    const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files')
    const mark = (on) => document.documentElement.toggleAttribute('data-dropping', on)
    const choose = (file) => !latest.current.isPaused && latest.current.studio.choose(file)
    const over = (event) => {
      if (!hasFiles(event)) return
      event.preventDefault()
      mark(!latest.current.isPaused)
    }
    const leave = (event) => event.relatedTarget === null && mark(false)
    const drop = (event) => {
      if (!hasFiles(event)) return
      event.preventDefault()
      mark(false)
      choose(event.dataTransfer.files[0])
    }
    const paste = (event) => event.clipboardData?.files.length > 0 && choose(event.clipboardData.files[0])
    const listeners = { dragover: over, dragleave: leave, drop, paste }
    for (const [type, listen] of Object.entries(listeners)) addEventListener(type, listen)
    return () => {
      for (const [type, listen] of Object.entries(listeners)) removeEventListener(type, listen)
    }
  }, [])
}

function Unreachable() {
  return html`
    <main class="lone">
      <span class="lone-icon"><${Icon} name="alert" /></span>
      <h1>${t('offlineTitle')}</h1>
      <p class="soft-text">${t('offlineText')}</p>
      <button type="button" class="primary" onClick=${() => location.reload()}>${t('tryAgain')}</button>
    </main>
  `
}
