// Clerk as a page meets it: its scripts and its frontend API, answered at its own address by the browser under test.
import type { Page, Request, Route } from 'playwright-core'
import type { ClerkStub } from './clerk-stub.ts'
import { clerkIdOf } from './clerk-tokens.ts'

export interface ClerkPage {
  /** Who is signed in at Clerk in this browser, and who will be when its dialog is answered. */
  session: { id: string; userId: string } | null
  nextUserId: string
  /** What the page asked Clerk, as `GET /v1/client`. */
  calls: string[]
  /** Whether Clerk answers at all. */
  isUp: boolean
  /** A token to be found in the cache of the script, such as one that is over. */
  cachedToken: string | undefined
}

/** Without CORS a script of another origin with `crossorigin` does not run. */
const headersFor = (request: Request) => ({
  'access-control-allow-origin': new URL(request.frame().url()).origin,
  'access-control-allow-credentials': 'true',
})

const UI_SCRIPT = `globalThis.__internal_ClerkUICtor = class ClerkUI {}`

/** As far as window.Clerk of version 6 is used: it has no dialogs without the constructor of @clerk/ui, and reads its key off its tag. */
const CLERK_SCRIPT = `{
  const key = document.querySelector('script[data-clerk-publishable-key]').dataset.clerkPublishableKey
  const ask = async (path, method = 'POST') => {
    const response = await fetch('https://' + atob(key.split('_')[2]).slice(0, -1) + path, { method, credentials: 'include' })
    return response.json()
  }
  const listeners = []
  let options
  let cached
  class Clerk {
    async load(given) {
      options = given
      this.take(await ask('/v1/client', 'GET'))
      this.loaded = true
    }
    take({ session, token }) {
      cached = token
      this.session = session && {
        id: session.id,
        status: 'active',
        getToken: async ({ skipCache } = {}) => {
          if (cached && !skipCache) return cached
          return (await ask('/v1/client/sessions/' + session.id + '/tokens' + (skipCache ? '?skip' : ''))).jwt
        },
      }
      this.user = session ? { id: session.userId } : null
      for (const listen of listeners) listen({ client: {}, session: this.session, user: this.user })
    }
    addListener(listen, { skipInitialEmit } = {}) {
      listeners.push(listen)
      if (!skipInitialEmit) listen({ client: {}, session: this.session, user: this.user })
    }
    open(title, then) {
      if (!options.ui?.ClerkUI) throw new Error('Clerk was not loaded with Ui components')
      const style = document.createElement('style')
      style.textContent = '.clerk { position: fixed; inset: 20% 30% auto; padding: 2em; background: #fff; color: #000; z-index: 9 }'
      const dialog = document.createElement('div')
      dialog.className = 'clerk'
      dialog.setAttribute('role', 'dialog')
      dialog.setAttribute('aria-label', title)
      const button = document.createElement('button')
      button.textContent = 'Continue'
      button.onclick = () => (dialog.remove(), then())
      const image = new Image()
      image.alt = ''
      image.src = 'https://img.clerk.com/logo'
      const check = document.createElement('script')
      check.src = 'https://challenges.cloudflare.com/turnstile/v0/api.js'
      const frame = document.createElement('iframe')
      frame.src = 'https://challenges.cloudflare.com/frame'
      new Worker(URL.createObjectURL(new Blob(['1'])))
      dialog.append(style, image, check, frame, button)
      document.body.append(dialog)
    }
    openSignIn() {
      if (this.session) throw new Error('cannot_render_single_session_enabled')
      this.open('Sign in to Clerk', async () => this.take(await ask('/v1/client/sign_ins')))
    }
    openSignUp() {
      if (this.session) throw new Error('cannot_render_single_session_enabled')
      this.open('Sign up at Clerk', async () => this.take(await ask('/v1/client/sign_ups')))
    }
    openUserProfile() {
      this.open('Profile at Clerk', () => {})
    }
    async signOut(callback) {
      this.take(await ask('/v1/client/sessions/' + this.session.id + '/remove'))
      typeof callback === 'function' ? await callback() : location.assign('/')
    }
  }
  globalThis.Clerk ??= new Clerk()
}`

/** Lets `page` reach Clerk, or what stands for it. Tokens are minted for `origin` and so pass the real verification. */
export async function serveClerk(page: Page, stub: ClerkStub, origin: string): Promise<ClerkPage> {
  const { frontendApi } = stub.instance
  const clerk: ClerkPage = {
    session: null,
    nextUserId: stub.addUser().id,
    calls: [],
    isUp: true,
    cachedToken: undefined,
  }
  const mint = ({ id, userId }: { id: string; userId: string }) =>
    stub.token(userId, { claims: { sid: id, azp: origin }, expiresIn: 60 })
  const client = () => ({ session: clerk.session, token: clerk.cachedToken })
  const begin = () => {
    clerk.session = { id: clerkIdOf('sess'), userId: clerk.nextUserId }
    return client()
  }
  const end = () => {
    clerk.session = null
    return client()
  }
  const answerOf = (path: string) => {
    if (path === '/v1/client') return client()
    if (path.startsWith('/v1/client/sign_')) return begin()
    if (path.endsWith('/remove')) return end()
    return { jwt: clerk.session && mint(clerk.session) }
  }

  await page.route(`https://${frontendApi}/**`, async (route: Route) => {
    const request = route.request()
    const { pathname, search } = new URL(request.url())
    clerk.calls.push(`${request.method()} ${pathname}${search}`)
    if (!clerk.isUp) return await route.abort()
    const headers = headersFor(request)
    const script = { contentType: 'text/javascript', headers }
    if (pathname === '/npm/@clerk/ui@1/dist/ui.browser.js') return await route.fulfill({ ...script, body: UI_SCRIPT })
    if (pathname === '/npm/@clerk/clerk-js@6/dist/clerk.browser.js') {
      return await route.fulfill({ ...script, body: CLERK_SCRIPT })
    }
    await route.fulfill({ json: answerOf(pathname), headers })
  })
  await page.route('https://img.clerk.com/**', (route) =>
    route.fulfill({ contentType: 'image/svg+xml', body: '<svg xmlns="http://www.w3.org/2000/svg"/>' }),
  )
  await page.route('https://challenges.cloudflare.com/**', (route) =>
    route.fulfill({ contentType: route.request().url().endsWith('.js') ? 'text/javascript' : 'text/html', body: '' }),
  )
  return clerk
}
