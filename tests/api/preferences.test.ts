// Preferences where the fork says which there are: none but those, of the type and among the values that it names.
import { beforeAll, describe, expect, test } from 'vitest'
import { type App, call, givenUser, startApp, type TestUser } from '../support/app.ts'

const PREFERENCES = {
  theme: { type: 'string', enum: ['light', 'dark'], description: 'How the page looks.' },
  nickname: { type: 'string' },
  pages: { type: 'number' },
  hints: { type: 'boolean' },
}

let app: App
let user: TestUser

beforeAll(async () => {
  app = await startApp({ FORK__PREFERENCES: JSON.stringify(PREFERENCES) })
  user = await givenUser(app)
})

const put = (preferences: unknown) => call(app, 'PUT /api/user/profile', { token: user.token, body: { preferences } })

describe('preferences', () => {
  test('are told to every page', async () => {
    expect((await call(app, 'GET /api/config')).json.preferences).toEqual(PREFERENCES)
  })

  test('take the values that they may have, and null removes one', async () => {
    const all = { theme: 'dark', nickname: 'Lady A.', pages: 2.5, hints: false }
    expect((await put(all)).json.preferences).toEqual(all)
    expect((await put({ theme: null, nickname: null, pages: 3 })).json.preferences).toEqual({ pages: 3, hints: false })
    expect((await put({})).json.preferences).toEqual({ pages: 3, hints: false })
  })

  test.each<{ why: string; given: unknown; path: string; message: RegExp }>([
    {
      why: 'a name that there is not',
      given: { colour: 'red' },
      path: 'preferences.colour',
      message: /^Unknown field\.$/,
    },
    {
      why: 'a value that is not listed',
      given: { theme: 'blue' },
      path: 'preferences.theme',
      message: /"light" \| "dark"/,
    },
    { why: 'a number for a text', given: { nickname: 1 }, path: 'preferences.nickname', message: /string/ },
    { why: 'a text for a number', given: { pages: '2' }, path: 'preferences.pages', message: /number/ },
    { why: 'a text for a switch', given: { hints: 'yes' }, path: 'preferences.hints', message: /boolean/ },
    {
      why: 'a name that every object has',
      given: { toString: 'x' },
      path: 'preferences.toString',
      message: /^Unknown field\.$/,
    },
  ])('refuse $why', async ({ given, path, message }) => {
    const before = (await put({})).json.preferences
    const { status, json } = await put(given)
    expect(status).toBe(400)
    expect(json.error.code).toBe('VALIDATION_FAILED')
    expect(json.error.details.issues).toMatchObject([{ path, message: expect.stringMatching(message) }])
    expect((await put({})).json.preferences).toEqual(before)
  })

  test('are refused whole when one of them is, each with its place', async () => {
    const { json } = await put({ theme: 'blue', pages: 'two', hints: true })
    expect(json.error.details.issues).toMatchObject([{ path: 'preferences.theme' }, { path: 'preferences.pages' }])
  })
})
