// Sessions kept by Clerk: its scripts, loaded only where the configuration names it, and a fresh token for every request.
import { ApiError, call, isRefusal, jsonOf } from './api.js'

/** Clerk's scripts come from the instance itself. These majors belong together: since 6 the dialogs are a package of their own. */
const SCRIPTS = ['@clerk/ui@1/dist/ui.browser.js', '@clerk/clerk-js@6/dist/clerk.browser.js']
const LOAD_TIMEOUT_MS = 15_000
/** Clerk's dialogs in the colours and letters of the page, whichever scheme is on. */
const APPEARANCE = {
  variables: {
    colorPrimary: 'var(--primary)',
    colorPrimaryForeground: 'var(--on-primary)',
    colorBackground: 'var(--sheet)',
    colorForeground: 'var(--ink)',
    colorMutedForeground: 'var(--ink-soft)',
    colorInput: 'var(--sheet)',
    colorInputForeground: 'var(--ink)',
    colorNeutral: 'var(--ink)',
    fontFamily: 'var(--body)',
    borderRadius: '12px',
  },
  elements: { footerActionLink: { color: 'var(--primary-ink)' } },
}

export function clerkProvider({ publishableKey, frontendApi }, tell) {
  let clerk
  let loading
  /** The session whose user the page shows, and one that is not to be shown: our server refused it, or it is being ended. */
  let shownId = null
  let refusedId = null

  async function restore() {
    await load()
    return await enter()
  }

  function load() {
    loading ??= loadClerk(publishableKey, frontendApi).then(
      (loaded) => {
        clerk = loaded
        clerk.addListener(follow, { skipInitialEmit: true })
      },
      (error) => {
        loading = undefined
        throw new ApiError({ code: 'SIGN_IN_UNREACHABLE', message: String(error) })
      },
    )
    return loading
  }

  /** Tells of the person behind Clerk's session, as our server knows them; of nobody when there is none. */
  async function enter() {
    const id = activeId()
    shownId = id
    try {
      const user = id === null ? null : await profile()
      if (activeId() !== id) return await enter()
      tell(user)
      return user
    } catch (error) {
      refusedId = id
      shownId = null
      throw error
    }
  }

  async function profile() {
    const ask = async (refused) =>
      jsonOf(await call('/api/user/profile', { headers: { authorization: `Bearer ${await token(refused)}` } }))
    try {
      return await ask()
    } catch (error) {
      if (!isRefusal(error)) throw error
      return await ask(true)
    }
  }

  /** Clerk reports every renewal of a token as well: only another session is another person. */
  function follow({ session }) {
    const id = activeId()
    if (session === undefined || id === shownId || (id !== null && id === refusedId)) return
    enter().catch((error) => tell(null, error))
  }

  /** A session with a task left to do, such as choosing a second factor, counts as none. */
  function activeId() {
    const { session } = clerk
    return session && session.status !== 'pending' ? session.id : null
  }

  async function token(refused) {
    let found
    try {
      found = await clerk?.session?.getToken(refused ? { skipCache: true } : undefined)
    } catch (error) {
      throw new ApiError({ code: 'NETWORK', message: String(error) })
    }
    if (!found) throw new ApiError({ code: 'UNAUTHENTICATED' })
    return found
  }

  /** Clerk has this person signed in already where only our server did not take it: then that is tried again. */
  async function openSignIn(mode) {
    refusedId = null
    await load()
    if (activeId() !== null) await enter()
    else if (mode === 'up') clerk.openSignUp()
    else clerk.openSignIn()
  }

  function forget() {
    refusedId = shownId
    shownId = null
    tell(null)
  }

  function signOut() {
    // Until Clerk is done it may still report this session, which is not to come back by that.
    refusedId = shownId
    shownId = null
    tell(null)
    // With a callback Clerk leaves the page where it is.
    clerk.signOut(() => {}).catch(() => {})
  }

  return { restore, token, forget, signOut, openSignIn, openAccount: () => clerk.openUserProfile() }
}

async function loadClerk(publishableKey, frontendApi) {
  if (!frontendApi) throw new Error('No publishable key is configured.')
  await Promise.all(SCRIPTS.map((path) => loadScript(`https://${frontendApi}/npm/${path}`, publishableKey)))
  const { Clerk: clerk, __internal_ClerkUICtor: ClerkUI } = globalThis
  if (!clerk || !ClerkUI) throw new Error('The scripts left nothing behind.')
  await inTime(clerk.load({ ui: { ClerkUI }, telemetry: false, appearance: APPEARANCE }))
  return clerk
}

function loadScript(src, publishableKey) {
  const script = document.createElement('script')
  const done = new Promise((resolve, reject) => {
    script.addEventListener('load', resolve)
    script.addEventListener('error', () => reject(new Error(`${src} did not load.`)))
  })
  Object.assign(script, { src, async: true, crossOrigin: 'anonymous' })
  script.dataset.clerkPublishableKey = publishableKey
  document.head.append(script)
  return inTime(done).catch((error) => {
    script.remove()
    throw error
  })
}

function inTime(work) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('No answer in time.')), LOAD_TIMEOUT_MS)
  })
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}
